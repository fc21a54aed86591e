"""Open directories along one path, each opened from its parent without following a link.

A link that a restore has made, or that somebody swaps into a path, can therefore never lead out of
the tree: there is no moment at which the kernel resolves more than one name. It also lifts
the kernel's limit on the length of a path, and makes going from one entry to its neighbour free:
entries come in path order, so the next one is nearly always in the same directory or close by.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_OPEN_LEVELS: Final = 64
"""Directories of one path that stay open, the root beside them; others are opened again."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED: Final = -1
_NO_NAMES: Final = frozenset({b"", b".", b".."})

type Enter = Callable[[int, bytes, bytes], int]
"""Opens (parent descriptor, name, path), making it if that is what is wanted. Raises OSError."""

type Leave = Callable[[bytes, int], None]
"""Told of each directory (path, descriptor) when everything below it has been dealt with."""


def open_quietly(
    name: str | bytes | os.PathLike[str], flags: int, dir_fd: int | None = None
) -> int:
    """Open something without changing its time of access, where that is allowed. Raises OSError."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(name, flags, dir_fd=dir_fd)


def _open_only(parent: int, name: bytes, _path: bytes) -> int:
    return open_quietly(name, _DIRECTORY, parent)


class DirectoryChain:
    """The directory in hand and its ancestors. Used by one thread; close it."""

    def __init__(
        self,
        root: str | bytes | os.PathLike[str] | int,
        enter: Enter = _open_only,
        leave: Leave | None = None,
    ) -> None:
        """``root`` is a path, or a descriptor of a directory, which stays the caller's.

        Raises OSError: NotADirectoryError or ELOOP where ``root`` itself is a symlink.
        """
        self._names: list[bytes] = []
        self._fds = [os.dup(root) if isinstance(root, int) else open_quietly(root, _DIRECTORY)]
        self._enter = enter
        self._leave = leave
        self._path = b""

    @property
    def root(self) -> int:
        """The descriptor of the root, good until this is closed."""
        return self._fds[0]

    def at(self, path: bytes) -> int:
        """The descriptor of the directory ``path``, good until the next call.

        Directories that ``path`` does not lie in are left. Raises OSError when a component is gone,
        or is no directory (any more), and what ``enter`` and ``leave`` raise.
        """
        if path == self._path and self._fds[-1] != _CLOSED:
            return self._fds[-1]
        names = path.split(b"/") if path else []
        levels = _common(self._names, names)
        while len(self._names) > levels:
            self._pop()
        self._reopen_last()
        for name in names[levels:]:
            self._push(name)
        return self._fds[-1]

    def finish(self) -> None:
        """Leave everything, the root last."""
        self.at(b"")
        if self._leave is not None:
            self._leave(b"", self.root)

    def close(self) -> None:
        """Close all of it without leaving anything. May be repeated."""
        while self._fds:
            _close(self._fds.pop())

    def _push(self, name: bytes) -> None:
        if name in _NO_NAMES:
            # Checked when the page was read. Here it would lead out of the tree, so once more.
            raise CorruptError("a path in the snapshot has an empty, . or .. component")
        path = b"%b/%b" % (self._path, name) if self._path else name
        self._fds.append(self._enter(self._fds[-1], name, path))
        self._names.append(name)
        self._path = path
        self._close_above(len(self._names))

    def _pop(self) -> None:
        if self._leave is not None:
            self._reopen_last()
            self._leave(self._path, self._fds[-1])
        _close(self._fds.pop())
        self._names.pop()
        self._path = self._path.rpartition(b"/")[0]

    def _reopen_last(self) -> None:
        """Open what was closed again, going down from the root, which always stays open."""
        if self._fds[-1] != _CLOSED:
            return
        for level, name in enumerate(self._names, start=1):
            if self._fds[level] == _CLOSED:
                self._fds[level] = open_quietly(name, _DIRECTORY, self._fds[level - 1])
            self._close_above(level)

    def _close_above(self, level: int) -> None:
        """Close what is one too many now that ``level`` is open."""
        farthest = level - MAX_OPEN_LEVELS
        if farthest > 0:
            _close(self._fds[farthest])
            self._fds[farthest] = _CLOSED


def _common(left: list[bytes], right: list[bytes]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _close(fd: int) -> None:
    if fd != _CLOSED:
        os.close(fd)
