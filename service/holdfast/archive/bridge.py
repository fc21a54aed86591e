"""A pack store over an event loop: the archive's threads on this side, coroutines on the other.

The only module here that knows asyncio. It adds what blocking callers lack: several puts under way
at once, within a window of bytes, and packs fetched before they are asked for.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.domain.limits import MIB
from holdfast.errors import InternalError, UnavailableError
from holdfast.form.packing import PACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from holdfast.archive.ports import Pack
    from holdfast.domain.digest import Digest

DEFAULT_WINDOW_BYTES: Final = 8 * MIB
DEFAULT_CACHE_BYTES: Final = 8 * MIB

T = TypeVar("T")


class BridgedPackStore:
    """Implements ``ports.PackStore`` for threads other than ``loop``'s.

    ``created_bytes`` are the bytes of the puts that stored something new.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        get: Callable[[Digest], Awaitable[Pack]],
        put: Callable[[Digest, bytes], Awaitable[bool]],
        *,
        get_latest: Callable[[Digest], Awaitable[Pack]] | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """``get`` returns what was checked; ``put`` returns when durable, and whether it was new.

        ``get_latest`` is needed where ``get`` may return what was replaced a while ago.
        Puts of up to ``window_bytes`` are under way at once (one of any size always), and packs
        of up to ``cache_bytes`` are fetched ahead.
        """
        self._loop = loop
        self._get = get
        self._get_latest = get_latest or get
        self._put = put
        self._window_bytes = window_bytes
        self._ahead_limit = cache_bytes // PACK_BYTES
        self._changed = threading.Condition()
        self._under_way: dict[Future[bool], int] = {}
        self._under_way_bytes = 0
        self._waited_for: set[Future[Any]] = set()
        self._is_closed = False
        self._failure: BaseException | None = None
        self._ahead: OrderedDict[Digest, Future[Pack]] = OrderedDict()
        self.created_bytes = 0

    def get(self, digest: Digest) -> Pack:
        """See ``ports.PackStore``."""
        with self._changed:
            fetching = self._ahead.pop(digest, None)
        if fetching is not None:
            with suppress(Exception):  # it was a guess: asking again tells for sure
                return self._wait(fetching)
        return self.run(_as_coroutine(self._get, digest))

    def get_latest(self, digest: Digest) -> Pack:
        """See ``ports.PackStore``."""
        return self.run(_as_coroutine(self._get_latest, digest))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine of the loop. Raises UnavailableError where this is closed."""
        return self._wait(self._submit(coroutine))

    def prefetch(self, digests: Sequence[Digest]) -> None:
        """See ``ports.PackStore``. The pack fetched longest ago and not asked for makes room."""
        begun: dict[Digest, Future[Pack]] = {}
        with self._changed:
            for digest in digests[: self._ahead_limit]:
                if digest in self._ahead or self._is_closed:
                    continue
                if len(self._ahead) >= self._ahead_limit and not self._drop_oldest(digests):
                    break
                begun[digest] = self._ahead[digest] = Future()
        if begun:
            try:
                self._loop.call_soon_threadsafe(self._fetch_all, begun)
            except RuntimeError:  # the loop is closed, as whoever asks for them is told
                for fetching in begun.values():
                    fetching.cancel()

    def _fetch_all(self, begun: Mapping[Digest, Future[Pack]]) -> None:
        """In the loop, which is woken once for all of them."""
        for digest, result in begun.items():
            fetching = asyncio.ensure_future(self._get(digest))
            fetching.add_done_callback(partial(_settle, result))
            result.add_done_callback(partial(self._give_up, fetching))

    def _give_up(self, fetching: asyncio.Future[Pack], result: Future[Pack]) -> None:
        if result.cancelled():
            with suppress(RuntimeError):  # the loop is closed, and with it what ran in it
                self._loop.call_soon_threadsafe(fetching.cancel)

    def put(self, digest: Digest, data: bytes) -> None:
        """See ``ports.PackStore``."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(len(data)))
            self._raise_failure()
            future = self._submit(_as_coroutine(self._put, digest, data))
            self._under_way[future] = len(data)
            self._under_way_bytes += len(data)
        future.add_done_callback(self._ended)

    def flush(self) -> None:
        """See ``ports.PackStore``."""
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)
            self._raise_failure()

    def close(self) -> None:
        """Give up what is under way, and take nothing more. May be repeated, and called anywhere.

        A thread that goes on is told so by its next call: it does not keep the process from ending.
        """
        with self._changed:
            self._is_closed = True
            given_up: list[Future[Any]] = [
                *self._under_way,
                *self._ahead.values(),
                *self._waited_for,
            ]
            self._ahead.clear()
        for future in given_up:
            future.cancel()

    def _has_room(self, size: int) -> bool:
        return (
            self._failure is not None
            or not self._under_way
            or self._under_way_bytes + size <= self._window_bytes
        )

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _ended(self, future: Future[bool]) -> None:
        """A put has ended. Called by the loop's thread, or by ours if it has ended already."""
        created, failure = False, None
        try:
            created = _result(future)
        except Exception as error:  # noqa: BLE001 - raised where the archive puts or flushes next
            failure = error
        with self._changed:
            size = self._under_way.pop(future)
            self._under_way_bytes -= size
            self.created_bytes += size if created else 0
            self._failure = self._failure or failure
            self._changed.notify_all()

    def _drop_oldest(self, wanted: Sequence[Digest]) -> bool:
        """Make room ahead by forgetting what is there and not wanted any more."""
        for digest, future in self._ahead.items():
            if digest not in wanted:
                del self._ahead[digest]
                future.cancel()
                return True
        return False

    def _wait(self, future: Future[T]) -> T:
        with self._changed:
            self._waited_for.add(future)
            if self._is_closed:
                future.cancel()
        try:
            return _result(future)
        finally:
            with self._changed:
                self._waited_for.discard(future)

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        try:
            if asyncio.get_running_loop() is self._loop:
                coroutine.close()
                raise InternalError("the loop's own thread would wait for itself")
        except RuntimeError:
            pass  # no loop runs in this thread: as it should be
        try:
            if not self._is_closed:
                return asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            pass  # it is closed
        coroutine.close()
        raise UnavailableError("the connection to the store is closed")


def _settle[T](result: Future[T], fetched: asyncio.Future[T]) -> None:
    if fetched.cancelled():
        result.cancel()
        return
    error = fetched.exception()
    if not result.set_running_or_notify_cancel():
        return
    if error is not None:
        result.set_exception(error)
    else:
        result.set_result(fetched.result())


async def _as_coroutine(call: Callable[..., Awaitable[T]], *arguments: object) -> T:
    return await call(*arguments)


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except CancelledError as error:
        raise UnavailableError("the connection to the store was closed") from error
