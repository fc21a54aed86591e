"""The written forms of a manifest's pages and root: msgpack arrays of columns.

Ranges are checked while they are read, at no cost; everything else is in ``checks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, overload

import msgspec
from msgspec import Meta

from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError
from holdfast.form.entries import MAX_FILE_BYTES, MAX_MODE, MAX_OWNER, MAX_TIME_NS, MAX_XATTRS
from holdfast.form.frame_table import MAX_FRAMES_LISTED, FrameColumns
from holdfast.form.layout import MAX_FRAME_BYTES, MAX_PAGE_WEIGHT
from holdfast.form.sparse import BLOCK_BYTES, MAX_SEGMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT: Final = 1
MAX_PAGE_ENTRIES: Final = MAX_PAGE_WEIGHT

MAX_PAGES: Final = 2**20

MAX_PAGE_BYTES: Final = 128 * MIB
"""Of an encoded page: enough for one file of a terabyte."""

MAX_PAGE_XATTRS: Final = 2**16
"""Of all entries of a page together: one takes three bytes there, and a hundred in memory."""

MAX_PAGE_SEGMENTS: Final = 2**17
"""The same of sparse files. Further files of the page are archived as plain ones."""

type Xattrs = tuple[tuple[bytes, bytes], ...]
type Segments = tuple[tuple[int, int], ...]

type _Mode = Annotated[int, Meta(ge=0, le=MAX_MODE)]
type _Header = Annotated[int, Meta(ge=BLOCK_BYTES, le=MAX_FRAME_BYTES)]
type _Entries = Annotated[int, Meta(ge=0, le=MAX_PAGE_ENTRIES)]
type _Owner = Annotated[int, Meta(ge=0, le=MAX_OWNER)]
type _Time = Annotated[int, Meta(ge=-MAX_TIME_NS, le=MAX_TIME_NS)]
type _Size = Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)]
type _Number = Annotated[int, Meta(ge=0)]
type _Count = Annotated[int, Meta(ge=1)]
type _Frames = Annotated[int, Meta(ge=1, le=MAX_FRAMES_LISTED)]
type _Xattrs = Annotated[tuple[tuple[bytes, bytes], ...], Meta(max_length=MAX_XATTRS)]
type _Segments = Annotated[tuple[tuple[_Size, _Size], ...], Meta(max_length=MAX_SEGMENTS)]
type _PackNumbers = Annotated[tuple[_Number, ...], Meta(max_length=MAX_FRAMES_LISTED)]
type _Some[T] = Annotated[dict[_Number, T], Meta(max_length=MAX_PAGE_ENTRIES)]
type _Column[T] = Annotated[list[T], Meta(max_length=MAX_PAGE_ENTRIES)]
type _Rows[T] = Annotated[list[T], Meta(max_length=MAX_PAGES)]


class PageColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The written form. ``paths`` are joined by NUL, which no path holds.

    ``xattrs`` and ``segments`` are read later: how many there are is looked at before.
    """

    paths: bytes
    kinds: bytes
    modes: _Column[_Mode]
    uids: _Column[_Owner]
    gids: _Column[_Owner]
    sizes: _Column[_Size]
    mtimes_ns: _Column[_Time]
    header_sizes: _Column[_Header]
    targets: _Some[bytes]
    xattrs: _Some[msgspec.Raw]
    segments: _Some[msgspec.Raw]
    frames: FrameColumns


class PageFrameColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The written form of a page, of which only the frames are read."""

    paths: msgspec.Raw
    kinds: msgspec.Raw
    modes: msgspec.Raw
    uids: msgspec.Raw
    gids: msgspec.Raw
    sizes: msgspec.Raw
    mtimes_ns: msgspec.Raw
    header_sizes: msgspec.Raw
    targets: msgspec.Raw
    xattrs: msgspec.Raw
    segments: msgspec.Raw
    frames: FrameColumns


class StatColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The written form: steps from one inode to the next (modulo 2**64), ctime less mtime.

    Both are mostly small and alike: it takes a fifth of the numbers themselves.
    """

    inode_steps: _Column[int]
    ctime_lags_ns: _Column[int]


class RootColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The written form. ``pieces`` has the pages' frames, each page's before its stat page's.

    ``pack_numbers`` are read row by row: some kilobytes could name millions.
    """

    format: int
    first_paths: bytes
    entries: _Rows[_Entries]
    files: _Rows[_Entries]
    size_bytes: _Rows[_Size]
    raw_bytes: _Rows[_Size]
    stored_bytes: _Rows[_Size]
    frames: _Rows[_Frames]
    fingerprints: bytes
    pack_numbers: _Rows[msgspec.Raw]
    page_pieces: _Rows[_Count]
    stat_pieces: _Rows[_Number]
    pieces: FrameColumns


class RootOutline(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The written form of a root, of which only sizes are looked at."""

    format: msgspec.Raw
    first_paths: msgspec.Raw
    entries: msgspec.Raw
    files: msgspec.Raw
    size_bytes: msgspec.Raw
    raw_bytes: msgspec.Raw
    stored_bytes: msgspec.Raw
    frames: msgspec.Raw
    fingerprints: msgspec.Raw
    pack_numbers: msgspec.Raw
    page_pieces: msgspec.Raw
    stat_pieces: msgspec.Raw
    pieces: tuple[msgspec.Raw, msgspec.Raw, msgspec.Raw, msgspec.Raw, msgspec.Raw, msgspec.Raw]

    @property
    def is_even(self) -> bool:
        """Whether all columns have a row for each page."""
        return len(set(self._lengths())) == 1

    @property
    def decoded_bytes(self) -> int:
        """Bytes that the root takes in memory, roughly."""
        digests, raw_sizes, _, packs, _, _ = self.pieces
        # Of each the binary and a few bytes more.
        digest_bytes = sum(len(memoryview(raw)) for raw in (digests, packs, self.fingerprints))
        return (
            max(self._lengths()) * _PAGE_BYTES
            + _array_length(memoryview(raw_sizes)) * _PIECE_BYTES
            + digest_bytes * _DIGEST_FACTOR
        )

    def _lengths(self) -> list[int]:
        columns = (
            *(self.entries, self.files, self.size_bytes, self.raw_bytes, self.stored_bytes),
            *(self.frames, self.pack_numbers, self.page_pieces, self.stat_pieces),
        )
        return [_array_length(memoryview(column)) for column in columns]


_PAGE_BYTES: Final = 1024
_PIECE_BYTES: Final = 160
_DIGEST_FACTOR: Final = 4
"""Of a page, a piece and a byte of digests, once they are Python's."""


class PackNumbers(Sequence[tuple[int, ...]]):
    """The rows of a root's pack numbers, each read when it is asked for."""

    def __init__(self, rows: Sequence[msgspec.Raw]) -> None:
        """Reading one raises msgspec.MsgspecError."""
        self._rows = rows

    def __len__(self) -> int:
        """The count of rows."""
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, number: slice) -> PackNumbers: ...
    def __getitem__(self, number: int | slice) -> tuple[int, ...] | PackNumbers:
        """Row ``number``, from 0."""
        if isinstance(number, slice):
            return PackNumbers(self._rows[number])
        row: tuple[int, ...] = _PACK_NUMBERS_DECODER.decode(self._rows[number])
        return row

    def __eq__(self, other: object) -> bool:
        """Whether the rows are the same."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return [*self] == [*map(tuple, other)]

    __hash__ = None  # type: ignore[assignment]


def to_raw_rows(rows: Iterable[Sequence[int]]) -> list[msgspec.Raw]:
    """The written form of the rows of pack numbers."""
    return [msgspec.Raw(_ENCODER.encode(row)) for row in rows]


def to_raw(values: Mapping[int, Xattrs] | Mapping[int, Segments]) -> dict[int, msgspec.Raw]:
    """The written form of ``xattrs`` or ``segments``."""
    return {index: msgspec.Raw(_ENCODER.encode(value)) for index, value in values.items()}


def read_xattrs(raw: Mapping[int, msgspec.Raw]) -> dict[int, Xattrs]:
    """The content of ``raw``. Raises CorruptError, msgspec.MsgspecError."""
    _check_total(raw, MAX_PAGE_XATTRS)
    return {index: _XATTRS_DECODER.decode(value) for index, value in raw.items()}


def read_segments(raw: Mapping[int, msgspec.Raw]) -> dict[int, Segments]:
    """The content of ``raw``. Raises CorruptError, msgspec.MsgspecError."""
    _check_total(raw, MAX_PAGE_SEGMENTS)
    return {index: _SEGMENTS_DECODER.decode(value) for index, value in raw.items()}


def _check_total(raw: Mapping[int, msgspec.Raw], most: int) -> None:
    if sum([_array_length(memoryview(value)) for value in raw.values()]) > most:
        raise CorruptError("a page of the manifest has too many extended attributes or segments")


def _array_length(raw: memoryview) -> int:
    """The items that the msgpack array ``raw`` announces; anything else has none."""
    if raw[0] & 0xF0 == _FIXARRAY:
        return raw[0] & 0x0F
    return int.from_bytes(raw[1 : 1 + _LENGTH_BYTES.get(raw[0], 0)])


_FIXARRAY: Final = 0x90
_LENGTH_BYTES: Final = {0xDC: 2, 0xDD: 4}
_ENCODER: Final = msgspec.msgpack.Encoder()
_PACK_NUMBERS_DECODER: Final = msgspec.msgpack.Decoder(_PackNumbers)
_XATTRS_DECODER: Final = msgspec.msgpack.Decoder(_Xattrs)
_SEGMENTS_DECODER: Final = msgspec.msgpack.Decoder(_Segments)
