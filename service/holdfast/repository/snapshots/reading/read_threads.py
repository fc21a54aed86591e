"""Reading in threads for callers who may give up meanwhile.

A thread cannot be ended from outside. So what runs in one is told when nobody waits for it any
more, and looks at that often enough: a caller who repeats a slow request would otherwise take one
thread after the other.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from holdfast.archive.ports import Cancelled, Stop
from holdfast.deadline import look_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor


class ReadThreads:
    """Runs functions that wait for packs."""

    def __init__(self, executor: Executor) -> None:
        """``executor`` bounds how much runs at once; the rest waits for its turn."""
        self._executor = executor

    async def run[T](
        self, function: Callable[[Stop], T], *, on_end: Callable[[], None] | None = None
    ) -> T:
        """The result of ``function``, which is told by its argument when to give up.

        Work not begun when the caller gives up never begins. ``on_end`` is called in the event
        loop once the thread is free again, be that after the caller gave up.
        """
        stopped = threading.Event()

        def work() -> T:
            if stopped.is_set():
                raise Cancelled
            return function(stopped.is_set)

        running = asyncio.get_running_loop().run_in_executor(self._executor, work)
        running.add_done_callback(look_at)
        if on_end is not None:
            running.add_done_callback(lambda _: on_end())
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stopped.set()
            raise
