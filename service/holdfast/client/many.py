"""Many small things at once: several under way, their results in the order that they were given.

One small request takes a while and hardly any work, so what is done one after another mostly waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from typing import Final

from holdfast.client.budget import ByteBudget
from holdfast.client.sources import Source, source_size
from holdfast.domain.limits import MIB, UPLOAD_WINDOW_BYTES

AT_ONCE: Final = 256
BYTES_AT_ONCE: Final = 32 * MIB
"""Bytes on their way of all of them: half of what a connection may queue."""

_RESULTS_KEPT: Final = 1024
"""Results that may wait for one before them, or to be taken."""


async def in_order[T, R](
    items: Iterable[T] | AsyncIterable[T],
    act: Callable[[T], Awaitable[R]],
    weigh: Callable[[T], int],
) -> AsyncGenerator[R]:
    """The results of ``act`` for each of ``items``, in their order.

    ``AT_ONCE`` are under way at a time, and no more than weigh ``BYTES_AT_ONCE`` together. When one
    fails the results of those before it come, then what it raised; the others are cancelled, and
    no more are taken. So it is with what ``items`` raise, and when the caller stops early.
    """
    results: asyncio.Queue[asyncio.Task[R] | None] = asyncio.Queue()
    room = asyncio.Semaphore(_RESULTS_KEPT)
    slots = asyncio.Semaphore(AT_ONCE)
    budget = ByteBudget(BYTES_AT_ONCE)

    async def do(item: T, taken: int) -> R:
        try:
            return await act(item)
        finally:
            budget.give_back(taken)
            slots.release()

    async def begin_all() -> None:
        try:
            async for item in _each(items):
                await room.acquire()
                await slots.acquire()
                taken = await budget.take(weigh(item))
                results.put_nowait(asyncio.create_task(do(item, taken)))
        finally:
            results.put_nowait(None)

    beginning = asyncio.create_task(begin_all())
    try:
        while (task := await results.get()) is not None:
            yield await task
            room.release()
        await beginning
    finally:
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        rest = [task for task in _taken(results) if task is not None]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def weight_of(source: Source) -> int:
    """Bytes of ``source`` in memory while it is put."""
    size = source_size(source)
    return UPLOAD_WINDOW_BYTES if size is None else min(size, UPLOAD_WINDOW_BYTES)


async def _each[T](items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _taken[T](queue: asyncio.Queue[T]) -> Iterator[T]:
    while not queue.empty():
        yield queue.get_nowait()
