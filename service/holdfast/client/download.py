"""Reading a blob: windows ahead of who takes the bytes, each checked for being whole.

The chunks of a window come straight from the server, with no flow control inside a window; so at
most a few windows are asked for ahead. Whatever is odd about one (a gap, a short end, silence)
means asking for it again, with a worker reading and relaying (``proxy``); only a worker's own
answer means that the blob is not there.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import (
    CorruptError,
    HoldfastError,
    InternalError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.blobs import GET_BLOB, BlobHead, GetBlob
from holdfast.transport.inbox import raise_for_no_responders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast.client.requests import Requester
    from holdfast.transport.message import Message

HEAD_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 2.0
WINDOWS_AHEAD: Final = 3
"""Windows of at most 4 MiB asked for at once, well below the 32 MiB a connection may have."""

_FIRST_WAIT_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Window:
    head: BlobHead
    pieces: list[memoryview]


class _OddWindowError(Exception):
    """A window did not come as its head said."""


class Download:
    """One read. ``head`` tells of the blob once the first window has come."""

    def __init__(self, requester: Requester, request: GetBlob) -> None:
        """``request`` says which bytes of which blob."""
        self._requester = requester
        self._request = request
        self._sha256 = hashlib.sha256()
        self._heads: deque[BlobHead] = deque()
        self._news = asyncio.Event()
        self.head: BlobHead | None = None

    async def stream(
        self, progress: Callable[[int, int | None], None] | None = None
    ) -> AsyncIterator[memoryview]:
        """The bytes, in order. Of a whole blob the last piece comes only once the digest is right.

        Raises NotFoundError, CorruptError, InvalidError, UnavailableError.
        """
        done, total = 0, 0
        held: memoryview | None = None
        async for window in self._windows():
            if self.head is None:
                self.head = window.head
                total = self._wanted(window.head)
            for piece in window.pieces:
                self._sha256.update(piece)
                if held is not None:
                    yield held
                held = piece
                done += len(piece)
                if progress is not None:
                    progress(done, total)
        if done != total:
            msg = f"{done} of {total} bytes came"
            raise CorruptError(msg)
        self._check_digest(done)
        if held is not None:
            yield held

    def _wanted(self, head: BlobHead) -> int:
        start = min(self._request.offset, head.size)
        if self._request.length is None:
            return head.size - start
        return min(self._request.length, head.size - start)

    def _check_digest(self, done: int) -> None:
        if self.head is None or done != self.head.size:
            return
        if self._sha256.hexdigest() != self._request.digest:
            msg = f"the bytes that came are not those of blob {self._request.digest}"
            raise CorruptError(msg)

    async def _windows(self) -> AsyncIterator[_Window]:
        """Every window in order. The next ones are on their way while one is being used."""
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

    def _look_ahead(self, ahead: deque[asyncio.Task[_Window]]) -> None:
        """Begin the window after each head that has come, as far as they are let ahead."""
        while self._heads and len(ahead) < WINDOWS_AHEAD:
            head = self._heads.popleft()
            if head.cursor is not None:
                ahead.append(self._begin(self._following(head)))

    def _following(self, head: BlobHead) -> GetBlob:
        return msgspec.structs.replace(
            self._request, offset=0, length=None, cursor=head.cursor, proxy=False
        )

    def _begin(self, request: GetBlob) -> asyncio.Task[_Window]:
        task = asyncio.create_task(self._window(request))
        task.add_done_callback(lambda _: self._news.set())
        return task

    async def _window(self, request: GetBlob) -> _Window:
        """One window, whatever it takes. Its head counts once, as soon as it is there."""
        failure: Exception | None = None
        told = False

        def tell(head: BlobHead) -> None:
            nonlocal told
            if not told:
                told = True
                self._heads.append(head)
                self._news.set()

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._requester.timeout_seconds
        wait_seconds = _FIRST_WAIT_SECONDS
        while failure is None or loop.time() + wait_seconds < deadline:
            if failure is not None:
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(wait_seconds * 2, _MAX_WAIT_SECONDS)
            proxied = isinstance(failure, _OddWindowError)
            asked = msgspec.structs.replace(request, proxy=True) if proxied else request
            try:
                return await self._receive(asked, tell)
            except (_OddWindowError, UnavailableError, RateLimitedError) as error:
                failure = error
        if isinstance(failure, HoldfastError):
            raise failure
        msg = f"the blob could not be read whole: {failure}"
        raise UnavailableError(msg) from failure

    async def _receive(self, request: GetBlob, tell: Callable[[BlobHead], None]) -> _Window:
        """Ask once and take what comes: chunks may overtake the head."""
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        requester = self._requester
        mailbox = requester.inbox.open(arrived.put_nowait)
        try:
            await requester.connection.wait_connected(HEAD_SECONDS)
            requester.connection.send(
                requester.subject(GET_BLOB), codec.encode(request), reply=mailbox.subject
            )
            head: BlobHead | None = None
            chunks: list[Message] = []
            while head is None or len(chunks) < (head.parts or 0):
                async with asyncio.timeout(HEAD_SECONDS if head is None else SILENCE_SECONDS):
                    message = await arrived.get()
                if names.BLOB_DIGEST in message.headers or names.SERVICE_ERROR in message.headers:
                    head = _read_head(message)
                    tell(head)
                    if head.parts is None:
                        return _Window(head, [memoryview(message.data)])
                elif names.BLOB_PART in message.headers:
                    chunks.append(message)
                else:
                    _note_status(message, requester.subject(GET_BLOB))
        except TimeoutError as error:
            msg = "nothing came for a while"
            raise _OddWindowError(msg) from error
        finally:
            mailbox.close()
        return _Window(head, _cut(head, chunks))


def _read_head(message: Message) -> BlobHead:
    codec.raise_error(message.headers, message.data)
    head: BlobHead = codec.decode_reply_headers(message.headers, BlobHead)
    if head.parts is None and len(message.data) != head.length:
        msg = "the answer has another length than it says"
        raise InternalError(msg)
    return head


def _note_status(message: Message, subject: str) -> None:
    """The server itself says something: the end of a batch, or why there is none."""
    raise_for_no_responders(message, subject)
    status = message.headers.get(names.STATUS)
    if status is not None and status != "204":
        msg = f"the server answered {status}"
        raise _OddWindowError(msg)


def _cut(head: BlobHead, chunks: list[Message]) -> list[memoryview]:
    """The window's bytes. Raises _OddWindowError unless they are exactly those announced."""
    numbers = [int(chunk.headers[names.BLOB_PART]) for chunk in chunks]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
        msg = "parts came out of order"
        raise _OddWindowError(msg)
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
        raise _OddWindowError(msg)
    return pieces
