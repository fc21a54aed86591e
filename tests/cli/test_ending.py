"""A program that is told to stop ends, whatever its threads still wait for."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from holdfast.cli.base import exit_codes

_BEGINNING = """
import asyncio, signal, sys, threading, time, uvloop
from holdfast.cli.base import ending

ending.END_SECONDS = float(sys.argv[1])
ending.take_signals(is_serving=True)

async def hang():
    # As a file system does that does not answer.
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    return 3

def run(loop, work):
    return asyncio.run(work, loop_factory=loop)
"""
LOOPS = ["asyncio.new_event_loop", "uvloop.new_event_loop"]
AT_ONCE, NEVER = "0.01", "1000"


def program(text: str, end_seconds: str) -> subprocess.Popen[bytes]:
    """A program of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{_BEGINNING}\n{text}", end_seconds],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_its_status_is_that_of_its_work_though_a_thread_goes_on(loop: str) -> None:
    with program(f"run({loop}, ending.ending_soon(hang()))", AT_ONCE) as process:
        assert process.wait(60) == 3


@pytest.mark.parametrize(
    ("end_seconds", "signals"), [(AT_ONCE, [signal.SIGTERM]), (NEVER, [signal.SIGINT] * 2)]
)
def test_it_is_interrupted_soon_after_one_signal_and_at_once_by_the_second(
    end_seconds: str, signals: list[signal.Signals]
) -> None:
    text = """
async def wait():
    try:
        await hang()
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        print("stopping", flush=True)

run(None, wait())
"""
    with program(text, end_seconds) as process:
        assert process.stdout is not None
        for number in signals:
            process.stdout.readline()
            process.send_signal(number)

        assert process.wait(60) == exit_codes.INTERRUPTED
