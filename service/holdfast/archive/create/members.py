"""The members of one changed page, and how they become runs and frames.

Runs are planned one at a time, just before they are read, because reading tells what the walk
could not: what has vanished is taken out and the run planned again, so no header is ever written
for something that is not there.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.archive.create.content import cut_blocks, stored_blocks
from holdfast.archive.create.frame_pool import MAX_POOL_FILE_BYTES, FileData, RawFrame
from holdfast.archive.create.parent import data_frames, run_frame
from holdfast.archive.troubles import changed
from holdfast.errors import InternalError
from holdfast.form.columns import MAX_PAGE_SEGMENTS, Segments
from holdfast.form.entries import Entry, stored_bytes
from holdfast.form.layout import OWN_FRAME_BYTES, plan_run
from holdfast.form.sparse import padding
from holdfast.form.tar_header import member_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.archive.create.links import Links
    from holdfast.archive.create.shelf import Frame
    from holdfast.archive.ports import EntrySource, FileReader, Scanned, Warn
    from holdfast.form.frame_table import FrameRef
    from holdfast.form.manifest import Page


@dataclass(slots=True, eq=False)
class PageMember:
    """One entry of the page.

    ``page`` and ``index`` are its place in the parent, as long as it counts as unchanged.
    ``header_size`` is 0 until the member is described. ``content`` is its data in the run, for
    members whose data lies there; ``file`` tells what became of another one's.
    """

    scanned: Scanned
    page: Page | None = None
    index: int = 0
    header_size: int = 0
    data_size: int = 0
    entry: Entry | None = None
    header: bytes = b""
    content: bytes = b""
    file: FileData | None = None
    settled: bool = True

    @classmethod
    def placed(cls, scanned: Scanned, place: tuple[Page, int] | None) -> PageMember:
        """The member that is at ``place`` in the parent, unless that is None."""
        if place is None:
            return cls(scanned)
        page, index = place
        return cls(scanned, page, index, page.header_sizes[index], page.data_sizes[index])

    def known_entry(self) -> Entry:
        """The entry as it was described, or as the parent has it."""
        page, index, scanned = self.page, self.index, self.scanned
        if self.entry is None and page is not None:
            self.entry = Entry(
                path=scanned.path,
                kind=scanned.kind,
                mode=scanned.mode,
                uid=scanned.uid,
                gid=scanned.gid,
                size=page.sizes[index],
                mtime_ns=scanned.mtime_ns,
                target=page.targets.get(index, b""),
                xattrs=page.xattrs.get(index, ()),
                segments=page.segments.get(index),
            )
        if self.entry is None:
            raise InternalError("a member has neither a place nor a description")
        return self.entry


class PageMembers:
    """Turns the members of a page into frames, in order: first ``read``, later ``finish``."""

    def __init__(
        self,
        members: list[PageMember],
        source: EntrySource,
        links: Links,
        add: Callable[[RawFrame | FileData], None],
        warn: Warn,
    ) -> None:
        """``add`` takes each new frame, and each file to be read elsewhere; it may wait."""
        self.members = members
        self.frames: list[Frame | FrameRef | FileData] = []
        self.is_complete = True
        self._source = source
        self._links = links
        self._add = add
        self._warn = warn
        self._segments = sum(map(_segment_count, members))

    def read(self) -> None:
        """Describe and read what must be, and add the frames of all members."""
        streaks = _streaks(self.members)
        start = 0
        while start < len(self.members):
            if self.is_complete:  # otherwise the streaks are not those of these members
                unchanged = self._take_over(start, streaks[start])
                if unchanged:
                    start += unchanged
                    continue
            count, raw_size = plan_run(self._described(start))
            if count and self._add_run(start, start + count, raw_size):
                start += count

    def _take_over(self, start: int, streak: int) -> int:
        """Take the parent's run that begins with member ``start``, and return its length.

        ``streak`` members from there on are unchanged and follow each other in the parent as they
        do here. 0 if the run is to be planned. The result is that of planning, which would decide
        just as it did for the parent, but costs nothing for each member.
        """
        page, first = self.members[start].page, self.members[start].index
        if page is None:
            return 0
        number = page.header_frame(first)
        if page.frame_starts[number] != page.starts[first]:
            return 0
        last = bisect_left(page.starts, page.frame_starts[number + 1], first) - 1
        count = last + 1 - first
        is_large = page.data_sizes[last] >= OWN_FRAME_BYTES
        is_end = start + count == len(self.members) and last + 1 == page.entry_count
        if streak < count or (streak == count and not is_large and not is_end):
            return 0  # where the run ends depends on the member that follows
        self.frames.append(page.frame(number))
        if is_large:
            self.frames += data_frames(page, last)
        return count

    def _described(self, start: int) -> Iterator[tuple[bytes, int, int]]:
        """Path and sizes of the members from ``start`` on; each is looked at when it is due.

        Those that are not there any more are taken out of the page.
        """
        index = start
        while index < len(self.members):
            member = self.members[index]
            if member.header_size or self._describe(index):
                yield member.scanned.path, member.header_size, member.data_size
                index += 1

    def _describe(self, index: int) -> bool:
        """Look at a member that has changed; False if it was taken out of the page instead."""
        member = self.members[index]
        scanned = member.scanned
        described = self._source.describe(scanned, OWN_FRAME_BYTES - 1, self._warn)
        if described is None:
            self._drop(index)
            return False
        segments = self._kept_segments(member, described.segments)
        member.page = None
        member.entry = entry = Entry(
            path=scanned.path,
            kind=scanned.kind,
            mode=scanned.mode,
            uid=scanned.uid,
            gid=scanned.gid,
            size=described.size,
            mtime_ns=described.mtime_ns,
            target=scanned.link or described.target,
            xattrs=described.xattrs,
            segments=segments,
        )
        member.header = member_header(entry)
        member.header_size = len(member.header)
        member.data_size = stored_bytes(entry)
        member.settled = described.settled
        if segments is None and described.content is not None:
            member.content = described.content
            return True
        return self._read_small(index)

    def _kept_segments(self, member: PageMember, segments: Segments | None) -> Segments | None:
        """``segments``, or None if the page has no room for them: the file is a plain one then."""
        others = self._segments - _segment_count(member)
        if segments is not None and others + len(segments) > MAX_PAGE_SEGMENTS:
            segments = None
        self._segments = others + len(segments or ())
        return segments

    def _read_small(self, index: int) -> bool:
        """Read the data of a member that lies in its run and did not come with the description."""
        member = self.members[index]
        if not 0 < member.data_size < OWN_FRAME_BYTES:
            return True
        entry = member.known_entry()
        reader = self._source.open(member.scanned, entry.size, self._warn)
        if reader is None:
            self._drop(index)
            return False
        member.content = b"".join(stored_blocks(reader, entry.size, entry.segments))
        self._note_changes(member, is_settled=reader.close())
        return True

    def _drop(self, index: int) -> None:
        """Take a member out, and let the next name of its file be the one with the content."""
        self.is_complete = False
        self._links.forget(self.members.pop(index).scanned)
        for at in range(index, len(self.members)):
            scanned = self.members[at].scanned
            resolved = self._links.resolve(scanned)
            if resolved is not scanned:
                self.members[at] = PageMember(resolved)

    def _add_run(self, start: int, stop: int, raw_size: int) -> bool:
        """Add the frames of a run, and of the large file that ends it; False: plan it again."""
        same = self._same_run(start, stop, raw_size)
        if same is None and not self._load_run(start, stop):
            return False
        last = self.members[stop - 1]
        if last.data_size < OWN_FRAME_BYTES:
            self._add_header_frame(start, stop, same)
            return True
        if last.page is not None:
            data = data_frames(last.page, last.index)
            self._add_header_frame(start, stop, same)
            self.frames += data
            return True
        reader = self._source.open(last.scanned, last.known_entry().size, self._warn)
        if reader is None:
            self._drop(stop - 1)
            return False
        try:
            self._add_header_frame(start, stop, same)
        except BaseException:
            reader.close()
            raise
        self._add_file(last, reader)
        return True

    def _add_file(self, member: PageMember, reader: FileReader) -> None:
        entry = member.known_entry()
        if member.data_size <= MAX_POOL_FILE_BYTES:
            member.file = FileData(reader, entry.size, entry.segments, member.data_size)
            self.frames.append(member.file)
            self._add(member.file)
            return
        is_settled = False
        try:
            blocks = stored_blocks(reader, entry.size, entry.segments)
            for raw in cut_blocks(blocks, member.data_size):
                self._add_frame(raw)
        finally:
            is_settled = reader.close()
        self._note_changes(member, is_settled=is_settled)

    def _note_changes(self, member: PageMember, *, is_settled: bool) -> None:
        if not is_settled and member.settled:
            self._warn(changed(member.scanned.path))
            member.settled = False

    def finish(self) -> list[Frame | FrameRef]:
        """All frames of the page, when those that were added have been hashed."""
        for member in self.members:
            if member.file is not None:
                self._note_changes(member, is_settled=member.file.settled)
        frames: list[Frame | FrameRef] = []
        for item in self.frames:
            if isinstance(item, FileData):
                frames += item.frames
            else:
                frames.append(item)
        return frames

    def _same_run(self, start: int, stop: int, raw_size: int) -> FrameRef | None:
        """The parent's frame of just these members, if they are all unchanged."""
        page, first = self.members[start].page, self.members[start].index
        if page is None:
            return None
        for index, member in enumerate(self.members[start:stop], first):
            if member.page is not page or member.index != index:
                return None
        return run_frame(page, first, raw_size)

    def _load_run(self, start: int, stop: int) -> bool:
        """Have header and content of all members at hand; False: one is not what was planned."""
        for index in range(start, stop):
            member = self.members[index]
            if member.page is None:
                continue
            if 0 < member.data_size < OWN_FRAME_BYTES:
                planned = member.header_size, member.data_size
                if not self._describe(index):
                    return False
                if (member.header_size, member.data_size) != planned:
                    return False
            else:
                member.header = member_header(member.known_entry())
                if len(member.header) != member.header_size:  # an older version wrote another
                    member.header_size = len(member.header)
                    return False
        return True

    def _add_header_frame(self, start: int, stop: int, same: FrameRef | None) -> None:
        if same is not None:
            self.frames.append(same)
            return
        parts = []
        for member in self.members[start:stop]:
            parts.append(member.header)
            if member.content:
                parts.append(member.content)
                parts.append(bytes(padding(len(member.content))))
                member.content = b""
        self._add_frame(b"".join(parts))

    def _add_frame(self, raw: bytes | memoryview) -> None:
        item = RawFrame(raw)
        self.frames.append(item.frame)
        self._add(item)


def _segment_count(member: PageMember) -> int:
    segments = None
    if member.page is not None:
        segments = member.page.segments.get(member.index)
    elif member.entry is not None:
        segments = member.entry.segments
    return len(segments or ())


def _streaks(members: Sequence[PageMember]) -> list[int]:
    """From each member on, the count of unchanged ones in a row in the parent's page."""
    streaks = [0] * len(members)
    page: Page | None = None
    expected = streak = 0
    for at in range(len(members) - 1, -1, -1):
        member = members[at]
        streak = streak + 1 if member.page is page and member.index == expected else 1
        page, expected = member.page, member.index - 1
        streaks[at] = streak if page is not None else 0
    return streaks
