"""An event loop in a thread of its own, for callers that have none or cannot use theirs."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.client.requests import CLOSED, FORKED
from holdfast.errors import InvalidError, OutcomeUnknownError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Generator
    from concurrent.futures import Future
    from typing import Any

T = TypeVar("T")

_END_SECONDS: Final = 1.0
CLOSED_MEANWHILE: Final = "the client was closed before the call had ended"
ITSELF: Final = "a callback cannot make calls that wait: its thread is the one that does their work"


class LoopThread:
    """An event loop in a daemon thread, for the process that made it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._waited_for: set[Future[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="holdfast", daemon=True)
        self._thread.start()

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked for anything: not closed, and not another process's."""
        return not self._is_closed and os.getpid() == self._process

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of ``coroutine``. It is cancelled when waiting for it is interrupted.

        Raises at once UnavailableError when it is closed, and InvalidError in a process that was
        forked, for a fork takes no threads along, and in the loop's own thread, which would wait
        for itself. Raises OutcomeUnknownError when it is closed before the coroutine has ended.
        """
        try:
            future = self._begin(coroutine)
        except BaseException:
            coroutine.close()
            raise
        try:
            return future.result()
        except CancelledError as error:
            raise OutcomeUnknownError(CLOSED_MEANWHILE) from error
        except BaseException:
            future.cancel()
            raise
        finally:
            self._waited_for.discard(future)

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if os.getpid() != self._process:  # before the lock, which may have been held at the fork
            raise InvalidError(FORKED)
        if threading.current_thread() is self._thread:
            raise InvalidError(ITSELF)
        with self._lock:
            if self._is_closed:
                raise UnavailableError(CLOSED)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._waited_for.add(future)
        return future

    def iterate(self, generator: AsyncGenerator[T]) -> Generator[T]:
        """The items of ``generator``. Stopping early closes it."""

        async def following() -> T:
            return await anext(generator)

        async def close() -> None:
            await generator.aclose()

        try:
            while True:
                try:
                    item = self.run(following())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if threading.current_thread() is self._thread:  # it has collected this as garbage
                asyncio.run_coroutine_threadsafe(close(), self._loop)
            elif self.is_usable:
                self.run(close())

    def close(self) -> None:
        """End the thread, and with an error whatever still runs there. May be repeated.

        Does nothing in a process that was forked.
        """
        if not self.is_usable:
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            last = asyncio.run_coroutine_threadsafe(_end_others(), self._loop)
        last.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for future in list(self._waited_for):  # of those that did not come to their end
            future.cancel()
        self._loop.close()


async def _end_others() -> None:
    """Let what runs here come to its end, and cancel what does not soon."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, others = await asyncio.wait(others, timeout=_END_SECONDS)
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_END_SECONDS)
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            await asyncio.get_running_loop().shutdown_asyncgens()
