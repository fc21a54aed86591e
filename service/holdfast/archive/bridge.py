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

from holdfast.domain.kept import PartialBytes
from holdfast.domain.limits import MIB
from holdfast.errors import InternalError, UnavailableError
from holdfast.form.packing import PACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence, Set

    from holdfast.archive.ports import FetchedPack, Pack
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
        get: Callable[[Digest], Awaitable[FetchedPack]],
        put: Callable[[Digest, bytes], Awaitable[bool]],
        *,
        get_latest: Callable[[Digest], Awaitable[FetchedPack]] | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        """``put`` returns when durable, and whether it was new.

        What ``get`` returns was checked, or is in the thread that asked. ``get_latest`` is needed
        where that may be what was replaced a while ago.
        Puts of up to ``window_bytes`` are under way at once (one of any size always), and packs
        of up to ``cache_bytes`` are fetched ahead, however small they are.
        """
        self._loop = loop
        self._get = get
        self._get_latest = get_latest or get
        self._put = put
        self._window_bytes = window_bytes
        self._cache_bytes = cache_bytes
        self._changed = threading.Condition()
        self._under_way: dict[Future[bool], int] = {}
        self._under_way_bytes = 0
        self._waited_for: set[Future[Any]] = set()
        self._is_closed = False
        self._failure: BaseException | None = None
        self._ahead: OrderedDict[Digest, Future[FetchedPack]] = OrderedDict()
        self.created_bytes = 0

    def get(self, digest: Digest) -> Pack:
        """See ``ports.PackStore``."""
        with self._changed:
            fetching = self._ahead.pop(digest, None)
        if fetching is not None:
            with suppress(Exception):  # it was a guess: asking again tells for sure
                return checked(self._wait(fetching))
        return checked(self.run(_as_coroutine(self._get, digest)))

    def get_latest(self, digest: Digest) -> Pack:
        """See ``ports.PackStore``."""
        return checked(self.run(_as_coroutine(self._get_latest, digest)))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine of the loop. Raises UnavailableError where this is closed."""
        return self._wait(self._submit(coroutine))

    def prefetch(self, digests: Sequence[Digest]) -> None:
        """See ``ports.PackStore``. The pack fetched longest ago and not asked for makes room."""
        begun: dict[Digest, Future[FetchedPack]] = {}
        with self._changed:
            left = self._cache_bytes - sum(map(_size_ahead, self._ahead.values()))
            wanted = frozenset(digests)
            for digest in digests:
                if digest in self._ahead or self._is_closed:
                    continue
                while left < PACK_BYTES and (dropped := self._drop_oldest(wanted)) is not None:
                    left += _size_ahead(dropped)
                    dropped.cancel()
                if left < PACK_BYTES:
                    break
                begun[digest] = self._ahead[digest] = Future()
                left -= PACK_BYTES
        if begun:
            try:
                self._loop.call_soon_threadsafe(self._fetch_all, begun)
            except RuntimeError:  # the loop is closed, as whoever asks for them is told
                for fetching in begun.values():
                    fetching.cancel()

    def _fetch_all(self, begun: Mapping[Digest, Future[FetchedPack]]) -> None:
        """In the loop, which is woken once for all of them."""
        for digest, result in begun.items():
            fetching = asyncio.ensure_future(self._get(digest))
            fetching.add_done_callback(partial(_settle, result))
            result.add_done_callback(partial(self._give_up, fetching))

    def _give_up(self, fetching: asyncio.Future[FetchedPack], result: Future[FetchedPack]) -> None:
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

    def _drop_oldest(self, wanted: Set[Digest]) -> Future[FetchedPack] | None:
        """Make room ahead by forgetting what is there and not wanted any more, if there is any."""
        for digest in self._ahead:
            if digest not in wanted:
                return self._ahead.pop(digest)
        return None

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


def checked(fetched: FetchedPack) -> Pack:
    """The pack, compared with its digest. Raises CorruptError."""
    return fetched if isinstance(fetched, bytes | PartialBytes) else fetched.checked()


def _size_ahead(fetching: Future[FetchedPack]) -> int:
    """The bytes of a pack, or what they may be while they are not there."""
    is_there = fetching.done() and not fetching.cancelled() and fetching.exception() is None
    return len(fetching.result()) if is_there else PACK_BYTES


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
