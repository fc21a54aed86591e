"""The end of a restore: hard links to files, then symlinks and the metadata of directories.

Symlinks come last so that while anything else is made, the new tree holds none. A directory is
finished when the walk leaves it: before, each entry made in it would change its times again, and
its mode might not let us in.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from holdfast.archive.chain import DirectoryChain
from holdfast.archive.directories import failure_of, reported
from holdfast.archive.paths import path_text
from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.archive.restore.files import FileWriter
    from holdfast.archive.restore.place import Target
    from holdfast.form.manifest import Page

MAX_KEPT_COPIES: Final = 65_536
"""Files restored under the name of a hard link, remembered so that their other names join them."""

_UNLINKABLE: Final = frozenset({errno.EMLINK, errno.EPERM, errno.ENOTSUP})


class LinkMaker:
    """Makes hard links. Used by one thread; close it."""

    def __init__(
        self, target: Target, writer: FileWriter, check_copy: Callable[[int], None]
    ) -> None:
        """``writer`` writes the file where its first name is not selected.

        ``check_copy`` raises TooLargeError where a copy of so many bytes would be too much.
        """
        self._target = target
        self._place = target.place
        self._writer = writer
        self._check_copy = check_copy
        self._chain = DirectoryChain(target.fd, target.place.enter)
        self._sources = DirectoryChain(target.fd)
        self._copies: dict[bytes, bytes] = {}

    def make(self, page_no: int, page: Page, index: int) -> None:
        """The hard link ``index`` of a page.

        Raises CorruptError, what ``check_copy`` and ``failure_of`` do.
        """
        path = page.paths[index]
        first_page, first_index = self._target.snapshot.content(page_no, index)
        first = page.targets[index]
        # A copy goes first: where there is one of a selected file, that takes no more links.
        source = self._copies.get(first)
        if source is None and self._target.selection.selects(first):
            source = first
        if source is not None and self._could_link(source, path):
            return
        page = self._target.snapshot.page(first_page)
        self._check_copy(page.data_sizes[first_index])
        self._writer.write_copy(page, first_index, path)
        if first in self._copies or len(self._copies) < MAX_KEPT_COPIES:
            self._copies[first] = path

    def close(self) -> None:
        """Close the directories that are open. May be repeated."""
        self._chain.close()
        self._sources.close()

    def _could_link(self, source: bytes, path: bytes) -> bool:
        """Link ``path`` to ``source``; False, with a warning, where that takes no more links."""
        try:
            self._link(source, path)
        except OSError as error:
            if error.errno not in _UNLINKABLE:
                raise failure_of(error, f"linking {path_text(path)!r}") from error
            detail = f"it is a file of its own: {error.strerror}"
            self._target.warnings.add("link", path, detail)
            return False
        return True

    def _link(self, source: bytes, path: bytes) -> None:
        source_parent, _, source_name = source.rpartition(b"/")
        parent, _, name = path.rpartition(b"/")
        dir_fd = self._chain.at(parent)
        self._place.prepare(dir_fd, parent)
        os.link(
            source_name,
            self._place.temporary or name,
            src_dir_fd=self._sources.at(source_parent),
            dst_dir_fd=dir_fd,
            follow_symlinks=False,
        )
        self._place.settle(dir_fd, name)


class Finisher:
    """Makes symlinks and finishes directories. Used by one thread; close it."""

    def __init__(self, target: Target) -> None:
        """The descriptor of ``target`` stays the caller's."""
        self._is_whole = target.selection.is_whole
        self._snapshot = target.snapshot
        self._place = target.place
        self._metadata = target.metadata()
        self._chain = DirectoryChain(target.fd, target.place.enter, self._leave)
        self._selected: list[tuple[bytes, int, int]] = []

    def page(self, page_no: int, page: Page, indices: Sequence[int]) -> None:
        """The directories and symlinks among the entries ``indices``, ascending."""
        for index in indices:
            kind = page.kinds[index]
            if kind == Kind.DIRECTORY:
                path = page.paths[index]
                self._enter(path)
                self._selected.append((path, page_no, index))
            elif kind == Kind.SYMLINK:
                self._symlink(page, index)
            elif not self._is_whole:
                # Its directory may not be selected itself, and is to be left in the end, too.
                self._enter(page.paths[index].rpartition(b"/")[0])

    def finish(self) -> None:
        """Finish the directories that are still open, the root as the last."""
        with reported("restoring the metadata of directories"):
            self._chain.finish()

    def close(self) -> None:
        """Close the directories that are open. May be repeated."""
        self._chain.close()

    def _enter(self, path: bytes) -> None:
        try:
            self._chain.at(path)
        except OSError as error:
            raise failure_of(error, f"restoring {path_text(path)!r}") from error

    def _symlink(self, page: Page, index: int) -> None:
        path = page.paths[index]
        parent, _, name = path.rpartition(b"/")
        try:
            dir_fd = self._chain.at(parent)
            self._place.prepare(dir_fd, parent)
            made = self._place.temporary or name
            os.symlink(page.targets[index], made, dir_fd=dir_fd)
            self._metadata.finish_symlink(dir_fd, made, page, index)
            self._place.settle(dir_fd, name)
        except OSError as error:
            raise failure_of(error, f"restoring {path_text(path)!r}") from error

    def _leave(self, path: bytes, fd: int) -> None:
        self._place.clear(fd, path)
        self._place.close_up(fd, path)
        if self._selected and self._selected[-1][0] == path:
            _, page_no, index = self._selected.pop()
        else:
            # Only on the way to what is selected: in a live tree it stays as it is.
            found = self._snapshot.find(path) if self._place.has_made(path) else None
            if found is None:
                return
            page_no, index = found
        self._metadata.finish_directory(fd, self._snapshot.page(page_no), index)
