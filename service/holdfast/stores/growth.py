"""Who waits for a log to grow, in this process."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOK_SECONDS: Final = 2.0
"""After that long a log is to be read though nobody told that it has grown."""


class Watched:
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


class Watchers:
    """All who wait, by log."""

    def __init__(self) -> None:
        self._watched: dict[str, list[Watched]] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._watched)

    @asynccontextmanager
    async def watch(self, log: str) -> AsyncIterator[Watched]:
        """Have it told what is told of ``log``."""
        watched = Watched()
        self._watched.setdefault(log, []).append(watched)
        try:
            yield watched
        finally:
            others = self._watched[log]
            others.remove(watched)
            if not others:
                del self._watched[log]

    def tell(self, log: str, sequence: int) -> None:
        """``log`` has an entry at ``sequence``."""
        for watched in self._watched.get(log, ()):
            watched.tell(sequence)
