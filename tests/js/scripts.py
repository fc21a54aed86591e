"""Runs the scripts beside this file with node.

Run ``npm install --prefix tests/js`` once. Without node or the packages a test is skipped on a
laptop, and fails where ``CI`` is set.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

HERE: Final = Path(__file__).parent
SECONDS: Final = 60.0


def find_node() -> str:
    """The program; skips or fails where it, or a package, is not installed."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules/@nats-io/transport-node").is_dir():
        reason = "node, or the packages of tests/js/package.json, are not installed"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return node


def run_script_here(script: str, *arguments: str) -> Any:
    """A script's output, read as JSON."""
    done = subprocess.run(
        [find_node(), str(HERE / script), *arguments],
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


async def run_script(script: str, *arguments: str) -> Any:
    """The same, for a test that has an event loop to go on with."""
    find_node()
    return await asyncio.to_thread(run_script_here, script, *arguments)
