"""Pages of a snapshot's manifest: what its members are and which frames hold their bytes.

A page is columns, because columns compress and are checked and compared at the speed of C. The
tar bytes of its members follow each other, and so do its frames; where a member's data begins is
therefore computed and not written down, and cannot contradict the rest. A page is stored as a
file's data is: its encoded bytes, cut into pieces, are frames.

Why: docs/decisions.md, "Positions are computed, not written down".
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import add, sub
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import CorruptError, TooLargeError
from holdfast.form.checks import (
    check_columns,
    check_links,
    check_paths,
    check_sizes,
    check_sparse,
    check_xattrs,
)
from holdfast.form.columns import (
    MAX_PAGE_BYTES,
    MAX_PAGE_ENTRIES,
    PageColumns,
    PageFrameColumns,
    StatColumns,
    read_segments,
    read_xattrs,
    to_raw,
)
from holdfast.form.entries import Entry, Kind, stored_bytes
from holdfast.form.frame_table import FrameRef, FrameTable, from_columns, table_of, to_columns
from holdfast.form.layout import MAX_CHUNK_BYTES
from holdfast.form.sparse import BLOCK_BYTES, sparse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PIECE_BYTES: Final = MAX_CHUNK_BYTES
"""Of an encoded page. Nearly every page is one piece."""

_WORD: Final = 2**64 - 1
_HALF: Final = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Consecutive members of a snapshot, as columns.

    ``targets``, ``xattrs`` and ``segments`` are by index, only for entries that have some.
    ``data_sizes`` are the data's bytes in the tar without padding. Computed: ``starts`` are the
    positions of the members' headers in the page's tar bytes, and as the last item their end;
    ``frame_starts`` the same of frames.
    """

    paths: Sequence[bytes]
    kinds: bytes
    modes: Sequence[int]
    uids: Sequence[int]
    gids: Sequence[int]
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]
    header_sizes: Sequence[int]
    targets: Mapping[int, bytes]
    xattrs: Mapping[int, tuple[tuple[bytes, bytes], ...]]
    segments: Mapping[int, tuple[tuple[int, int], ...]]
    frames: FrameTable
    data_sizes: Sequence[int]
    starts: Sequence[int] = field(init=False)
    frame_starts: Sequence[int] = field(init=False)

    def __post_init__(self) -> None:
        member_sizes = [
            header + ((data + BLOCK_BYTES - 1) & -BLOCK_BYTES)
            for header, data in zip(self.header_sizes, self.data_sizes, strict=True)
        ]
        object.__setattr__(self, "starts", list(accumulate(member_sizes, initial=0)))
        frame_starts = list(accumulate(self.frames.raw_sizes, initial=0))
        object.__setattr__(self, "frame_starts", frame_starts)

    @property
    def entry_count(self) -> int:
        """The count of members; at least 1."""
        return len(self.paths)

    @property
    def frame_count(self) -> int:
        """The count of frames."""
        return len(self.frames)

    @property
    def raw_size(self) -> int:
        """The tar bytes of all members."""
        return self.starts[-1]

    def entry(self, index: int) -> Entry:
        """The member ``index``, from 0."""
        frame, offset = self.data_at(index)
        return Entry(
            path=self.paths[index],
            kind=_KINDS[self.kinds[index]],
            mode=self.modes[index],
            uid=self.uids[index],
            gid=self.gids[index],
            size=self.sizes[index],
            mtime_ns=self.mtimes_ns[index],
            target=self.targets.get(index, b""),
            xattrs=self.xattrs.get(index, ()),
            segments=self.segments.get(index),
            frame=frame,
            offset=offset,
        )

    def entries(self) -> Iterator[Entry]:
        """All members in order."""
        return map(self.entry, range(len(self.paths)))

    def frame(self, number: int) -> FrameRef:
        """Frame ``number`` of the page, from 0."""
        return self.frames[number]

    def header_frame(self, index: int) -> int:
        """The number of the frame in which the header of member ``index`` begins."""
        return bisect_right(self.frame_starts, self.starts[index]) - 1

    def data_at(self, index: int) -> tuple[int, int]:
        """``(frame, offset)`` where the data of member ``index`` begins.

        Without data: the frame of the header, and 0.
        """
        if not self.data_sizes[index]:
            return self.header_frame(index), 0
        start = self.starts[index] + self.header_sizes[index]
        frame = bisect_right(self.frame_starts, start) - 1
        return frame, start - self.frame_starts[frame]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatPage:
    """The marks, beside the page's own, that tell whether its members have changed since.

    Inodes are below 2**64, ctimes from 0 to MAX_TIME_NS; a ctime of 0 equals none: the entry is
    looked at again.
    """

    inodes: Sequence[int]
    ctimes_ns: Sequence[int]


def new_page(
    entries: Sequence[Entry], header_sizes: Sequence[int], frames: Sequence[FrameRef]
) -> Page:
    """The page of ``entries`` (at least one, ascending), whose tar bytes ``frames`` hold.

    ``header_sizes`` are the lengths of their headers in the tar. The entries' ``frame`` and
    ``offset`` are not looked at.
    """
    numbered = list(enumerate(entries))
    return Page(
        paths=[entry.path for entry in entries],
        kinds=bytes([entry.kind for entry in entries]),
        modes=[entry.mode for entry in entries],
        uids=[entry.uid for entry in entries],
        gids=[entry.gid for entry in entries],
        sizes=[entry.size for entry in entries],
        mtimes_ns=[entry.mtime_ns for entry in entries],
        header_sizes=header_sizes,
        targets={index: entry.target for index, entry in numbered if entry.target},
        xattrs={index: entry.xattrs for index, entry in numbered if entry.xattrs},
        segments={index: entry.segments for index, entry in numbered if entry.segments is not None},
        frames=table_of(frames),
        data_sizes=[stored_bytes(entry) for entry in entries],
    )


