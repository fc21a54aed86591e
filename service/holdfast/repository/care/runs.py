"""Reports that take a while to make: one at a time of a kind, and kept for a moment."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from holdfast.deadline import shared_task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

KEPT_SECONDS: Final = 60.0
MAX_KEPT: Final = 8
LONGEST_SECONDS: Final = 86_400.0
"""More than any report takes."""


class Runs[KeyT: Hashable, ReportT]:
    """Reports by their question. Each is made once for all who ask while it is made."""

    def __init__(
        self,
        make: Callable[[KeyT], Coroutine[Any, Any, ReportT]],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        """``make`` makes one. A report is given to all who ask for it within ``KEPT_SECONDS``."""
        self._make = make
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._tasks: OrderedDict[KeyT, asyncio.Task[tuple[ReportT, float]]] = OrderedDict()

    async def get(self, key: KeyT, seconds: float) -> ReportT | None:
        """The report; None if it is not made within ``seconds``: it goes on. Raises as ``make``."""
        task = self._tasks.get(key)
        if task is None or self._is_over(task):
            task = shared_task(self._run(key))
            self._tasks[key] = task
            self._tasks.move_to_end(key)
            if len(self._tasks) > MAX_KEPT:
                self._tasks.popitem(last=False)[1].cancel()
        await asyncio.wait([task], timeout=max(seconds, 0.0))
        return task.result()[0] if task.done() else None

    async def aclose(self) -> None:
        """Stop the work under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, key: KeyT) -> tuple[ReportT, float]:
        async with self._turn:
            return await self._make(key), self._monotonic()

    def _is_over(self, task: asyncio.Task[tuple[ReportT, float]]) -> bool:
        """Whether another is to be made: it failed, or is too old."""
        if not task.done():
            return False
        if task.cancelled() or task.exception() is not None:
            return True
        return self._monotonic() - task.result()[1] > KEPT_SECONDS
