"""Reading bytes that a worker makes up: a file out of a snapshot.

The worker checks every frame it serves against its digest; here the bytes are checked for being
all of them, in order and without a gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.client.reads.windows import Patience, WindowReader, window_pieces
from holdfast.protocol.files import READ_FILE, ReadFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.client.requests import Requester
    from holdfast.client.sources import OnBytes

_PATIENCE: Final = Patience(head_seconds=10.0, silence_seconds=5.0)
"""A worker may first have to fetch a pack for every message of a window."""

_WINDOWS_AHEAD: Final = 4
"""Workers make windows up pack by pack: one more at a time than of blobs keeps them busy."""


def stream_file(
    requester: Requester, request: ReadFile, progress: OnBytes | None
) -> AsyncGenerator[memoryview]:
    """The bytes, in order. ``progress`` is told (bytes done, bytes in all).

    Raises NotFoundError, ConflictError (the snapshot is not ``ok``), CorruptError, InvalidError,
    UnavailableError.
    """
    reader = WindowReader(requester, READ_FILE, request, _PATIENCE, windows_ahead=_WINDOWS_AHEAD)
    return window_pieces(reader.windows(), request, progress)
