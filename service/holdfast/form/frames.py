"""Compressing and decompressing one frame, which came from a store and is trusted in nothing.

A frame is one independent zstd frame that says how long its content is. This length is compared
with the manifest's before any memory is taken, so a frame cannot ask for more.

Why: docs/decisions.md, "What is stored bounds what it unpacks to".
"""

from __future__ import annotations

from typing import Final

import zstandard

from holdfast.domain.limits import KIB, MIB
from holdfast.errors import CorruptError, TooLargeError
from holdfast.form.layout import MAX_CHUNK_BYTES, MAX_FRAME_BYTES

FRAME_LEVEL: Final = 3
PAGE_LEVEL: Final = 6
"""For pages of manifests: they are small, read often, and rarely written."""

MAX_WINDOW_BYTES: Final = 8 * MIB
"""The window that RFC 8878 asks every decoder to take."""

FREE_RAW_BYTES: Final = 1 * MIB
"""Of a page or root: so much may unpack from anything."""

MAX_RATIO: Final = 16
"""Raw bytes of a page or root for each stored byte, beyond FREE_RAW_BYTES. Digests do not compress,
so hardly any has more. Columns of numbers in memory are up to twelve times their raw bytes: without
a bound a few kilobytes could fill it.
"""

_MAX_PIECE_RATIO: Final = 2
_PLAIN_HEADER: Final = bytes.fromhex("28b52ffd a0")  # one segment, and four bytes of content size
_BLOCK_BYTES: Final = 128 * KIB

END_OF_ARCHIVE: Final = bytes(1024)
END_FRAME: Final = bytes.fromhex("28b52ffd 60 0003 032000 00")
"""``END_OF_ARCHIVE`` compressed: the same bytes whatever the version of zstd (one RLE block)."""


def new_compressor() -> zstandard.ZstdCompressor:
    """A compressor of frames, for one thread only."""
    return zstandard.ZstdCompressor(level=FRAME_LEVEL, write_content_size=True)


def new_page_compressor() -> zstandard.ZstdCompressor:
    """A compressor of the pieces of pages, for one thread only."""
    return zstandard.ZstdCompressor(level=PAGE_LEVEL, write_content_size=True)


def compress_frame(
    compressor: zstandard.ZstdCompressor, raw: bytes | bytearray | memoryview
) -> bytes:
    """The frame of ``raw``. Raises TooLargeError beyond MAX_FRAME_BYTES."""
    size = memoryview(raw).nbytes
    if size > MAX_FRAME_BYTES:
        raise TooLargeError(f"a frame has at most {MAX_FRAME_BYTES} bytes, not {size}")
    return compressor.compress(raw)


def max_raw_bytes(stored_size: int) -> int:
    """Raw bytes that a page or root of ``stored_size`` bytes when stored may have."""
    return FREE_RAW_BYTES + MAX_RATIO * stored_size


def plain_frame(raw: bytes) -> bytes:
    """A frame that holds ``raw`` (at least one byte, below 4 GiB) as it is."""
    parts = [_PLAIN_HEADER, len(raw).to_bytes(4, "little")]
    for at in range(0, len(raw), _BLOCK_BYTES):
        block = raw[at : at + _BLOCK_BYTES]
        is_last = at + _BLOCK_BYTES >= len(raw)
        parts += ((len(block) << 3 | is_last).to_bytes(3, "little"), block)
    return b"".join(parts)


def compress_piece(compressor: zstandard.ZstdCompressor, raw: bytes) -> bytes:
    """The frame of ``raw``, a piece of a page.

    One of several pieces that would compress well is stored as it is: what all of them unpack to
    then stays within ``max_raw_bytes``, even where one of them comes many times (the digests of a
    terabyte of zeros).
    """
    stored = compress_frame(compressor, raw)
    if len(raw) < MAX_CHUNK_BYTES or len(raw) <= _MAX_PIECE_RATIO * len(stored):
        return stored
    return plain_frame(raw)


def decompress_frame(
    stored: bytes | memoryview, raw_size: int, max_size: int = MAX_FRAME_BYTES
) -> bytes:
    """The ``raw_size`` raw bytes of the frame ``stored``, which is all of it.

    Raises CorruptError when it is anything else: several frames, a skippable one, one that needs
    a dictionary or a large window, does not say its size, or says more than ``max_size``. Takes
    no more memory than ``raw_size`` and zstd's window. Whether the bytes are the right ones is for
    the caller to find out from their digest.
    """
    try:
        header = zstandard.get_frame_parameters(stored)
        if header.content_size != raw_size or raw_size > max_size:
            raise CorruptError("a frame does not have the size that was recorded")
        if header.window_size > max(MAX_WINDOW_BYTES, raw_size) or header.dict_id:
            raise CorruptError("a frame needs a dictionary or a window that none of ours does")
        # One for each frame: it must not be shared by threads, and costs 3 µs.
        # The result has the size that the header says, or there is an error.
        return zstandard.ZstdDecompressor().decompress(stored, allow_extra_data=False)
    except (zstandard.ZstdError, ValueError) as error:
        raise CorruptError("a frame is not what it was when it was stored") from error
