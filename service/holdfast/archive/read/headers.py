"""Do the headers in a snapshot's tar say what its manifest says?

Lists, reads and restores come from the manifest; an export is the tar. A client
writes both, so they are compared: an export must not unpack to anything that the manifest does
not show. Only the bytes that holdfast itself writes will do: readers of tar disagree about headers
that say a thing twice, and some know records that others pass over.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from holdfast.archive.paths import path_text
from holdfast.errors import CorruptError
from holdfast.form.sparse import sparse_map
from holdfast.form.tar_header import former_header, member_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.manifest import Page


def headers_in(page: Page, frame: int) -> Sequence[int]:
    """The members of ``page`` whose headers begin in its frame ``frame``."""
    starts, frames = page.starts, page.frame_starts
    first = bisect_left(starts, frames[frame])
    return range(first, min(bisect_left(starts, frames[frame + 1]), page.entry_count))


def check_headers(reader: SnapshotReader, page: Page, frame: int, raw: bytes) -> None:
    """Raises CorruptError unless the headers that begin in a frame are those of their members.

    The map of a sparse member counts as part of its header. ``raw`` are the bytes of frame
    ``frame`` of ``page``.
    """
    content = _PageBytes(reader, page, frame, raw)
    for index in headers_in(page, frame):
        entry = page.entry(index)
        begin, stop = page.starts[index], page.starts[index + 1]
        data = begin + page.header_sizes[index]
        header = content.read(begin, data)
        is_right = header == member_header(entry) or header == former_header(entry)
        if is_right and entry.segments is not None:
            expected = sparse_map(entry.segments, entry.size)
            is_right = content.read(data, min(data + len(expected), stop)) == expected
        if not is_right:
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
