"""A file's bytes as the tar has them, and where they are cut into frames.

Cuts are made by content (FastCDC), so that bytes inserted into a large file change the frames
around them and no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyfastcdc
from pyfastcdc import FastCDC

from holdfast.domain.limits import MIB
from holdfast.errors import InternalError
from holdfast.form.layout import (
    CHUNKED_BYTES,
    MAX_CHUNK_BYTES,
    MIN_CHUNK_BYTES,
    TYPICAL_CHUNK_BYTES,
)
from holdfast.form.sparse import padding, sparse_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.archive.ports import FileReader

READ_BYTES: Final = 4 * MIB
"""One read of a large file."""

type _Segments = Sequence[tuple[int, int]] | None


def read_stored(
    reader: FileReader, buffer: memoryview, size: int, segments: _Segments
) -> memoryview:
    """Bytes that the tar has after the header of a file of ``size`` bytes, with padding.

    In ``buffer``, which is long enough; returned is the part of it that is used.
    """
    at = 0
    if segments is None:
        reader.read_into(buffer[:size], 0)
        at = size
    else:
        head = sparse_map(segments, size)
        at = len(head)
        buffer[:at] = head
        for offset, length in segments:
            reader.read_into(buffer[at : at + length], offset)
            at += length
    end = at + padding(at)
    buffer[at:end] = bytes(end - at)
    return buffer[:end]


def stored_blocks(
    reader: FileReader, size: int, segments: _Segments
) -> Iterator[bytes | bytearray]:
    """The same without padding, in blocks of at most READ_BYTES."""
    pieces: Sequence[tuple[int, int]] = ((0, size),)
    if segments is not None:
        pieces = segments
        yield sparse_map(segments, size)
    for start, length in pieces:
        for offset in range(start, start + length, READ_BYTES):
            block = bytearray(min(READ_BYTES, start + length - offset))
            reader.read_into(memoryview(block), offset)
            yield block


def cut(stored: memoryview, data_size: int) -> Iterator[memoryview]:
    """The frames of a file's ``data_size`` bytes of tar data, which ``stored`` has with padding."""
    if data_size < CHUNKED_BYTES:
        yield stored
    else:
        yield from _cut_chunks(stored, data_size)


def cut_blocks(blocks: Iterator[bytes | bytearray], data_size: int) -> Iterator[memoryview]:
    """The same of the data in ``blocks``, which come without padding, if it is CHUNKED_BYTES."""
    chunker = _chunker()
    rest = b""
    for block in blocks:
        view = memoryview(rest + block if rest else block)
        start = 0
        # A cut depends on the bytes since the last cut only, and falls within MAX_CHUNK_BYTES: as
        # long as more are at hand, it is the same wherever blocks happen to end.
        for chunk in chunker.cut_buf(view):
            if len(view) - chunk.offset <= MAX_CHUNK_BYTES:
                break
            start = chunk.offset + chunk.length
            yield view[chunk.offset : start]
        rest = bytes(view[start:])
    yield from _cut_chunks(memoryview(rest + bytes(padding(data_size))), len(rest))


def check_chunker() -> None:
    """Raises InternalError unless the compiled chunker is installed: the other is 1000x slower."""
    if FastCDC.__module__ != "pyfastcdc.cy.fastcdc":
        msg = f"pyfastcdc {pyfastcdc.__version__} has no compiled chunker here: reinstall it"
        raise InternalError(msg)


def _chunker() -> FastCDC:
    return FastCDC(TYPICAL_CHUNK_BYTES, min_size=MIN_CHUNK_BYTES, max_size=MAX_CHUNK_BYTES)


def _cut_chunks(stored: memoryview, data_size: int) -> Iterator[memoryview]:
    """The chunks of ``stored``, of which ``data_size`` bytes are data and the others padding."""
    for chunk in _chunker().cut_buf(stored[:data_size]):
        stop = chunk.offset + chunk.length
        yield stored[chunk.offset : stop if stop < data_size else len(stored)]
