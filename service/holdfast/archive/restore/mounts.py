"""Mounts in a tree that a snapshot is merged into: others' data, which is never removed.

A restore may write into what is mounted, where the snapshot has a directory, too. It removes
nothing there, and nothing that something is mounted on.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from holdfast.archive.directories import mount_of, mount_points, open_directory
from holdfast.archive.paths import path_text
from holdfast.errors import InvalidError
from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.archive.read.snapshot import SnapshotReader
    from holdfast.archive.select import Selection


class Mounts:
    """The mount points below the directory ``root_fd`` when this is made."""

    def __init__(self, root_fd: int) -> None:
        """``root_fd`` stays the caller's. Raises OSError."""
        self._root_fd = root_fd
        self._mount = mount_of(root_fd)
        self._points = [point for point in mount_points(root_fd) if point]
        self._held = {part for point in self._points for part in _upwards(point)}

    def holds(self, path: bytes) -> bool:
        """Whether ``path`` is a mount point or has one below it."""
        return path in self._held

    def enter(self, parent: int, name: bytes, _path: bytes) -> int:
        """Open a directory of the tree's own mount. Raises NotADirectoryError at others, OSError.

        For walks of a ``DirectoryChain``: also what has been mounted meanwhile is not entered.
        """
        fd = open_directory(name, parent)
        if mount_of(fd) != self._mount:
            os.close(fd)
            raise NotADirectoryError(20, "something is mounted there")
        return fd

    def check(
        self, snapshot: SnapshotReader, selection: Selection, remove: Iterable[bytes]
    ) -> None:
        """Raises InvalidError when the restore, or ``remove``, would have to remove one."""
        for point in self._points:
            for path in _upwards(point):
                found = snapshot.find(path)
                if found is None:
                    continue
                is_directory = snapshot.page(found[0]).kinds[found[1]] == Kind.DIRECTORY
                if is_directory and path == point:
                    wanted = selection.selects(path) or selection.may_select_below(path)
                    unfit = wanted and not self._is_directory(path)
                else:
                    unfit = not is_directory and selection.selects(path)
                if unfit:
                    raise _in_the_way(point)
        for path in filter(self.holds, remove):
            raise _in_the_way(path)

    def _is_directory(self, point: bytes) -> bool:
        return stat.S_ISDIR(os.stat(point, dir_fd=self._root_fd, follow_symlinks=False).st_mode)


def _upwards(path: bytes) -> list[bytes]:
    """``path`` and what it lies in, but for the root."""
    names = path.split(b"/")
    return [b"/".join(names[: count + 1]) for count in range(len(names))]


def _in_the_way(point: bytes) -> InvalidError:
    return InvalidError(
        f"something is mounted at {path_text(point)!r}, where the snapshot has something else: "
        "unmount it, or restore other paths"
    )
