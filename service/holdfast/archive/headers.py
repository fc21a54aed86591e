"""Do the headers in a snapshot's tar say what its manifest says?

What is listed, read and restored comes from the manifest; what is exported is the tar. A client
writes both, so they are compared: an export must not unpack to anything that the manifest does
not show. Headers of an older version may be written in another way, so what they mean is compared.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

from holdfast.archive import tar_members
from holdfast.archive.paths import path_text
from holdfast.archive.tar_members import TarFile, member_at
from holdfast.domain.entries import Kind
from holdfast.domain.tar_header import member_header
from holdfast.errors import CorruptError, InvalidError, TooLargeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.archive.snapshot import SnapshotReader
    from holdfast.archive.tar_members import Member
    from holdfast.domain.entries import Entry
    from holdfast.domain.manifest import Page

_SECOND_NS: Final = 1_000_000_000
_TYPES: Final = {
    Kind.FILE: tar_members.FILE,
    Kind.DIRECTORY: tar_members.DIRECTORY,
    Kind.SYMLINK: tar_members.SYMLINK,
    Kind.HARDLINK: tar_members.LINK,
}


def headers_in(page: Page, frame: int) -> Sequence[int]:
    """The members of ``page`` whose headers begin in its frame ``frame``."""
    starts, frames = page.starts, page.frame_starts
    first = bisect_left(starts, frames[frame])
    return range(first, min(bisect_left(starts, frames[frame + 1]), page.entry_count))


def check_headers(reader: SnapshotReader, page: Page, frame: int, raw: bytes) -> None:
    """Raises CorruptError unless the headers that begin in a frame are those of their members.

    ``raw`` are the bytes of frame ``frame`` of ``page``.
    """
    content = _PageBytes(reader, page, frame, raw)
    for index in headers_in(page, frame):
        entry = page.entry(index)
        tar = _MemberTar(content, page.starts[index], page.starts[index + 1])
        if tar.read(0, page.header_sizes[index]) != member_header(entry) and not _means(tar, entry):
            msg = f"the tar has another member than {path_text(entry.path)!r} in its place"
            raise CorruptError(msg)


class _PageBytes:
    """The tar bytes of a page; the frame that was used last is kept."""

    def __init__(self, reader: SnapshotReader, page: Page, frame: int, raw: bytes) -> None:
        self._reader = reader
        self._page = page
        self._frame, self._raw = frame, raw

    def read(self, start: int, stop: int) -> bytes:
        starts = self._page.frame_starts
        found: list[bytes] = []
        number = bisect_right(starts, start) - 1
        while start < stop:
            if number != self._frame:
                self._frame = number
                self._raw = self._reader.fresh_frame(self._page.frame(number))
            piece = self._raw[start - starts[number] : stop - starts[number]]
            found.append(piece)
            start += len(piece)
            number += 1
        return b"".join(found)


class _MemberTar(TarFile):
    """One member of a snapshot's tar: its header, its data and the padding."""

    def __init__(self, content: _PageBytes, start: int, stop: int) -> None:
        super().__init__(-1, stop - start)
        self._content = content
        self._start = start

    def read(self, position: int, length: int) -> bytes:
        if position + length > self.size:
            msg = "the header goes on beyond its member"
            raise InvalidError(msg)
        return self._content.read(self._start + position, self._start + position + length)


def _means(tar: TarFile, entry: Entry) -> bool:
    """Whether the member that ``tar`` consists of is ``entry``, and says nothing of others."""
    for_others: dict[bytes, bytes] = {}
    try:
        found = member_at(tar, 0, for_others)
    except (InvalidError, TooLargeError):
        return False
    return found is not None and found[1] == tar.size and not for_others and _is(found[0], entry)


def _is(member: Member, entry: Entry) -> bool:
    name = entry.path or b"."
    names = {name + b"/"} if entry.kind is Kind.DIRECTORY else {name}
    return (
        member.name in names
        and member.type == _TYPES[entry.kind]
        and member.target == (entry.target if entry.kind >= Kind.SYMLINK else member.target)
        and (member.size, member.segments) == (entry.size, entry.segments)
        and (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
        and member.mtime_ns // _SECOND_NS == entry.mtime_ns // _SECOND_NS
        and set(member.xattrs) <= set(entry.xattrs)
    )
