"""Waits before other attempts: ever longer, up to a limit, and somewhat at random."""

from __future__ import annotations

import asyncio
import math
import random
import time

from holdfast.deadline import seconds_left


class Backoff:
    """The waits of a retry. Those of many that fail together soon lie apart.

    A wait takes at least half as long as it may: first ``first_seconds``, then twice as long each
    time, up to ``longest_seconds``.
    """

    __slots__ = ("_longest_seconds", "_seconds", "_until")

    def __init__(
        self, first_seconds: float, longest_seconds: float, *, within_seconds: float = math.inf
    ) -> None:
        """`wait` gives up after ``within_seconds``."""
        self._seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._until = time.monotonic() + within_seconds

    def next(self) -> float:
        """Seconds to wait now."""
        seconds = self._seconds * (0.5 + random.random() / 2)  # noqa: S311  (jitter)
        self._seconds = min(self._seconds * 2, self._longest_seconds)
        return seconds

    async def wait(self) -> bool:
        """Wait; False, and at once, where the end of it would come too late for another attempt.

        Too late is after ``within_seconds``, or after the deadline of the request served.
        """
        seconds = self.next()
        if seconds >= seconds_left(self._until - time.monotonic()):
            return False
        await asyncio.sleep(seconds)
        return True
