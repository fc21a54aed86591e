"""A snapshot as a plain ``.tar.zst``: the stored frames one after the other, never recompressed.

The file is every frame of every page, the frame of the end-of-archive blocks, and a seek table
(zstd's seekable format), which other readers skip. Its size is known from the root, and any range
of it is read without what lies before, so it can be served by offset, by any worker, for ever the
same.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from holdfast.archive.read.headers import check_headers
from holdfast.archive.read.snapshot import PREFETCH_PACKS
from holdfast.form.frame_table import split_digests
from holdfast.form.frames import END_FRAME, END_OF_ARCHIVE
from holdfast.form.seek_table import (
    MAX_FRAMES,
    ROW_BYTES,
    seek_footer,
    seek_header,
    seek_rows,
    seek_table_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.frame_table import FrameTable
    from holdfast.form.manifest import Page


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
        self._page_starts = list(accumulate(root.stored_sizes, initial=0))
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
        start, stop = max(start, 0), self.size if stop is None else min(stop, self.size)
        if start < self._end_start:
            yield from self._data(start, min(stop, self._end_start))
        yield from _clipped(END_FRAME, self._end_start, start, stop)
        if stop > self._table_start:
            yield from self._table(start, stop)

    def _data(self, start: int, stop: int) -> Iterator[memoryview]:
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
    ) -> Iterator[memoryview]:
        """The stored frames of one page, of which ``start`` to ``stop`` are wanted, clipped.

        With a ``page`` they are compared with it.
        """
        begins = list(accumulate(table.stored_sizes, initial=0))
        first = at = bisect_right(begins, max(start, 0)) - 1
        stretches = _stretches(
            table.pack_numbers, table.offsets, table.stored_sizes, first, begins, stop
        )
        packs = split_digests(table.packs)
        coming = list(dict.fromkeys(pack_number for pack_number, _, _ in stretches))
        turns = {pack_number: turn for turn, pack_number in enumerate(coming)}
        announced = 0
        position = begins[first]
        for pack_number, offset, length in stretches:
            turn = turns[pack_number]
            if turn + PREFETCH_PACKS // 2 >= announced and announced <= len(coming):
                ahead = [packs[number] for number in coming[announced : turn + PREFETCH_PACKS]]
                self._announce(ahead, turn + PREFETCH_PACKS - len(coming), following)
                announced = turn + PREFETCH_PACKS
            while page is not None and begins[at] < position + length:
                check_headers(self._reader, page, at, self._reader.fresh_frame(table[at]))
                at += 1
            data = self._reader.cut(packs[pack_number], offset, length)
            yield data[max(start - position, 0) : max(stop - position, 0)]
            position += length

    def _announce(self, ahead: Sequence[bytes], more: int, following: int | None) -> None:
        """Tell the store which packs come next, and ``more`` of the page ``following``."""
        wanted = list(ahead)
        if more > 0 and following is not None:
            wanted += split_digests(self._reader.frame_table(following).packs)[:more]
        self._reader.prefetch(wanted)

    def _table(self, start: int, stop: int) -> Iterator[memoryview]:
        """The seek table, of which ``start`` to ``stop`` of the file are wanted, clipped.

        Made page by page: that of a terabyte has some millions of rows.
        """
        position = self._table_start
        header = seek_header(self._frames)
        yield from _clipped(header, position, start, stop)
        position += len(header)
        for number, frames in enumerate(self._reader.root.frame_counts):
            end = position + frames * ROW_BYTES
            if start < end and position < stop:
                table = self._reader.frame_table(number)
                rows = seek_rows(zip(table.stored_sizes, table.raw_sizes, strict=True))
                yield from _clipped(rows, position, start, stop)
            position = end
        tail = seek_rows([(len(END_FRAME), len(END_OF_ARCHIVE))]) + seek_footer(self._frames)
        yield from _clipped(tail, position, start, stop)


def _stretches(
    pack_numbers: Sequence[int],
    offsets: Sequence[int],
    sizes: Sequence[int],
    first: int,
    begins: Sequence[int],
    stop: int,
) -> list[tuple[int, int, int]]:
    """``(pack number, offset, length)`` of the frames from ``first`` on that begin before ``stop``.

    Frames that follow each other in one pack, as they nearly always do, are one stretch.
    """
    found: list[tuple[int, int, int]] = []
    for number in range(first, len(sizes)):
        if begins[number] >= stop:
            break
        pack, offset, size = pack_numbers[number], offsets[number], sizes[number]
        if found and found[-1][0] == pack and found[-1][1] + found[-1][2] == offset:
            _, begin, length = found[-1]
            found[-1] = (pack, begin, length + size)
        else:
            found.append((pack, offset, size))
    return found


def _clipped(data: bytes, position: int, start: int, stop: int) -> Iterator[memoryview]:
    """What of ``data``, which stands at ``position`` of the file, lies in ``start`` to ``stop``."""
    piece = memoryview(data)[max(start - position, 0) : max(stop - position, 0)]
    if piece:
        yield piece
