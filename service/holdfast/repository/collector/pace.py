"""How fast a collection goes on: it does not have a server's disk to itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Pace:
    """So many bytes a second, on average since it last stood still."""

    def __init__(
        self,
        bytes_per_second: float,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``monotonic`` gives seconds that only rise."""
        self._rate = bytes_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._free_at = 0.0

    async def spend(self, size: int) -> None:
        """Wait until what was spent before is paid, then spend ``size`` bytes."""
        now = self._monotonic()
        wait = self._free_at - now
        self._free_at = max(self._free_at, now) + size / self._rate
        await self._sleep(max(wait, 0.0))
