"""The changes from one snapshot to another, in path order.

Pages that both have are skipped without being read, so comparing two days of a large app costs
what changed. Contents are compared by the digests of their frames; only of small files that share
a frame with others are the bytes themselves looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.ports import Stop, never_stop
from holdfast.form.entries import Entry, Kind, order_key
from holdfast.form.layout import has_own_frame

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.manifest import Page
    from holdfast.form.terms import ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PathChange:
    """One path that is not the same in both. ``before`` is None if added, ``after`` if removed.

    ``metadata``: only mode, owner, time or attributes.
    """

    path: bytes
    change: ChangeKind
    before: Entry | None = None
    after: Entry | None = None


def diff(
    before: SnapshotReader,
    after: SnapshotReader,
    *,
    behind: bytes | None = None,
    stop: Stop = never_stop,
) -> Generator[PathChange, None, bytes | None]:
    """Every path that differs, in path order; only those behind the path ``behind``, if given.

    It ends early, not before one path was compared, when ``stop`` says so, and returns the last
    path it came to, which a later call may go on behind; None when all was compared.

    Changed content of a file with several hard links is told once, at its first path. A
    sparse file whose holes moved counts as changed content. Raises CorruptError.
    """
    left, right = _Cursor(before), _Cursor(after)
    if behind is not None:
        left.skip_to_behind(behind)
        right.skip_to_behind(behind)
    while True:
        if left.at_same_page(right):
            left.next_page()
            right.next_page()
            continue
        left_key, right_key = left.key(), right.key()
        if left_key is None and right_key is None:
            return None
        if right_key is None or (left_key is not None and left_key < right_key):
            entry = left.take()
            yield PathChange(path=entry.path, change="removed", before=entry)
        elif left_key is None or right_key < left_key:
            entry = right.take()
            yield PathChange(path=entry.path, change="added", after=entry)
        else:
            yield from _compared(left, right)
            entry = left.take()
            right.take()
        if stop():
            return entry.path


class _Cursor:
    """A position among the entries of a snapshot, which reads a page only when it must."""

    def __init__(self, reader: SnapshotReader) -> None:
        self.reader = reader
        self.number = 0
        self.index = 0

    def skip_to_behind(self, path: bytes) -> None:
        """Go to the first entry behind ``path``."""
        for located in self.reader.entries(after=path):
            self.number, self.index = located.page_no, located.index
            return
        self.number, self.index = self.reader.page_count, 0

    def at_same_page(self, other: _Cursor) -> bool:
        """Whether both are at the start of pages that are the same, hence all their entries."""
        if self.index or other.index or self.at_end() or other.at_end():
            return False
        mine = self.reader.root.page_frames(self.number)
        others = other.reader.root.page_frames(other.number)
        return [frame.digest for frame in mine] == [frame.digest for frame in others]

    def at_end(self) -> bool:
        """Whether there is no entry left."""
        return self.number == self.reader.page_count

    def key(self) -> bytes | None:
        """The order key of the entry here; None at the end."""
        if self.at_end():
            return None
        if self.index == 0:
            return self.reader.root.keys[self.number]
        return order_key(self.page().paths[self.index])

    def page(self) -> Page:
        """The page of the entry here."""
        return self.reader.page(self.number)

    def entry(self) -> Entry:
        """The entry here."""
        return self.page().entry(self.index)

    def take(self) -> Entry:
        """The entry here; go on to the next one."""
        page = self.page()
        if self.index == 0:
            self.reader.prefetch_page(self.number + 1)
        entry = page.entry(self.index)
        self.index += 1
        if self.index == page.entry_count:
            self.next_page()
        return entry

    def next_page(self) -> None:
        """Go on to the start of the next page."""
        self.number, self.index = self.number + 1, 0


_CONTENT: Final = ("kind", "size", "target", "segments")
_METADATA: Final = ("mode", "uid", "gid", "mtime_ns", "xattrs")


def _compared(left: _Cursor, right: _Cursor) -> Iterator[PathChange]:
    before, after = left.entry(), right.entry()
    if any(getattr(before, name) != getattr(after, name) for name in _CONTENT) or not (
        before.kind != Kind.FILE or _same_content(left, right)
    ):
        change: ChangeKind = "modified"
    elif any(getattr(before, name) != getattr(after, name) for name in _METADATA):
        change = "metadata"
    else:
        return
    yield PathChange(path=before.path, change=change, before=before, after=after)


def _same_content(left: _Cursor, right: _Cursor) -> bool:
    """Whether two files of one size, with the same holes, have the same bytes."""
    stored = left.page().data_sizes[left.index]
    if not stored:
        return True
    first, offset = left.page().data_at(left.index)
    other_first, other_offset = right.page().data_at(right.index)
    mine = _data_frames(left.page(), left.index, first)
    others = _data_frames(right.page(), right.index, other_first)
    if offset == other_offset and mine == others:
        return True
    if has_own_frame(stored):
        # The frames hold nothing else and are cut by content: other digests are other bytes.
        return False
    return _bytes_of(left) == _bytes_of(right)


def _data_frames(page: Page, index: int, first: int) -> list[bytes]:
    """The digests of the frames in which a file's data lies."""
    end = page.starts[index + 1]
    found = []
    number = first
    while number < page.frame_count and page.frame_starts[number] < end:
        found.append(page.frame(number).digest)
        number += 1
    return found


def _bytes_of(cursor: _Cursor) -> bytes:
    """The stored data of a file in a run: less than 16 KiB."""
    return b"".join(cursor.reader.tar_data(cursor.number, cursor.index))
