"""The dry run of a restore: its changes, found out without making any."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from holdfast.archive.chain import DirectoryChain
from holdfast.archive.directories import reported
from holdfast.archive.ports import Cancelled, Stop
from holdfast.archive.restore.extra import count_entries, extra_entries
from holdfast.archive.restore.mounts import Mounts
from holdfast.archive.restore.options import MAX_PLANNED, Restored, RestoreOptions
from holdfast.archive.select import Selection
from holdfast.form.entries import Kind, order_key
from holdfast.form.terms import ChangeKind, EntryChange

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.form.manifest import Page

_TYPE_BITS: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.HARDLINK: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
}


class Planner:
    """Compares a snapshot with the tree at ``root_fd`` (None: there is none)."""

    def __init__(
        self,
        snapshot: SnapshotReader,
        root_fd: int | None,
        selection: Selection,
        options: RestoreOptions,
        stop: Stop,
    ) -> None:
        """Nothing is read before ``plan``."""
        self._snapshot = snapshot
        self._root_fd = root_fd
        self._selection = selection
        self._options = options
        self._stop = stop
        self._chain = None if root_fd is None else DirectoryChain(root_fd)
        self._firsts = None if root_fd is None else DirectoryChain(root_fd)
        self._lines: list[EntryChange] = []
        self._count = 0
        self._entries = self._files = self._bytes = self._removed = 0

    def plan(self, pages: Iterable[int]) -> Restored:
        """The changes by a restore of what is selected of ``pages``. Raises Cancelled, OSError."""
        with reported("comparing the tree with the snapshot"):
            try:
                # Entries to be lost come first: a plan is read for them.
                self._extra()
                self._lines.sort(key=lambda line: order_key(line.path))
                for number in pages:
                    if self._stop():
                        raise Cancelled
                    page = self._snapshot.page(number)
                    self._page(number, page, self._selection.indices(page.paths))
            finally:
                for chain in filter(None, (self._chain, self._firsts)):
                    chain.close()
        return Restored(
            entries=self._entries,
            files=self._files,
            bytes=self._bytes,
            removed=self._removed,
            plan=tuple(self._lines),
            plan_count=self._count,
        )

    def _page(self, number: int, page: Page, indices: Sequence[int]) -> None:
        for index in indices:
            self._entries += 1
            self._files += page.kinds[index] == Kind.FILE
            self._bytes += page.sizes[index]
            path, kind = page.paths[index], Kind(page.kinds[index])
            found = self._look(path, self._chain)
            change = "added" if found is None else self._change(found, number, page, index)
            if change is not None:
                is_file = kind is Kind.FILE
                self._line(
                    EntryChange(
                        path=path,
                        change=change,
                        kind=kind,
                        size_before=_file_size(found),
                        size_after=page.sizes[index] if is_file else None,
                    )
                )

    def _extra(self) -> None:
        if self._root_fd is None:
            return
        options = self._options
        mounts = Mounts(self._root_fd)
        if options.mode == "merge":
            for name in map(os.fsencode, options.remove):
                if self._look(name, self._chain) is not None:
                    self._gone(self._root_fd, name, name, mounts)
            selection = self._selection if options.delete else None
        else:
            selection = Selection()
        if selection is not None:
            found = extra_entries(self._snapshot, self._root_fd, selection, mounts)
            for fd, name, path in found:
                self._gone(fd, name, path, mounts)

    def _gone(self, dir_fd: int, name: bytes, path: bytes, mounts: Mounts) -> None:
        self._removed += count_entries(dir_fd, name, mounts)
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        self._line(EntryChange(path=path, change="removed", size_before=_file_size(status)))

    def _line(self, line: EntryChange) -> None:
        self._count += 1
        if len(self._lines) < MAX_PLANNED:
            self._lines.append(line)

    def _look(self, path: bytes, chain: DirectoryChain | None) -> os.stat_result | None:
        """The entry that is at ``path`` now."""
        if chain is None or self._root_fd is None:
            return None
        if not path:
            return os.fstat(self._root_fd)
        parent, _, name = path.rpartition(b"/")
        try:
            return os.stat(name, dir_fd=chain.at(parent), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _change(
        self, found: os.stat_result, number: int, page: Page, index: int
    ) -> ChangeKind | None:
        kind = Kind(page.kinds[index])
        if stat.S_IFMT(found.st_mode) != _TYPE_BITS[kind]:
            return "modified"
        if kind is Kind.HARDLINK:
            return None if self._is_linked(found, number, page, index) else "modified"
        if kind is Kind.FILE and not _has_content(found, page, index):
            return "modified"
        if kind is Kind.SYMLINK and self._target(page.paths[index]) != page.targets[index]:
            return "modified"
        return _metadata_change(found, page, index)

    def _is_linked(self, found: os.stat_result, number: int, page: Page, index: int) -> bool:
        """Whether a hard link is one of its first path; without that, whether it has its content.

        No link is made of entries not selected.
        """
        if not self._selection.selects(page.targets[index]):
            first_page, first_index = self._snapshot.content(number, index)
            return _has_content(found, self._snapshot.page(first_page), first_index)
        first = self._look(page.targets[index], self._firsts)
        return first is not None and os.path.samestat(first, found)

    def _target(self, path: bytes) -> bytes | None:
        if self._chain is None:
            return None
        parent, _, name = path.rpartition(b"/")
        try:
            return os.readlink(name, dir_fd=self._chain.at(parent))
        except FileNotFoundError:
            return None


def _has_content(found: os.stat_result, page: Page, index: int) -> bool:
    """Whether it looks so: nothing is read."""
    return (found.st_size, found.st_mtime_ns) == (page.sizes[index], page.mtimes_ns[index])


def _metadata_change(found: os.stat_result, page: Page, index: int) -> ChangeKind | None:
    kind = Kind(page.kinds[index])
    looks = (found.st_uid, found.st_gid, found.st_mtime_ns)
    recorded = (page.uids[index], page.gids[index], page.mtimes_ns[index])
    same_mode = kind is Kind.SYMLINK or stat.S_IMODE(found.st_mode) == page.modes[index]
    return None if looks == recorded and same_mode else "metadata"


def _file_size(status: os.stat_result | None) -> int | None:
    return status.st_size if status is not None and stat.S_ISREG(status.st_mode) else None
