"""An event loop in a thread of its own, for callers that have none or cannot use theirs."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.client.requests import CLOSED, FORKED
from holdfast.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Generator
    from concurrent.futures import Future
    from typing import Any

T = TypeVar("T")

_END_SECONDS: Final = 1.0


class LoopThread:
    """An event loop in a daemon thread, for the process that made it."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
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
        forked: a fork takes no threads along.
        """
        try:
            future = self._begin(coroutine)
        except BaseException:
            coroutine.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if os.getpid() != self._process:  # before the lock, which may have been held at the fork
            raise InvalidError(FORKED)
        with self._lock:
            if self._is_closed:
                raise UnavailableError(CLOSED)
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

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
            if self.is_usable:
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
    await asyncio.get_running_loop().shutdown_asyncgens()
