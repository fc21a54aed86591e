"""Reading many bytes: windows ahead of the reader, each checked for being whole.

The bytes of a window may come straight from the server or from a worker, with no flow control
inside it; so only a few are asked for ahead, and a connection has a limit over all its readers. An
odd window (another beginning, a gap, a short end, silence) is asked for again; only a worker's own
answer means that the thing is not there. After an odd one a worker relays the rest of the read, and
where nothing but heads arrives it is had range by range (``Way``). The meaning of the bytes is for
``download`` and ``snapshots.content``.

Why: docs/decisions.md, "A reader in another account finds out by itself".
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from holdfast.client.requests import Requester, Way
from holdfast.client.trace import trace_headers
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.errors import (
    CorruptError,
    HoldfastError,
    InternalError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.blobs import BlobHead, ContentHead, GetBlob
from holdfast.transport.backoff import Backoff
from holdfast.transport.inbox import raise_for_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping

    from holdfast.client.sources import OnBytes
    from holdfast.deadline import Timers
    from holdfast.protocol.files import ReadFile
    from holdfast.protocol.operation import Operation
    from holdfast.transport.message import Message

HeadT = TypeVar("HeadT", bound=ContentHead)

WINDOWS_AHEAD: Final = 3
"""Windows of at most 4 MiB that one reader asks for at once, unless it says otherwise."""

_FIRST_WAIT_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Window(Generic[HeadT]):
    """One window, whole: its ``pieces`` hold exactly ``head.length`` bytes."""

    head: HeadT
    pieces: list[memoryview]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds that a window may let one wait: for its head, then for each message."""

    head_seconds: float
    silence_seconds: float


class OddWindowError(Exception):
    """A window did not come as its head said."""


class NothingFollowedError(OddWindowError):
    """Only the head of a window came."""


class _OnlyHeadsError(Exception):
    """No window will come."""


