"""The parts that a new snapshot takes over from the one before it.

Whole pages by their fingerprint, with nothing read; in a changed page every entry whose inode and
change time are what they were; and any frame of which the digest turns up again, wherever it was.
A parent that is damaged raises CorruptError: to archive without it is for the caller to decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.archive.read.snapshot import ReaderLimits, SnapshotReader
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError
from holdfast.form.entries import Kind, order_key
from holdfast.form.fingerprint import NEVER_EQUAL, SeenColumns
from holdfast.form.manifest import Page, StatPage, decode_frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.archive.create.shelf import KnownFrames
    from holdfast.archive.ports import PackStore, Scanned
    from holdfast.domain.digest import Digest
    from holdfast.form.frame_table import FrameRef
    from holdfast.form.root import PageRow

PREFETCH_PAGES: Final = 32
_LIMITS: Final = ReaderLimits(
    pack_cache_bytes=8 * MIB, frame_cache_bytes=0, page_cache_bytes=12 * MIB
)
_HARDLINK: Final = int(Kind.HARDLINK)


class Parent:
    """A snapshot that a new one builds on. Used by one thread."""

    def __init__(self, store: PackStore, root: Digest) -> None:
        """Read the root. Raises CorruptError."""
        self._reader = SnapshotReader(store, root, limits=_LIMITS)
        self._root = self._reader.root
        self._numbers = {
            fingerprint: number
            for number, fingerprint in enumerate(self._root.fingerprints)
            if fingerprint != NEVER_EQUAL
        }
        self._announced = 0

    def same_page(self, fingerprint: bytes) -> PageRow | None:
        """The page with this fingerprint: it can be taken over as it is."""
        number = self._numbers.get(fingerprint)
        return None if number is None else self._root.row(number)

    def remember_page_frames(self, known: KnownFrames) -> None:
        """Add the frames that hold the manifest's pages to ``known``."""
        known.add_table(self._root.pieces)

    def remember_frames(self, known: KnownFrames) -> None:
        """Add the frames of all pages to ``known``, as far as there is room."""
        for number in range(self._root.page_count):
            self._announce(number)
            parts = [self._reader.frame(ref) for ref in self._root.page_frames(number)]
            if not known.add_table(decode_frames(b"".join(parts))):
                break
        self._announced = 0

    def unchanged(
        self, columns: SeenColumns, entries: Sequence[Scanned]
    ) -> list[tuple[Page, int] | None]:
        """Per entry its place in the parent, if it is there and has not changed since."""
        found: list[tuple[Page, int] | None] = [None] * len(entries)
        rows = columns.rows()
        left = dict(zip(columns.paths, range(len(rows)), strict=True))
        first = self._root.page_of_path(columns.paths[0])
        last_key = order_key(columns.paths[-1])
        for number in range(first, self._root.page_count):
            if self._root.keys[number] > last_key:
                break
            self._announce(number)
            stat = self._reader.stat_page(number)
            if stat is None:
                continue
            page = self._reader.page(number)
            before = zip(page.paths, _rows_of(page, stat), strict=True)
            for index, (path, row) in enumerate(before):
                at = left.get(path)
                if at is None or rows[at] != row or not row[-1]:
                    continue
                if row[0] == _HARDLINK and page.targets[index] != entries[at].link:
                    continue
                found[at] = (page, index)
        return found

    def _announce(self, number: int) -> None:
        """Let the store fetch the pages from ``number`` on ahead of their use."""
        if number < self._announced:
            return
        self._announced = min(number + PREFETCH_PAGES, self._root.page_count)
        refs: list[FrameRef] = []
        for ahead in range(number, self._announced):
            refs += self._root.page_frames(ahead)
            refs += self._root.stat_frames(ahead)
        self._reader.prefetch([ref.pack for ref in refs])


def run_frame(page: Page, index: int, raw_size: int) -> FrameRef | None:
    """The frame of ``page`` that begins with the header of member ``index``, if of this size."""
    number = page.header_frame(index)
    if page.frame_starts[number] != page.starts[index]:
        return None
    return page.frame(number) if page.frames.raw_sizes[number] == raw_size else None


def data_frames(page: Page, index: int) -> list[FrameRef]:
    """The frames that hold the data of member ``index``, which lies outside of runs.

    Raises CorruptError when they hold something else, too.
    """
    number, offset = page.data_at(index)
    stop = page.starts[index + 1]
    frames = []
    while page.frame_starts[number] < stop:
        frames.append(page.frame(number))
        number += 1
    if offset or page.frame_starts[number] != stop:
        raise CorruptError("the parent snapshot was not cut as this version cuts")
    return frames


def _rows_of(page: Page, stat: StatPage) -> Iterable[tuple[int, ...]]:
    """Per entry what must be equal for it to be unchanged, as ``SeenColumns.rows`` has it."""
    return zip(
        page.kinds,
        page.modes,
        page.uids,
        page.gids,
        page.sizes,
        page.mtimes_ns,
        stat.inodes,
        stat.ctimes_ns,
        strict=True,
    )
