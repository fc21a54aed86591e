"""Work of a thread that is not the event loop's, told to those who wait for it there."""

from __future__ import annotations

import asyncio
import queue
import threading
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

STOP_SECONDS: Final = 30.0
"""Time to wait for a thread that was told to stop: it may be amid a slow file."""

PIPE_STOP_SECONDS: Final = 0.5
"""The same of one that may read from somebody else's pipe, or write to it."""


class DaemonThread:
    """A thread that does one piece of work after the other.

    A program that ends does not wait for it, as it does for the threads of the event loop: to read
    from a silent terminal, or to write to a pipe that nobody reads, may take for ever.
    """

    def __init__(self, name: str) -> None:
        """Start it. It runs until ``end``."""
        self._wanted: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do[T](self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have ``work`` done after what it was given before, in this context; the outcome."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._wanted.put(partial(copy_context().run, settle, future, work))
        return future

    def end(self) -> None:
        """Let it end when all is done."""
        self._wanted.put(None)

    def _run(self) -> None:
        while (work := self._wanted.get()) is not None:
            work()


def settle[T](future: asyncio.Future[T], work: Callable[[], T]) -> None:
    """Do ``work`` here; ``future`` gets its result, or what it raises, unless it has one."""
    try:
        tell = partial(future.set_result, work())
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        tell = partial(future.set_exception, error)

    def settle_soon() -> None:
        if not future.done():
            tell()

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle_soon)