class WindowReader(Generic[HeadT]):
    """One read, from its first request to the window without a cursor. Used once."""

    def __init__(
        self,
        requester: Requester,
        operation: Operation[Any, HeadT],
        request: Any,
        patience: Patience,
        *,
        again: Mapping[str, bool] | None = None,
        windows_ahead: int = WINDOWS_AHEAD,
        single_bytes: int = 0,
        most_bytes: int = WINDOW_BYTES,
    ) -> None:
        """``request`` has an offset, a length and a cursor; ``again`` is set in it after oddity.

        ``windows_ahead`` are asked for at once. ``single_bytes`` is what one answer may hold, where
        the bytes may also be had range by range: they must be the same whenever they are asked for.
        There are no more than ``most_bytes`` in a window.
        """
        self._requester = requester
        self._operation = operation
        self._subject = requester.subject(operation)
        self._head_type: type[HeadT] = operation.reply
        self._request = request
        self._patience = patience
        self._again = dict(again or {})
        self._windows_ahead = windows_ahead
        self._single_bytes = single_bytes
        self._most_bytes = most_bytes
        self._way = min(requester.way, Way.SINGLE if single_bytes else Way.RELAYED)
        if not again:  # it is relayed as it is
            self._way = max(self._way, Way.RELAYED)
        self._heads: deque[HeadT] = deque()
        self._news = asyncio.Event()

    async def windows(self) -> AsyncGenerator[Window[HeadT]]:
        """Every window in order. The next ones are on their way while one is being used.

        Raises what the worker answered; as ``Requester.check_usable``; UnavailableError.
        """
        self._requester.check_usable()
        at: int = self._request.offset
        if self._way is not Way.SINGLE:
            try:
                async with aclosing(self._windows()) as windows:
                    async for window in windows:
                        at = window.head.offset + window.head.length
                        yield window
            except _OnlyHeadsError:
                pass
            else:
                return
        async with aclosing(self._ranges(at)) as ranges:
            async for window in ranges:
                yield window

    async def whole(self) -> Window[HeadT]:
        """All of what is never more than one window, for less. Raises as `windows`."""
        self._requester.check_usable()
        if self._way is not Way.SINGLE:
            with suppress(_OnlyHeadsError):
                return await self._window(self._request)
        ranges = [window async for window in self._ranges(self._request.offset)]
        return Window(ranges[0].head, [piece for one in ranges for piece in one.pieces])

    async def _windows(self) -> AsyncGenerator[Window[HeadT]]:
        ahead = deque([self._begin(self._request)])
        try:
            while ahead:
                while not ahead[0].done():
                    self._news.clear()
                    await self._news.wait()
                    self._look_ahead(ahead)
                self._look_ahead(ahead)
                window = ahead.popleft().result()
                self._look_ahead(ahead)
                yield window
        finally:
            await _end(ahead)

    async def _ranges(self, at: int) -> AsyncGenerator[Window[HeadT]]:
        """The rest from ``at`` on, each range in one answer. The first one tells the size."""
        length, step = self._request.length, self._single_bytes
        stop = None if length is None else self._request.offset + length
        first = await self._window(self._range(at, stop))
        yield first
        stop = first.head.size if stop is None else min(stop, first.head.size)
        starts = iter(range(at + first.head.length, stop, step))
        ahead: deque[asyncio.Task[Window[HeadT]]] = deque()
        try:
            while True:
                for start in itertools.islice(starts, self._windows_ahead - len(ahead)):
                    ahead.append(self._begin(self._range(start, stop)))
                if not ahead:
                    return
                window = await ahead.popleft()
                yield window
        finally:
            await _end(ahead)

    def _range(self, start: int, stop: int | None) -> Any:
        length = self._single_bytes
        if stop is not None:
            length = max(min(length, stop - start), 0)
        return msgspec.structs.replace(self._request, offset=start, length=length, cursor=None)

    def _look_ahead(self, ahead: deque[asyncio.Task[Window[HeadT]]]) -> None:
        """Begin the window after each head that has come, as far as they are let ahead."""
        while self._heads and len(ahead) < self._windows_ahead:
            head = self._heads.popleft()
            if head.cursor is not None:
                ahead.append(self._begin(self._following(head)))

    def _following(self, head: HeadT) -> Any:
        return msgspec.structs.replace(self._request, offset=0, length=None, cursor=head.cursor)

    def _begin(self, request: Any) -> asyncio.Task[Window[HeadT]]:
        task = asyncio.create_task(self._window(request))
        task.add_done_callback(lambda _: self._news.set())
        return task

    async def _window(self, request: Any) -> Window[HeadT]:
        """One window, whatever it takes. Its head counts once, as soon as it is there."""
        failure: Exception | None = None
        told = False

        def tell(head: HeadT) -> None:
            nonlocal told
            if not told:
                told = True
                self._heads.append(head)
                self._news.set()

        patience = self._requester.timeout_seconds
        backoff = Backoff(_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS, within_seconds=patience)
        while True:
            self._requester.check_usable()
            if failure is not None and not await backoff.wait():
                break
            way = self._way
            asked = (
                request if way is Way.DIRECT else msgspec.structs.replace(request, **self._again)
            )
            length = self._most_bytes if request.length is None else request.length
            taken = await self._requester.budget.take(min(length, self._most_bytes))
            try:
                with self._requester.tracer.asking(self._operation.subject):
                    window = await self._receive(asked, tell)
            except OddWindowError as error:
                failure = error
                self._note_oddity(error, way)
            except (UnavailableError, RateLimitedError) as error:
                failure = error
            else:
                if window.head.parts is not None:
                    self._requester.arrived(way)
                return window
            finally:
                self._requester.budget.give_back(taken)
        if isinstance(failure, HoldfastError):
            raise failure
        raise UnavailableError(f"the bytes could not be read whole: {failure}") from failure

    def _note_oddity(self, error: OddWindowError, way: Way) -> None:
        """The rest of this read is relayed, or had range by range if not even that arrives."""
        self._way = max(self._way, Way.RELAYED)
        if isinstance(error, NothingFollowedError):
            self._requester.nothing_followed(way)
            if self._single_bytes and way is Way.RELAYED:
                self._way = Way.SINGLE
                raise _OnlyHeadsError from error

    async def _receive(self, request: Any, tell: Callable[[HeadT], None]) -> Window[HeadT]:
        """Ask once and take what comes."""
        requester, patience = self._requester, self._patience
        subject = self._subject
        liveness = requester.connection.liveness
        await requester.connection.wait_connected(patience.head_seconds)
        asked_at = time.monotonic()

        def read_head(message: Message) -> HeadT:
            head = self._read_head(message)
            tell(head)
            return head

        coming = _Coming(read_head, requester.timers, patience, subject)
        try:
            with closing(coming), closing(requester.inbox.open(coming.receive, subject)) as mailbox:
                requester.connection.send(
                    subject, codec.encode(request), reply=mailbox.subject, headers=trace_headers()
                )
                return await coming.window
        except TimeoutError as error:
            if coming.head is None:
                liveness.unanswered(asked_at)
            elif not coming.chunks:
                raise NothingFollowedError("nothing came after the head") from error
            raise OddWindowError("nothing came for a while") from error
        except UnavailableError:
            liveness.nobody(asked_at)
            raise

    def _read_head(self, message: Message) -> HeadT:
        codec.raise_error(message.headers, message.data)
        head: HeadT = codec.decode_reply_headers(message.headers, self._head_type)
        if head.parts is None and len(message.data) != head.length:
            raise InternalError("the answer has another length than it says")
        return head


