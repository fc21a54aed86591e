"""The limit of bytes on their way at once: nothing slows down a sender that was asked.

Why: docs/decisions.md, "Reads are bounded in bytes, not in windows".
"""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """Bytes that are taken before something is asked for, and given back once it has come.

    First come, first served: what is large is not passed over for ever by what is small.
    """

    def __init__(self, limit: int) -> None:
        """``limit`` is the count of bytes; a taker that wants more gets all of them."""
        self._limit = limit
        self._left = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> int:
        """Wait until there are ``size`` bytes; how many are to be given back."""
        size = min(size, self._limit)
        if size <= self._left and not self._waiting:
            self._left -= size
            return size
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._serve()  # those behind may have waited for this one only
            else:
                self.give_back(size)
            raise
        return size

    def try_take(self, size: int) -> bool:
        """Take ``size`` bytes, all of them, if that many are free and nobody waits."""
        if size > self._left or self._waiting:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """They are free for others."""
        self._left += size
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if size > self._left:
                    return
                self._left -= size
                turn.set_result(None)
            self._waiting.popleft()
