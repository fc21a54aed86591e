"""Writing the directories and files of a page: the part of a restore that must be fast.

A plain file costs four system calls: open, write, set times, close. Any other call is
decided from its mode and owner beforehand, once for all files that look the same.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.archive.chain import DirectoryChain
from holdfast.archive.directories import failure_of
from holdfast.archive.paths import path_text
from holdfast.archive.ports import Cancelled, Stop
from holdfast.archive.restore.frames import PageFrames, needed_packs
from holdfast.errors import CorruptError
from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from holdfast.archive.restore.metadata import Look
    from holdfast.archive.restore.place import Target
    from holdfast.form.manifest import Page

_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = int(Kind.FILE)
_DIRECTORY: Final = int(Kind.DIRECTORY)


class FileWriter:
    """Writes into the tree of ``target``. Used by one thread; close it.

    ``entries``, ``files`` and ``bytes`` count what has been written, ``data_bytes`` without holes;
    others may read them.
    """

    def __init__(self, target: Target, ahead: Executor, stop: Stop) -> None:
        """``ahead`` decompresses the frames of large files. ``stop`` is asked for each entry."""
        self._snapshot = target.snapshot
        self._place = target.place
        self._metadata = target.metadata()
        self._ahead = ahead
        self._stop = stop
        self._chain = DirectoryChain(target.fd, target.place.enter)
        self.entries = 0
        self.files = 0
        self.bytes = 0
        self.data_bytes = 0

    def write_page(self, page: Page, indices: Sequence[int]) -> None:
        """Make the directories and write the files among the entries ``indices``, ascending.

        Directories get their metadata later. Raises CorruptError, Cancelled, and what
        ``failure_of`` and the store do.
        """
        frames = PageFrames(self._snapshot, page, needed_packs(page, indices), self._ahead)
        for index in indices:
            if self._stop():
                raise Cancelled
            kind = page.kinds[index]
            path = page.paths[index]
            if kind == _FILE:
                self._write(page, index, frames, path)
            elif kind == _DIRECTORY and path:
                self._make_directory(path)
            self.entries += 1

    def write_copy(self, page: Page, index: int, path: bytes) -> None:
        """Write the file ``index`` of ``page`` at ``path``, wherever else it is."""
        frames = PageFrames(self._snapshot, page, needed_packs(page, [index]), self._ahead)
        self._write(page, index, frames, path)

    def close(self) -> None:
        """Close the directories that are open. May be repeated."""
        self._chain.close()

    def _make_directory(self, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        try:
            dir_fd = self._chain.at(parent)
            self._place.prepare(dir_fd, parent)
            self._place.make_directory(dir_fd, name)
        except OSError as error:
            raise failure_of(error, f"restoring {path_text(path)!r}") from error

    def _write(self, page: Page, index: int, frames: PageFrames, path: bytes) -> None:
        parent, _, name = path.rpartition(b"/")
        place = self._place
        look = self._metadata.look(page.modes[index], page.uids[index], page.gids[index], path)
        create_mode = look.create_mode
        if index in page.xattrs:
            create_mode |= stat.S_IWUSR  # they can only be set on what may be written
        try:
            dir_fd = self._chain.at(parent)
            place.prepare(dir_fd, parent)
            made = place.temporary or name
            fd = os.open(made, _FILE_FLAGS, create_mode, dir_fd=dir_fd)
            try:
                place.shed(fd)
                self._fill(fd, page, index, frames, look)
            except BaseException:
                os.close(fd)
                if place.temporary is not None:
                    with suppress(OSError):
                        os.unlink(made, dir_fd=dir_fd)
                raise
            os.close(fd)
            if place.temporary is not None:
                place.settle(dir_fd, name)
        except FileExistsError as error:
            raise CorruptError(f"{path_text(path)!r} is in the snapshot twice") from error
        except OSError as error:
            raise failure_of(error, f"restoring {path_text(path)!r}") from error
        self.files += 1

    def _fill(self, fd: int, page: Page, index: int, frames: PageFrames, look: Look) -> None:
        size = page.data_sizes[index]
        start = page.starts[index] + page.header_sizes[index]
        path = page.paths[index]
        segments = page.segments.get(index)
        if segments is not None:
            os.ftruncate(fd, page.sizes[index])
            start += size - sum([length for _, length in segments])
            for offset, length in segments:
                self._write_stretch(fd, offset, frames, start, start + length, path)
                start += length
        elif size:
            self._write_stretch(fd, 0, frames, start, start + size, path)
        self.bytes += page.sizes[index]
        self.data_bytes += size
        if look.ids is not None or look.mode is not None or index in page.xattrs:
            self._metadata.finish_file(fd, look, page, index)
        mtime_ns = page.mtimes_ns[index]
        os.utime(fd, ns=(mtime_ns, mtime_ns))

    def _write_stretch(
        self, fd: int, offset: int, frames: PageFrames, start: int, stop: int, path: bytes
    ) -> None:
        """Bytes ``start`` to ``stop`` of the page's tar to ``offset`` in the file."""
        view = frames.whole(start, stop, path)
        if view is not None:
            _write_all(fd, view, offset)
            return
        for piece in frames.pieces(start, stop, path):
            if self._stop():
                raise Cancelled
            _write_all(fd, piece, offset)
            offset += len(piece)


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written
