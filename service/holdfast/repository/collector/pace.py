"""The pace of a collection: it does not have a server's disk to itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


_LONGEST_SECONDS: Final = 0.25
"""Time further back was no work, or it was somebody else's."""


class Pace:
    """So many bytes a second, on average since it last stood still, and rests between the work."""

    def __init__(
        self,
        bytes_per_second: float,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rest: float = 0.0,
    ) -> None:
        """``monotonic`` gives seconds that only rise. A rest is ``rest`` times as long as the work.

        So a server or a worker that others keep busy, where the same work takes longer, has longer
        rests, too.
        """
        self._rate = bytes_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._rest = rest
        self._free_at = 0.0
        self._rested_at = monotonic()

    async def spend(self, size: int) -> None:
        """Wait until former bytes are paid and the rest is over, then spend ``size`` bytes."""
        now = self._monotonic()
        worked = min(now - self._rested_at, _LONGEST_SECONDS)
        wait = max(self._free_at - now, self._rest * worked)
        self._free_at = max(self._free_at, now) + size / self._rate
        await self._sleep(max(wait, 0.0))
        self._rested_at = self._monotonic()
