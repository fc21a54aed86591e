"""Waiters for a log to grow, in this process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOK_SECONDS: Final = 2.0
"""After that long a log is to be read though nobody told that it has grown."""


class Waiter:
    """A `Growth`, which is told."""

    def __init__(self) -> None:
        self._last = 0
        self._told = asyncio.Event()

    def tell(self, sequence: int) -> None:
        """There is an entry at ``sequence``."""
        self._last = max(self._last, sequence)
        self._told.set()

    async def wait(self, after: int) -> None:
        """See `Growth.wait`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                while self._last <= after:
                    self._told.clear()
                    await self._told.wait()


class Waiters:
    """All who wait, by log."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Waiter]] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    @asynccontextmanager
    async def watch(self, log: str) -> AsyncIterator[Waiter]:
        """Have it told of the growth of ``log``."""
        waiter = Waiter()
        self._waiting.setdefault(log, []).append(waiter)
        try:
            yield waiter
        finally:
            others = self._waiting[log]
            others.remove(waiter)
            if not others:
                del self._waiting[log]

    def tell(self, log: str, sequence: int) -> None:
        """``log`` has an entry at ``sequence``."""
        for waiter in self._waiting.get(log, ()):
            waiter.tell(sequence)
