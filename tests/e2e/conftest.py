"""The stack of these tests: it takes minutes and a Docker engine, so it is started when asked for.

``make e2e`` asks (HOLDFAST_E2E=1), and then no engine is a failure; else the tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio
from tests.e2e.stack import Stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from holdfast.client import Client

# Read before a fixture hides the variables of whoever runs the tests.
ASKED_FOR: Final = os.environ.get("HOLDFAST_E2E") == "1"


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack, up from a clean start; removed afterwards."""
    if not ASKED_FOR:
        pytest.skip("the composed stack is tested by `make e2e`, with a Docker engine")
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"no Docker engine answers: {answer.stderr}"
    stack = Stack()
    try:
        started = time.monotonic()
        stack.compose("up", "--detach", "--build", "--wait")
        print(f"\nup from clean in {time.monotonic() - started:.1f} s")  # noqa: T201  (make e2e shows it)
        yield stack
    finally:
        stack.remove()


@pytest_asyncio.fixture
async def holdfast(stack: Stack) -> AsyncIterator[Client]:
    """A client on the host, of a stack that is whole; nothing may have been denied by the end."""
    await stack.run("up", "--detach", "--wait")
    await stack.wait_current()
    async with await stack.client() as client:
        yield client
    assert stack.violations() == []
