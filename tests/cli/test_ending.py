"""A program that is told to stop ends, whatever its threads still wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.deployment import Deployment

from holdfast.cli.base import exit_codes

if TYPE_CHECKING:
    from holdfast.runtime.embedded import EmbeddedServer

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
_HANGING_WORKER = """
import asyncio, runpy, sys, threading
from holdfast.bootstrap import worker
from holdfast.cli.base import ending

ending.END_SECONDS = float(sys.argv[1])
run_worker = worker.run_worker

async def hang_and_run(*given, **named):
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    return await run_worker(*given, **named)

worker.run_worker = hang_and_run
sys.argv[1:] = ["worker"]
runpy.run_module("holdfast", run_name="__main__")
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


@pytest.mark.nats
@pytest.mark.long
def test_a_worker_that_was_told_to_stop_ends_well_though_a_thread_hangs(
    nats_server: EmbeddedServer,
) -> None:
    with Deployment(nats_server.url) as deployment:
        settings = {
            "NATS_URL": deployment.url,
            "HOLDFAST_PREFIX": deployment.prefix,
            "HOLDFAST_STORE": deployment.store,
        }
        with subprocess.Popen(
            [sys.executable, "-c", _HANGING_WORKER, AT_ONCE],
            env=os.environ | settings,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            assert any(b"worker_started" in line for line in process.stderr)
            process.terminate()
            try:
                assert process.wait(60) == 0
            finally:
                process.kill()
