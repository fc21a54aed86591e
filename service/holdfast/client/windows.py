"""Reading many bytes: windows ahead of who takes them, each checked for being whole.

What a window holds may come straight from the server or from a worker, with no flow control inside
it; so only a few are asked for ahead, and a connection has a limit over all its readers. Whatever
is odd about one (a gap, a short end, silence) means asking for it again; only a worker's own answer
means that the thing is not there. What the bytes are is for ``download`` and ``snapshot_content``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from holdfast.errors import HoldfastError, InternalError, RateLimitedError, UnavailableError
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.blobs import BlobHead
from holdfast.protocol.snapshots import ContentHead
from holdfast.transport.inbox import raise_for_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from holdfast.client.requests import Requester
    from holdfast.protocol.operation import Operation
    from holdfast.transport.message import Message

HeadT = TypeVar("HeadT", BlobHead, ContentHead)

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
    """How long a window may let one wait, in seconds: for its head, then for each message."""

    head_seconds: float
    silence_seconds: float


class OddWindowError(Exception):
    """A window did not come as its head said."""


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
    ) -> None:
        """``request`` has an offset, a length and a cursor; ``again`` is set in it after oddity.

        ``windows_ahead`` are asked for at once.
        """
        self._requester = requester
        self._subject = requester.subject(operation)
        self._head_type: type[HeadT] = operation.reply
        self._request = request
        self._patience = patience
        self._again = dict(again or {})
        self._windows_ahead = windows_ahead
        self._heads: deque[HeadT] = deque()
        self._news = asyncio.Event()

    async def windows(self) -> AsyncGenerator[Window[HeadT]]:
        """Every window in order. The next ones are on their way while one is being used.

        Raises what the worker answered; as ``Requester.check_usable``; UnavailableError.
        """
        self._requester.check_usable()
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
            for task in ahead:
                task.cancel()
            if ahead:
                await asyncio.wait(ahead)

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

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._requester.timeout_seconds
        wait_seconds = _FIRST_WAIT_SECONDS
        while failure is None or loop.time() + wait_seconds < deadline:
            self._requester.check_usable()
            if failure is not None:
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(wait_seconds * 2, _MAX_WAIT_SECONDS)
            odd = isinstance(failure, OddWindowError)
            asked = msgspec.structs.replace(request, **self._again) if odd else request
            try:
                async with self._requester.window_slots:
                    return await self._receive(asked, tell)
            except (OddWindowError, UnavailableError, RateLimitedError) as error:
                failure = error
        if isinstance(failure, HoldfastError):
            raise failure
        msg = f"the bytes could not be read whole: {failure}"
        raise UnavailableError(msg) from failure

    async def _receive(self, request: Any, tell: Callable[[HeadT], None]) -> Window[HeadT]:
        """Ask once and take what comes: the rest of a window may overtake its head."""
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        requester, patience = self._requester, self._patience
        subject = self._subject
        liveness = requester.connection.liveness
        await requester.connection.wait_connected(patience.head_seconds)
        asked_at = time.monotonic()
        mailbox = requester.inbox.open(arrived.put_nowait, subject)
        head: HeadT | None = None
        try:
            requester.connection.send(subject, codec.encode(request), reply=mailbox.subject)
            chunks: list[Message] = []
            while head is None or len(chunks) < (head.parts or 0):
                seconds = patience.head_seconds if head is None else patience.silence_seconds
                async with asyncio.timeout(seconds):
                    message = await arrived.get()
                if names.BLOB_SIZE in message.headers or names.SERVICE_ERROR in message.headers:
                    head = self._read_head(message)
                    tell(head)
                    if head.parts is None:
                        return Window(head, [memoryview(message.data)])
                elif names.BLOB_PART in message.headers:
                    chunks.append(message)
                else:
                    _note_status(message, subject)
        except TimeoutError as error:
            if head is None:
                liveness.unanswered(asked_at)
            msg = "nothing came for a while"
            raise OddWindowError(msg) from error
        except UnavailableError:
            liveness.nobody(asked_at)
            raise
        finally:
            mailbox.close()
        return Window(head, _cut(head, chunks))

    def _read_head(self, message: Message) -> HeadT:
        codec.raise_error(message.headers, message.data)
        head: HeadT = codec.decode_reply_headers(message.headers, self._head_type)
        if head.parts is None and len(message.data) != head.length:
            msg = "the answer has another length than it says"
            raise InternalError(msg)
        return head


def _note_status(message: Message, subject: str) -> None:
    """The server itself says something: the end of a batch, or why there is none."""
    raise_for_status(message, subject)
    status = message.headers.get(names.STATUS)
    if status is not None and status != "204":
        msg = f"the server answered {status}"
        raise OddWindowError(msg)


def _cut(head: BlobHead | ContentHead, chunks: list[Message]) -> list[memoryview]:
    """The window's bytes. Raises OddWindowError unless they are exactly those announced."""
    numbers = [int(chunk.headers[names.BLOB_PART]) for chunk in chunks]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
        msg = "parts came out of order"
        raise OddWindowError(msg)
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
        msg = f"{left} bytes are missing at the end"
        raise OddWindowError(msg)
    return pieces
