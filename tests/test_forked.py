"""Processes that are forked ready to run a command behave as any that is started.

But for what ends one whose threads hang, see ``preloaded.py``: that is tried with a process of its
own, in ``cli/test_ending.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.forked import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def waiting() -> Iterator[Forked]:
    """A worker that waits for its server, which never comes."""
    environment = {**os.environ, "NATS_URL": "nats://127.0.0.1:9"}
    worker = Forked(["worker", "--node", "one"], environment)
    yield worker
    worker.kill()
    worker.wait()


def test_it_ends_with_the_status_of_its_command() -> None:
    assert Forked(["--version"], dict(os.environ)).wait() == 0
    assert Forked(["no-such-command"], dict(os.environ)).wait() == 2


def test_a_signal_ends_it_and_none_reaches_another_afterwards(waiting: Forked) -> None:
    assert waiting.poll() is None

    waiting.kill()

    assert waiting.wait() == -signal.SIGKILL
    waiting.terminate()
    assert waiting.poll() == -signal.SIGKILL


def test_it_is_waited_for_no_longer_than_it_is_said(waiting: Forked) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.01)
