"""A program that is told to stop ends, whatever its threads still wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.deployment import Deployment

from holdfast.cli import main
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

def run(loop, command):
    ending.run_in_loop(command, loop_factory=loop)
"""
_HANGING_WORKER = """
import asyncio, runpy, sys, threading
from holdfast.bootstrap import worker

run_worker = worker.run_worker

async def hang_and_run(*given, **named):
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    return await run_worker(*given, **named)

worker.run_worker = hang_and_run
from holdfast.cli.serving import worker as command
command._LAST_SECONDS = float(sys.argv[1])
sys.argv[1:] = ["worker"]
runpy.run_module("holdfast", run_name="__main__")
"""
LOOPS = ["asyncio.new_event_loop", "uvloop.new_event_loop"]
AT_ONCE, SOON, NEVER = "0.01", "30", "1000"
INTERRUPTS = 60


def program(text: str, end_seconds: str) -> subprocess.Popen[bytes]:
    """A program of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{_BEGINNING}\n{text}", end_seconds],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_its_status_is_that_of_its_work_though_a_thread_goes_on(loop: str) -> None:
    text = f"asyncio.run(ending.ending_soon(hang()), loop_factory={loop})"
    with program(text, AT_ONCE) as process:
        assert process.wait(60) == 3


@pytest.mark.parametrize("loop", LOOPS)
def test_whenever_it_is_interrupted_it_ends_in_order(loop: str) -> None:
    text = f"""
async def pass_on(some, others):
    while True:
        await some.get()
        others.put_nowait(None)

async def work():
    some, others = asyncio.Queue(), asyncio.Queue()
    passing = [asyncio.create_task(pass_on(some, others)) for _ in range(4)]
    print("ready", flush=True)
    try:
        while True:
            some.put_nowait(None)
            await others.get()
    finally:
        await asyncio.sleep(0)
        print("cleaned", end=" ")

for _ in range({INTERRUPTS}):
    ending.take_signals(is_serving=True)
    try:
        run({loop}, work)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    with program(text, SOON) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for turn in range(INTERRUPTS):
            assert process.stdout.readline() == b"ready\n"
            process.send_signal([signal.SIGINT, signal.SIGTERM][turn % 2])
            assert process.stdout.readline() == b"cleaned interrupted\n"

        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("end_seconds", "signals"), [(AT_ONCE, [signal.SIGTERM]), (NEVER, [signal.SIGINT] * 2)]
)
@pytest.mark.parametrize("loop", LOOPS)
def test_it_is_interrupted_soon_after_one_signal_and_at_once_by_the_second(
    loop: str, end_seconds: str, signals: list[signal.Signals]
) -> None:
    text = f"""
async def wait():
    try:
        await hang()
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        print("stopping", flush=True)

run({loop}, wait)
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


def test_an_interrupt_that_is_ignored_does_not_cut_off_what_it_does_on_its_way_out() -> None:
    text = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
ending.take_signals(is_serving=False)

async def work():
    try:
        print("ready", flush=True)
        await asyncio.Event().wait()
    finally:
        signal.raise_signal(signal.SIGINT)
        print("cleaned")

try:
    run(None, work)
except KeyboardInterrupt:
    print("interrupted")
"""
    with program(text, NEVER) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)

        assert process.stdout.read() == b"cleaned\ninterrupted\n"


@pytest.mark.parametrize("words", [["watch", "names"], ["status"]], ids=" ".join)
def test_called_in_a_process_of_somebody_else_it_leaves_the_signals_as_they_were(
    words: list[str],
) -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]

    assert main([*words, "--server", "nats://127.0.0.1:9", "--timeout", "0.2"]) != exit_codes.OK

    assert [signal.getsignal(number) for number in numbers] == before
