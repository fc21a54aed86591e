"""Reading a blob: its windows, and its digest where all of it is read.

The chunks of a window come straight from the server. After a window that came oddly a worker reads
and relays (``proxy``).
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from holdfast.client.windows import Patience, WindowReader
from holdfast.errors import CorruptError
from holdfast.protocol.blobs import GET_BLOB, BlobHead, GetBlob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast.client.requests import Requester

PATIENCE: Final = Patience(head_seconds=5.0, silence_seconds=2.0)


class Download:
    """One read. ``head`` tells of the blob once the first window has come."""

    def __init__(
        self, requester: Requester, request: GetBlob, patience: Patience = PATIENCE
    ) -> None:
        """``request`` says which bytes of which blob."""
        self._request = request
        self._reader = WindowReader(requester, GET_BLOB, request, patience, again={"proxy": True})
        self._sha256 = hashlib.sha256()
        self.head: BlobHead | None = None

    async def stream(
        self, progress: Callable[[int, int | None], None] | None = None
    ) -> AsyncIterator[memoryview]:
        """The bytes, in order. Of a whole blob the last piece comes only once the digest is right.

        Raises NotFoundError, CorruptError, InvalidError, UnavailableError.
        """
        done, total = 0, 0
        held: memoryview | None = None
        async with aclosing(self._reader.windows()) as windows:
            async for window in windows:
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
