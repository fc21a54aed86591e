"""Telling how an archive is compressed by its first bytes, and unpacking it piece by piece.

The pieces are bounded however well the input compresses, so a bomb costs time and what its reader
keeps, not memory. The reader of the tar sees whether the input was complete, by the marker
at its end: zstd's stream reader ends quietly where a frame is cut off.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, Protocol, cast

import zstandard

from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PIECE_BYTES: Final = 1 * MIB
READ_BYTES: Final = 256 * 1024
_HEAD_BYTES: Final = 32
"""Enough for the header of a zstd frame, the longest of those looked at."""

_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = tuple(bytes([0x50 + low]) + b"\x2a\x4d\x18" for low in range(16))
_GZIP: Final = b"\x1f\x8b"
_XZ: Final = b"\xfd7zXZ\x00"
_BZIP2: Final = b"BZh"


class ByteStream(Protocol):
    """A file or pipe open for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end."""


class CountedStream(io.RawIOBase):
    """``stream`` with its first bytes looked at, counting what was taken of it."""

    def __init__(self, stream: ByteStream) -> None:
        super().__init__()
        self._stream = stream
        self.count = 0
        self.head = b""
        while len(self.head) < _HEAD_BYTES and (piece := stream.read(_HEAD_BYTES)):
            self.head += piece
        self._rest = self.head

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, the head first; all of a piece when ``size`` is negative."""
        size = READ_BYTES if size < 0 else size
        if self._rest:
            data, self._rest = self._rest[:size], self._rest[size:]
        else:
            data = self._stream.read(size)
        self.count += len(data)
        return data


def decompressed(stream: CountedStream, *, max_window_bytes: int) -> Iterator[bytes]:
    """The unpacked bytes in pieces of at most 1 MiB: of zstd, gzip, xz, bzip2, or as they are.

    Several frames or members follow each other. Raises InvalidError for input that is damaged,
    needs a dictionary, or has something else behind it; TooLargeError when its decoder would need
    more memory than ``max_window_bytes``, roughly.
    """
    head = stream.head
    with _translated():
        if head.startswith((_ZSTD, *_SKIPPABLE)):
            yield from _zstd(stream, max_window_bytes)
        elif head.startswith(_GZIP):
            with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
                yield from _pieces(unpacked)
        elif head.startswith(_XZ):
            yield from _looped(
                stream, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, 2 * max_window_bytes)
            )
        elif head.startswith(_BZIP2):
            yield from _looped(stream, bz2.BZ2Decompressor)
        else:
            yield from _pieces(stream)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except zstandard.ZstdError as error:
        if "too much memory" in str(error):
            raise _window() from error
        msg = "the archive's zstd data is damaged, or followed by something else"
        raise InvalidError(msg) from error
    except lzma.LZMAError as error:
        if "emory" in str(error):
            raise _window() from error
        msg = "the archive's xz data is damaged, or followed by something else"
        raise InvalidError(msg) from error
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        msg = "the archive's compressed data is damaged, truncated, or followed by something else"
        raise InvalidError(msg) from error


def _window() -> TooLargeError:
    return TooLargeError("the archive needs a larger window to unpack than is allowed")


def _zstd(stream: CountedStream, max_window_bytes: int) -> Iterator[bytes]:
    if stream.head.startswith(_ZSTD):
        parameters = zstandard.get_frame_parameters(stream.head)
        if parameters.dict_id:
            msg = "the archive needs a zstd dictionary; such archives are not supported"
            raise InvalidError(msg)
    decompressor = zstandard.ZstdDecompressor(max_window_size=max_window_bytes)
    readable = cast("IO[bytes]", stream)  # all it needs is read()
    with decompressor.stream_reader(readable, read_across_frames=True, closefd=False) as unpacked:
        yield from _pieces(unpacked)


def _pieces(stream: ByteStream) -> Iterator[bytes]:
    while piece := stream.read(PIECE_BYTES):
        yield piece


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _looped(stream: CountedStream, make: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Streams of xz or bzip2, one after the other; zeros between them are padding."""
    decompressor = make()
    while True:
        data = b""
        if decompressor.eof:
            data = decompressor.unused_data
            while not data.strip(b"\0"):
                data = stream.read(READ_BYTES)
                if not data:
                    return
            data = data.lstrip(b"\0")
            decompressor = make()
        elif decompressor.needs_input:
            data = stream.read(READ_BYTES)
            if not data:
                raise EOFError
        try:
            piece = decompressor.decompress(data, PIECE_BYTES)
        except OSError as error:  # how bz2 reports damage
            msg = "the archive's bzip2 data is damaged, or followed by something else"
            raise InvalidError(msg) from error
        if piece:
            yield piece
