"""Reading bytes that a worker makes up: a file out of a snapshot.

The worker checks every frame it serves against its digest; here the bytes are checked for being
all of them, in order and without a gap.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from holdfast.client.windows import Patience, WindowReader
from holdfast.errors import CorruptError
from holdfast.protocol.files import READ_FILE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.client.requests import Requester
    from holdfast.client.sources import OnBytes
    from holdfast.protocol.blobs import ContentHead
    from holdfast.protocol.files import ReadFile

_PATIENCE: Final = Patience(head_seconds=10.0, silence_seconds=5.0)
"""A worker may first have to fetch a pack for every message of a window."""

_WINDOWS_AHEAD: Final = 4
"""Workers make windows up pack by pack: one more at a time than of blobs keeps them busy."""


class ContentDownload:
    """One read of a file. Used once."""

    def __init__(self, requester: Requester, request: ReadFile) -> None:
        """``request`` says which bytes of what."""
        self._request = request
        self._reader: WindowReader[ContentHead] = WindowReader(
            requester, READ_FILE, request, _PATIENCE, windows_ahead=_WINDOWS_AHEAD
        )

    async def stream(self, progress: OnBytes | None = None) -> AsyncGenerator[memoryview]:
        """The bytes, in order. ``progress`` is told (bytes done, bytes in all).

        Raises NotFoundError, ConflictError (the snapshot is not ``ok``), CorruptError,
        InvalidError, UnavailableError.
        """
        at, stop = 0, None
        async with aclosing(self._reader.windows()) as windows:
            async for window in windows:
                if stop is None:
                    at, stop = self._span(window.head.size)
                if window.head.length and window.head.offset != at:
                    msg = f"bytes from {window.head.offset} came, not those from {at}"
                    raise CorruptError(msg)
                for piece in window.pieces:
                    at += len(piece)
                    if progress is not None:
                        progress(at - self._start(stop), stop - self._start(stop))
                    yield piece
        if at != stop:
            msg = f"the bytes end at {at}, not at {stop}"
            raise CorruptError(msg)

    def _start(self, stop: int) -> int:
        return min(self._request.offset, stop)

    def _span(self, size: int) -> tuple[int, int]:
        """First byte and end of what is wanted of ``size`` bytes."""
        start = min(self._request.offset, size)
        if self._request.length is None:
            return start, size
        return start, min(start + self._request.length, size)
