"""Work in a thread: its result, its failure, and what becomes of it when nobody waits any more."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast.archive.ports import Cancelled, Progress
from holdfast.client.snapshots.thread import ProgressRelay, in_thread
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from holdfast.archive.ports import Stop
    from holdfast.protocol.snapshots import SnapshotProgress

KEY = "blog:01935f9e-7b1c-7000-8000-000000000000"


async def test_the_result_is_that_of_the_work() -> None:
    assert await in_thread(lambda stop: (stop(), threading.current_thread().daemon)) == (
        False,
        True,
    )


async def test_what_the_work_raises_is_raised() -> None:
    def work(_: Stop) -> None:
        msg = "pack 1 is damaged"
        raise CorruptError(msg)

    with pytest.raises(CorruptError, match="pack 1 is damaged"):
        await in_thread(work)


async def test_whoever_is_cancelled_waits_until_the_work_has_stopped() -> None:
    loop = asyncio.get_running_loop()
    begun, stopped = asyncio.Event(), threading.Event()

    def work(stop: Stop) -> None:
        loop.call_soon_threadsafe(begun.set)
        while not stop():
            pass
        stopped.set()
        raise Cancelled

    task = asyncio.create_task(in_thread(work))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()


async def test_work_that_cannot_be_stopped_is_left_alone() -> None:
    loop = asyncio.get_running_loop()
    begun, release, ended = asyncio.Event(), threading.Event(), asyncio.Event()

    def work(_: Stop) -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait()
        loop.call_soon_threadsafe(ended.set)

    task = asyncio.create_task(in_thread(work, stop_seconds=0.01))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    release.set()
    await ended.wait()


async def test_progress_is_handed_on_in_the_event_loop_and_the_end_always() -> None:
    told: list[tuple[SnapshotProgress, int]] = []
    relay = ProgressRelay(KEY, lambda p: told.append((p, threading.get_ident())))

    def work(_: Stop) -> None:
        for count in range(1000):
            relay(Progress(phase="reading", entries=count, bytes=count, stored_bytes=count))
        relay(Progress(phase="done", entries=1000, bytes=5, stored_bytes=7))

    await in_thread(work)
    await asyncio.sleep(0)

    last, thread = told[-1]
    assert (last.key, last.phase, last.entries, last.bytes, last.added) == (KEY, "done", 1000, 5, 7)
    assert thread == threading.get_ident()
    assert len(told) < 1000


async def test_nobody_needs_to_want_progress() -> None:
    ProgressRelay(KEY, None)(Progress(phase="done"))
