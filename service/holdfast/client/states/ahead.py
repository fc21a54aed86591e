"""Asking before something is wanted: for the log, while the state is still on its way."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")


class Ahead(Generic[T]):
    """The items of a generator, taken from it in a task of its own, up to so many before."""

    def __init__(self, source: AsyncGenerator[T], most: int) -> None:
        """Begin: up to ``most`` are taken from ``source`` before they are asked for here."""
        self._source = source
        self._items: deque[T] = deque()
        self._room = asyncio.Semaphore(most)
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._fill())
        self._task.add_done_callback(lambda _: self._changed.set())

    async def _fill(self) -> None:
        async with aclosing(self._source) as items:
            await self._room.acquire()
            async for item in items:
                self._items.append(item)
                self._changed.set()
                await self._room.acquire()

    async def items(self) -> AsyncGenerator[T]:
        """All of them, in order. Raises what the generator raises, once it is there."""
        while True:
            while self._items:
                self._room.release()
                yield self._items.popleft()
            if self._task.done():
                self._task.result()
                return
            self._changed.clear()
            await self._changed.wait()

    async def aclose(self) -> None:
        """Take no more. May be repeated."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
