"""A snapshot as a plain ``.tar.zst``: the stored frames one after the other, never recompressed.

The file is every frame of every page, the frame of the end-of-archive blocks, and a seek table
(zstd's seekable format), which other readers skip. Its size is known from the root, and any range
of it is read without what lies before, so it can be served by offset, by any worker, for ever the
same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from holdfast.archive.read.headers import check_headers
from holdfast.form.frame_table import DIGEST_BYTES, FrameTable, split_digests
from holdfast.form.frames import END_FRAME, END_OF_ARCHIVE
from holdfast.form.packing import PACK_BYTES
from holdfast.form.seek_table import (
    MAX_FRAMES,
    ROW_BYTES,
    seek_footer,
    seek_header,
    seek_rows,
    seek_table_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.manifest import Page

GATHERED_BYTES: Final = PACK_BYTES
"""So many bytes of frames that lie scattered are put together, pack by pack, and given out."""

AHEAD_PACKS: Final = 24
"""With fewer to come of a page, those of the next one are announced, too."""

_MOST_AHEAD: Final = 4 * AHEAD_PACKS
"""So many packs are announced at once: a page of one large file has any number."""

_STEP_PACKS: Final = 8
"""So often the store is told what is to come."""

type Stretch = tuple[int, int, int]
"""``(pack number, offset, length)`` of bytes that lie together."""


class ExportPlan:
    """Where each byte of the ``.tar.zst`` of a snapshot comes from. May be used by several threads.

    ``size`` is that of the file in bytes. Making a plan reads nothing.
    """

    def __init__(self, reader: SnapshotReader, *, is_ours: bool = False) -> None:
        """The plan for the snapshot that ``reader`` has opened.

        Unless it ``is_ours``, made by a worker, every frame is compared with the manifest before
        it is given out: a stranger's tar might hold other members.
        """
        root = reader.root
        self._is_ours = is_ours
        self._reader = reader
        self._page_starts = list(accumulate(root.columns.stored_bytes, initial=0))
        self._frames = root.frames + 1
        self._end_start = self._page_starts[-1]
        self._table_start = self._end_start + len(END_FRAME)
        table_size = seek_table_size(self._frames) if self._frames <= MAX_FRAMES else 0
        self.size = self._table_start + table_size

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes ``start`` to ``stop`` (by default the end), in pieces of at most a pack.

        The range is clipped to the file. The packs they come from have been compared with their
        digests. Raises CorruptError, naming the pack, where one is missing or damaged, and where
        the tar says something else than the manifest.
        """
        return map(_joined, self.parts(start, stop))

    def parts(self, start: int = 0, stop: int | None = None) -> Iterator[Sequence[memoryview]]:
        """The same, each piece as the parts of it: who writes them need not put them together.

        Raises as ``read``.
        """
        start, stop = max(start, 0), self.size if stop is None else min(stop, self.size)
        if start < self._end_start:
            yield from self._data(start, min(stop, self._end_start))
        for piece in _clipped(END_FRAME, self._end_start, start, stop):
            yield [piece]
        if stop > self._table_start:
            for piece in self._table(start, stop):
                yield [piece]

    def _data(self, start: int, stop: int) -> Iterator[Sequence[memoryview]]:
        if start >= stop:
            return
        first = bisect_right(self._page_starts, start) - 1
        last = bisect_right(self._page_starts, stop - 1)
        for number in range(first, last):
            begin = self._page_starts[number]
            table = self._reader.frame_table(number)
            self._reader.prefetch_page(number + 1)
            following = number + 1 if number + 1 < last else None
            page = None if self._is_ours else self._reader.page(number)
            yield from self._page_data(page, table, following, start - begin, stop - begin)

    def _page_data(
        self,
        page: Page | None,
        table: FrameTable,
        following: int | None,
        start: int,
        stop: int,
    ) -> Iterator[Sequence[memoryview]]:
        """The stored frames of one page, of which ``start`` to ``stop`` are wanted, clipped.

        With a ``page`` they are compared with it.
        """
        begins = list(accumulate(table.stored_sizes, initial=0))
        position = max(start, 0)
        frame = bisect_right(begins, position) - 1
        stretches = _stretches(table, begins, position, min(stop, begins[-1]))
        packs = split_digests(table.packs)
        coming = _Coming(self._reader, [packs[number] for number, _, _ in stretches], following)
        for group in _groups(stretches):
            position += sum([length for _, _, length in group])
            while page is not None and begins[frame] < position:
                coming.reach(packs[table.pack_numbers[frame]])
                check_headers(self._reader, page, frame, self._reader.fresh_frame(table[frame]))
                frame += 1
            yield self._gathered(packs, group, coming)

    def _gathered(
        self, packs: Sequence[bytes], group: Sequence[Stretch], coming: _Coming
    ) -> Sequence[memoryview]:
        """The bytes of ``group`` in order, all that are in one pack cut out of it at once."""
        turns: dict[int, list[int]] = {}
        for turn, (number, _, _) in enumerate(group):
            turns.setdefault(number, []).append(turn)
        pieces = [memoryview(b"")] * len(group)
        for number, wanted in turns.items():
            coming.reach(packs[number])
            cuts = self._reader.cuts(packs[number], [group[turn][1:] for turn in wanted])
            for turn, data in zip(wanted, cuts, strict=True):
                pieces[turn] = data
        return pieces

    def _table(self, start: int, stop: int) -> Iterator[memoryview]:
        """The seek table, of which ``start`` to ``stop`` of the file are wanted, clipped.

        Made page by page: that of a terabyte has some millions of rows.
        """
        position = self._table_start
        header = seek_header(self._frames)
        yield from _clipped(header, position, start, stop)
        position += len(header)
        for number, frames in enumerate(self._reader.root.columns.frames):
            end = position + frames * ROW_BYTES
            if start < end and position < stop:
                table = self._reader.frame_table(number)
                rows = seek_rows(zip(table.stored_sizes, table.raw_sizes, strict=True))
                yield from _clipped(rows, position, start, stop)
            position = end
        tail = seek_rows([(len(END_FRAME), len(END_OF_ARCHIVE))]) + seek_footer(self._frames)
        yield from _clipped(tail, position, start, stop)