def encode_page(page: Page) -> bytes:
    """The written form of ``page``, not compressed. Raises TooLargeError."""
    raw = _ENCODER.encode(
        PageColumns(
            paths=b"\0".join(page.paths),
            kinds=page.kinds,
            modes=list(page.modes),
            uids=list(page.uids),
            gids=list(page.gids),
            sizes=list(page.sizes),
            mtimes_ns=list(page.mtimes_ns),
            header_sizes=list(page.header_sizes),
            targets=dict(page.targets),
            xattrs=to_raw(page.xattrs),
            segments=to_raw(page.segments),
            frames=to_columns(page.frames),
        )
    )
    if len(raw) > MAX_PAGE_BYTES:
        msg = f"a page of the manifest would have {len(raw)} bytes, more than {MAX_PAGE_BYTES}"
        raise TooLargeError(msg)
    return raw


def decode_page(raw: bytes) -> Page:
    """The page that ``raw`` writes down. Raises CorruptError unless it could be a snapshot's.

    Checked is all that a page can tell by itself: order and form of paths, that directories hold
    what is below them, ranges, targets, and that members fill the frames exactly. Parts in other
    pages are not: a hard link's target there, and the directories that the first path is in.
    """
    try:
        columns = _PAGE_DECODER.decode(raw)
        xattrs, segments = read_xattrs(columns.xattrs), read_segments(columns.segments)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError("a page of the manifest is unreadable") from error
    paths = columns.paths.split(b"\0", MAX_PAGE_ENTRIES)
    numbers = (columns.modes, columns.uids, columns.gids, columns.sizes, columns.mtimes_ns)
    check_columns(len(paths), columns.kinds, (*numbers, columns.header_sizes))
    check_paths(paths, columns.kinds)
    check_sizes(columns.kinds, columns.sizes, columns.header_sizes)
    check_links(paths, columns.kinds, columns.targets)
    check_xattrs(len(paths), xattrs)
    check_sparse(columns.kinds, columns.sizes, segments)
    page = Page(
        paths=paths,
        kinds=columns.kinds,
        modes=columns.modes,
        uids=columns.uids,
        gids=columns.gids,
        sizes=columns.sizes,
        mtimes_ns=columns.mtimes_ns,
        header_sizes=columns.header_sizes,
        targets=columns.targets,
        xattrs=xattrs,
        segments=segments,
        frames=from_columns(columns.frames),
        data_sizes=_data_sizes(columns.sizes, segments),
    )
    if page.frame_starts[-1] != page.starts[-1]:
        raise CorruptError("a page's frames do not hold just its members")
    return page


def decode_frames(raw: bytes) -> FrameTable:
    """Only the frames of the page that ``raw`` writes down, at a tenth of the cost.

    Raises CorruptError. Nothing else of the page is checked.
    """
    try:
        return from_columns(_FRAMES_DECODER.decode(raw).frames)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CorruptError("a page of the manifest is unreadable") from error


def encode_stat_page(stat: StatPage, page: Page) -> bytes:
    """The written form of ``stat``, which belongs to ``page``; not compressed."""
    steps = [
        (inode - before + _HALF & _WORD) - _HALF for before, inode in pairwise((0, *stat.inodes))
    ]
    return _ENCODER.encode(
        StatColumns(inode_steps=steps, ctime_lags_ns=list(map(sub, stat.ctimes_ns, page.mtimes_ns)))
    )


def decode_stat_page(raw: bytes, page: Page) -> StatPage:
    """The stat page of ``page`` that ``raw`` writes down. Raises CorruptError."""
    try:
        columns = _STAT_DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError("a page of the manifest's stat cache is unreadable") from error
    if not len(columns.inode_steps) == len(columns.ctime_lags_ns) == page.entry_count:
        raise CorruptError("a page of the manifest's stat cache does not fit its page")
    return StatPage(
        inodes=[inode & _WORD for inode in accumulate(columns.inode_steps)],
        ctimes_ns=list(map(add, columns.ctime_lags_ns, page.mtimes_ns)),
    )


def page_pieces(raw: bytes) -> list[bytes]:
    """``raw``, an encoded page, cut into what becomes one frame each."""
    return [raw[at : at + PIECE_BYTES] for at in range(0, len(raw), PIECE_BYTES)]


def _data_sizes(
    sizes: Sequence[int], segments: Mapping[int, tuple[tuple[int, int], ...]]
) -> list[int]:
    data_sizes = list(sizes)
    for index, of_file in segments.items():
        data_sizes[index] = sparse_bytes(of_file, sizes[index])
    return data_sizes


_KINDS: Final = tuple(Kind)
_ENCODER: Final = msgspec.msgpack.Encoder()
_PAGE_DECODER: Final = msgspec.msgpack.Decoder(PageColumns)
_FRAMES_DECODER: Final = msgspec.msgpack.Decoder(PageFrameColumns)
_STAT_DECODER: Final = msgspec.msgpack.Decoder(StatColumns)
