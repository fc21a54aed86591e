"""Bytes out of snapshots: in one piece if they fit a message, else window by window.

A window is read when it is about to be sent, and only so many at a time. A caller for whom that
would be too late is told so at once: nothing is sent to those who have given up. The bytes after a
window are looked for meanwhile, for they will nearly always be asked for next.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.ports import Cancelled, Stop
from holdfast.deadline import look_at
from holdfast.domain.limits import KIB, WINDOW_BYTES
from holdfast.domain.windows import Span, clip
from holdfast.errors import CorruptError, InvalidError, RateLimitedError
from holdfast.repository.blobs import Content
from holdfast.repository.snapshots.reading.cursors import NOT_A_CURSOR, decode_place, encode_place
from holdfast.repository.snapshots.reading.read_threads import ReadThreads

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Buffer, Callable, Iterable

    from holdfast.domain.digest import Digest

MAX_WINDOWS: Final = 8
"""Windows of content in memory at once; others wait for their turn."""

MAX_WAITING: Final = 32
"""Windows that wait; further ones are answered ``rate_limited`` at once."""

MAX_WAIT_SECONDS: Final = 5.0
"""Their longest wait, for callers are said to give up though they named no deadline."""

MAX_READING_AHEAD: Final = 2
"""Windows that are looked for before they are asked for."""

PIECE_BYTES: Final = 512 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadableBytes:
    """Something to read ``size`` bytes of, in a thread.

    ``read_ahead`` has packs fetched that a range will need.
    """

    root: Digest
    size: int
    type: str
    read: Callable[[int, int], Iterable[Buffer]]
    read_ahead: Callable[[int, int], object]


class ContentWindows:
    """Reads and sends bytes, with a bound on those in memory."""

    def __init__(self, threads: ReadThreads, *, max_inline_bytes: int) -> None:
        """One message carries ``max_inline_bytes``."""
        self._threads = threads
        self._max_inline_bytes = max_inline_bytes
        self._windows = asyncio.Semaphore(MAX_WINDOWS)
        self._waiting = 0
        self._reading_ahead = 0

    async def content(
        self,
        open_bytes: Callable[[], ReadableBytes],
        offset: int,
        length: int | None,
        cursor: str | None,
        *,
        wait_seconds: float,
    ) -> Content:
        """Bytes that fit one message are read at once, in one go; more get a window.

        A window has a place, which is given back when its pieces are closed. Raises
        RateLimitedError when there is none within ``wait_seconds``.
        """

        def begin(stop: Stop) -> tuple[ReadableBytes, Span, Buffer | None]:
            found = open_bytes()
            span = _span(found.root, found.size, offset, length, cursor)
            if cursor is None and span.length <= self._max_inline_bytes:
                return found, span, _joined(found.read(span.start, span.stop), span, stop)
            return found, span, None

        found, span, data = await self._threads.run(begin)
        if data is not None:
            return Content(size=found.size, span=span, type=found.type, data=data)
        window = Span(span.start, min(span.start + WINDOW_BYTES, span.stop))
        rest = Span(window.stop, span.stop)
        piece_bytes = min(PIECE_BYTES, self._max_inline_bytes)
        pieces = self._pieces(found, window, piece_bytes, wait_seconds)
        # Begun, it is closed by the event loop even if nobody ever takes anything from it.
        await anext(pieces)
        return Content(
            size=found.size,
            span=window,
            type=found.type,
            parts=-(-window.length // piece_bytes),
            skip=0,
            pieces=pieces,
            cursor=encode_place(found.root, rest.start, rest.stop) if rest.length else None,
        )

    async def _pieces(
        self, found: ReadableBytes, window: Span, piece_bytes: int, wait_seconds: float
    ) -> AsyncGenerator[Buffer]:
        """Nothing, as soon as there is a place for the window; then its pieces."""
        await self._take_place(wait_seconds)
        try:
            yield b""
            data = await self._threads.run(
                lambda stop: _joined(found.read(window.start, window.stop), window, stop)
            )
            self._begin_reading_ahead(found, window)
            view = memoryview(data)
            for start in range(0, len(view), piece_bytes):
                yield view[start : start + piece_bytes]
        finally:
            self._windows.release()

    async def _take_place(self, seconds: float) -> None:
        if self._windows.locked() and self._waiting >= MAX_WAITING:
            raise RateLimitedError("this worker is at its limit of contents to send")
        self._waiting += 1
        try:
            async with asyncio.timeout(max(min(seconds, MAX_WAIT_SECONDS), 0.0)):
                await self._windows.acquire()
        except TimeoutError as error:
            raise RateLimitedError("this worker could not send contents in time") from error
        finally:
            self._waiting -= 1

    def _begin_reading_ahead(self, found: ReadableBytes, window: Span) -> None:
        ahead = min(window.stop + WINDOW_BYTES, found.size)
        if ahead > window.stop and self._reading_ahead < MAX_READING_AHEAD:
            self._reading_ahead += 1
            reading = asyncio.ensure_future(
                self._threads.run(lambda _: found.read_ahead(window.stop, ahead))
            )
            reading.add_done_callback(self._read_ahead)

    def _read_ahead(self, reading: asyncio.Future[object]) -> None:
        """A failure is met again by a read that is made there."""
        self._reading_ahead -= 1
        look_at(reading)


def _joined(pieces: Iterable[Buffer], span: Span, stop: Stop) -> bytes:
    found: list[Buffer] = []
    for piece in pieces:
        if stop():
            raise Cancelled
        found.append(piece)
    data = b"".join(found)
    if len(data) != span.length:
        raise CorruptError("the snapshot does not hold as many bytes as it says")
    return data


def _span(root: Digest, size: int, offset: int, length: int | None, cursor: str | None) -> Span:
    if cursor is None:
        return clip(size, offset, length)
    start, stop = decode_place(cursor, root)
    if not start <= stop <= size:
        raise InvalidError(NOT_A_CURSOR)
    return Span(start, stop)
