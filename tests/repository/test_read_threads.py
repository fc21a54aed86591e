"""Threads that read for somebody, and that nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import CorruptError
from holdfast.repository.snapshots.reading.read_threads import ReadThreads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.archive.ports import Stop

MOST_STEPS = 2000
"""A step takes 10 ms: what is not stopped would end by itself, much later."""


@pytest.fixture
def threads() -> Iterator[ReadThreads]:
    """A single thread."""
    executor = ThreadPoolExecutor(1)
    yield ReadThreads(executor)
    executor.shutdown()


class Slow:
    """Work of many steps, in one of which it is asked whether to go on."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.steps = 0

    def __call__(self, stop: Stop) -> None:
        self.begun.set()
        while self.steps < MOST_STEPS and not stop():
            self.steps += 1
            threading.Event().wait(0.01)

    async def is_under_way(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, 30)


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_result_or_the_failure_comes_out(threads: ReadThreads) -> None:
    def fail(_: Stop) -> None:
        raise CorruptError

    assert await threads.run(lambda stop: (7, stop())) == (7, False)
    with pytest.raises(CorruptError):
        await threads.run(fail)


async def test_a_thread_is_free_again_once_its_caller_has_given_up(threads: ReadThreads) -> None:
    work, ended = Slow(), asyncio.Event()
    task = asyncio.create_task(threads.run(work, on_end=ended.set))
    await work.is_under_way()

    await cancelled(task)

    assert await threads.run(lambda _: "free") == "free"
    assert work.steps < MOST_STEPS
    await asyncio.wait_for(ended.wait(), 30)


async def test_what_has_not_begun_when_its_caller_gives_up_never_does(threads: ReadThreads) -> None:
    first, second, ended = Slow(), Slow(), asyncio.Event()
    running = asyncio.create_task(threads.run(first))
    await first.is_under_way()
    queued = asyncio.create_task(threads.run(second, on_end=ended.set))
    await asyncio.sleep(0)

    await cancelled(queued)
    assert not ended.is_set()
    await cancelled(running)

    await asyncio.wait_for(ended.wait(), 30)
    assert not second.begun.is_set()