class _Coming:
    """Announces the packs of a page that are not at hand, then those of the next one.

    However small they are, the store has as many bytes ready as it has room for.
    """

    def __init__(
        self, reader: SnapshotReader, packs: Iterable[bytes], following: int | None
    ) -> None:
        """``packs`` come in this order, and behind them those of the page ``following``."""
        self._reader = reader
        self._packs = [pack for pack in dict.fromkeys(packs) if not reader.holds(pack)]
        self._turns = {pack: turn for turn, pack in enumerate(self._packs)}
        self._following = following
        self._announce(0)

    def reach(self, pack: bytes) -> None:
        """``pack`` is needed now."""
        turn = self._turns.get(pack, 0)
        if turn >= self._due:
            self._announce(turn)

    def _announce(self, turn: int) -> None:
        self._due = turn + _STEP_PACKS
        ahead = self._packs[turn : turn + _MOST_AHEAD]
        if len(ahead) < AHEAD_PACKS and self._following is not None:
            left = _MOST_AHEAD - len(ahead)
            packs = self._reader.frame_table(self._following).packs
            ahead += split_digests(packs[: left * DIGEST_BYTES])
        self._reader.prefetch(ahead)


def _stretches(table: FrameTable, begins: Sequence[int], start: int, stop: int) -> list[Stretch]:
    """Where the bytes ``start`` to ``stop`` of the frames of ``table`` lie.

    ``begins`` says where each frame begins among them. Frames that follow each other in one pack,
    as they nearly always do, are one stretch.
    """
    found: list[Stretch] = []
    for number in range(bisect_right(begins, start) - 1, bisect_left(begins, stop)):
        skip = max(start - begins[number], 0)
        size = min(begins[number + 1], stop) - begins[number] - skip
        pack, offset = table.pack_numbers[number], table.offsets[number] + skip
        if found and found[-1][0] == pack and sum(found[-1][1:]) == offset:
            found[-1] = (pack, found[-1][1], found[-1][2] + size)
        else:
            found.append((pack, offset, size))
    return found


def _groups(stretches: Iterable[Stretch]) -> Iterator[list[Stretch]]:
    """Those that are given out at once: up to ``GATHERED_BYTES``, or one that is longer."""
    group: list[Stretch] = []
    size = 0
    for stretch in stretches:
        if group and size + stretch[2] > GATHERED_BYTES:
            yield group
            group, size = [], 0
        group.append(stretch)
        size += stretch[2]
    if group:
        yield group


def _joined(parts: Sequence[memoryview]) -> memoryview:
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _clipped(data: bytes, position: int, start: int, stop: int) -> Iterator[memoryview]:
    """The part of ``data``, which stands at ``position`` of the file, in ``start`` to ``stop``."""
    piece = memoryview(data)[max(start - position, 0) : max(stop - position, 0)]
    if piece:
        yield piece