class _Coming(Generic[HeadT]):
    """A window on its way, whose reader is woken once: when it is there, or will not be.

    Its rest may overtake its head. Close it.
    """

    def __init__(
        self,
        read_head: Callable[[Message], HeadT],
        timers: Timers,
        patience: Patience,
        subject: str,
    ) -> None:
        """``read_head`` raises what fails the window; ``subject`` is where it was asked for.

        It fails with TimeoutError where a message is late.
        """
        self._read_head = read_head
        self._timers = timers
        self._patience = patience
        self._subject = subject
        self._loop = asyncio.get_running_loop()
        self._has_ended = False
        self.head: HeadT | None = None
        self.chunks: list[Message] = []
        self.window: asyncio.Future[Window[HeadT]] = self._loop.create_future()
        self._wait()

    def receive(self, message: Message) -> None:
        """Take the next message."""
        if self.window.done():
            return
        try:
            self._take(message)
        except Exception as error:  # noqa: BLE001 - raised where the window is waited for
            self.window.set_exception(error)

    def close(self) -> None:
        """Nothing more is waited for."""
        self._timers.stop(self)

    def _take(self, message: Message) -> None:
        if names.BLOB_SIZE in message.headers or names.SERVICE_ERROR in message.headers:
            self.head = self._read_head(message)
            if self.head.parts is None:
                self.window.set_result(Window(self.head, [memoryview(message.data)]))
                return
        elif names.BLOB_PART in message.headers:
            self.chunks.append(message)
        else:
            self._has_ended = _is_end(message, self._subject) or self._has_ended
        if self.head is None or (len(self.chunks) < (self.head.parts or 0) and not self._has_ended):
            self._wait()
        else:
            self.window.set_result(Window(self.head, _cut(self.head, self.chunks)))

    def _wait(self) -> None:
        patience = self._patience
        seconds = patience.head_seconds if self.head is None else patience.silence_seconds
        self._timers.start(self, self._loop.time() + seconds, self._expire)

    def _expire(self) -> None:
        if not self.window.done():
            self.window.set_exception(TimeoutError())


async def window_pieces(
    windows: AsyncGenerator[Window[HeadT]],
    request: GetBlob | ReadFile,
    progress: OnBytes | None,
) -> AsyncGenerator[memoryview]:
    """The bytes that ``request`` asks for, in order. Raises CorruptError unless they are all there.

    ``progress`` is told (bytes done, bytes in all).
    """
    start, done, total = 0, 0, -1
    async with aclosing(windows):
        async for window in windows:
            if total < 0:
                start = min(request.offset, window.head.size)
                total = wanted_bytes(request, window.head)
            if window.head.length and window.head.offset != start + done:
                msg = f"bytes from {window.head.offset} came, not those from {start + done}"
                raise CorruptError(msg)
            for piece in window.pieces:
                done += len(piece)
                if progress is not None:
                    progress(done, total)
                yield piece
    if done != total:
        raise CorruptError(f"{done} of {total} bytes came")


def wanted_bytes(request: GetBlob | ReadFile, head: ContentHead) -> int:
    """Bytes that ``request`` asks for, of what is known now."""
    left = head.size - min(request.offset, head.size)
    return left if request.length is None else min(request.length, left)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _is_end(message: Message, subject: str) -> bool:
    """The server itself says something: that it has sent all it has, or why there is nothing."""
    raise_for_status(message, subject)
    status = message.headers.get(names.STATUS)
    if status is not None and status != "204":
        raise OddWindowError(f"the server answered {status}")
    return status is not None


def _cut(head: ContentHead, chunks: list[Message]) -> list[memoryview]:
    """The window's bytes. Raises OddWindowError unless they are exactly those announced."""
    numbers = [chunk.headers[names.BLOB_PART] for chunk in chunks]
    first = head.first if isinstance(head, BlobHead) else 0
    if first is None and numbers and numbers[0].isdecimal():
        first = int(numbers[0])  # an older worker does not say
    if numbers != [str(number) for number in range(first or 0, (first or 0) + len(numbers))]:
        raise OddWindowError(f"parts came that are not those from {first} on, in order")
    skip, left = head.skip or 0, head.length
    pieces: list[memoryview] = []
    for chunk in chunks:
        piece = memoryview(chunk.data)
        dropped = min(skip, len(piece))
        skip -= dropped
        piece = piece[dropped : dropped + left]
        left -= len(piece)
        if piece:
            pieces.append(piece)
    if left:
        raise OddWindowError(f"{left} bytes are missing at the end")
    return pieces
