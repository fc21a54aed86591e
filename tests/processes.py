"""Processes that a test stops in their tracks."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

STOP_SECONDS: Final = 30.0
_STOPPED: Final = frozenset("TtZX")


def stop(pid: int) -> None:
    """Stop the process and return once none of its threads runs any more.

    The signal alone promises nothing: a thread goes on until it is next scheduled, and may answer
    a request that was sent after the signal. Raises TimeoutError.
    """
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + STOP_SECONDS
    while not _STOPPED.issuperset(_states(pid)):
        if time.monotonic() > deadline:
            msg = f"process {pid} did not stop within {STOP_SECONDS} s"
            raise TimeoutError(msg)
        time.sleep(0.001)


def _states(pid: int) -> set[str]:
    """The states of the process's threads, as the kernel abbreviates them."""
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            status = (task / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        states.add(status.rpartition(")")[2].split()[0])
    return states
