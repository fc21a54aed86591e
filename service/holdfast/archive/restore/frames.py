"""The tar bytes of one page, read forward frame by frame, for a thread that writes its files.

A thread decompresses and checks its own frames, just before it writes them: with as many threads
as cores nothing is gained by handing them over. Only the frames of large files are taken ahead by
others, because a tree may be one large file.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from typing import TYPE_CHECKING, Final

from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor, Future

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.manifest import Page

AHEAD_FRAMES: Final = 4
"""Of a large file; each at most ``MAX_FRAME_BYTES``."""

ANNOUNCED_PACKS: Final = 12
"""Packs that the store is asked to have ready."""


class PageFrames:
    """The bytes of ``page``. Used by one thread, for positions that do not fall."""

    def __init__(
        self, snapshot: SnapshotReader, page: Page, packs: Sequence[bytes], ahead: Executor
    ) -> None:
        """``packs`` are those that will be needed, in order."""
        self._snapshot = snapshot
        self._page = page
        self._packs = packs
        self._positions = {pack: position for position, pack in enumerate(packs)}
        self._announced = 0
        self._ahead = ahead
        self._starts = page.frame_starts
        self._view = memoryview(b"")
        self._begin = self._end = 0

    def whole(self, start: int, stop: int, path: bytes) -> memoryview | None:
        """The bytes ``start`` to ``stop`` if they lie in one frame, otherwise None."""
        if not self._begin <= start < self._end:
            number = bisect_right(self._starts, start) - 1
            if stop > self._starts[number + 1]:
                return None
            self._keep(number, self._load(number, path))
        if stop > self._end:
            return None
        return self._view[start - self._begin : stop - self._begin]

    def pieces(self, start: int, stop: int, path: bytes) -> Iterator[memoryview]:
        """The bytes ``start`` to ``stop`` in order, none of them empty."""
        first = bisect_right(self._starts, start) - 1
        last = bisect_left(self._starts, stop)
        coming: deque[Future[bytes]] = deque()
        asked = first
        try:
            for number in range(first, last):
                while asked < last and len(coming) < AHEAD_FRAMES:
                    coming.append(self._ahead.submit(self._load, asked, path))
                    asked += 1
                begin = self._starts[number]
                view = memoryview(coming.popleft().result())
                yield view[max(start - begin, 0) : stop - begin]
        finally:
            for future in coming:
                future.cancel()

    def _load(self, number: int, path: bytes) -> bytes:
        ref = self._page.frame(number)
        self._announce(ref.pack)
        return self._snapshot.fresh_frame(ref, path=path)

    def _keep(self, number: int, raw: bytes) -> None:
        self._view = memoryview(raw)
        self._begin = self._starts[number]
        self._end = self._begin + len(raw)

    def _announce(self, pack: bytes) -> None:
        position = self._positions.get(pack, 0)
        if position + ANNOUNCED_PACKS // 2 < self._announced or self._announced >= len(self._packs):
            return
        last = position + ANNOUNCED_PACKS
        self._snapshot.prefetch(self._packs[max(self._announced, position) : last])
        self._announced = last


def needed_packs(page: Page, indices: Sequence[int]) -> list[bytes]:
    """The packs with the data of the entries ``indices`` of ``page``, in order, each once."""
    table = page.frames
    if len(indices) == page.entry_count:
        numbers: dict[int, None] = dict.fromkeys(table.pack_numbers)
    else:
        numbers = {}
        for index in indices:
            if page.kinds[index] == Kind.FILE and page.data_sizes[index]:
                start = page.starts[index] + page.header_sizes[index]
                first = bisect_right(page.frame_starts, start) - 1
                last = bisect_left(page.frame_starts, start + page.data_sizes[index])
                numbers.update(dict.fromkeys(table.pack_numbers[first:last]))
    return [table.packs[number * 32 : number * 32 + 32] for number in numbers]
