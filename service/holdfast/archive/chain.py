"""Open directories along one path, each opened from its parent without following a link.

A symlink that somebody swaps into the middle of a path can therefore never lead out of the tree:
there is no moment at which the kernel resolves more than one name. It also lifts the kernel's limit
on the length of a path, and makes going from one entry to its neighbour free.
"""

from __future__ import annotations

import errno
import os
from typing import Final

MAX_OPEN_LEVELS: Final = 64
"""Directories of one path that stay open, beside the deepest one; others are opened again."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED: Final = -1


class DirectoryChain:
    """The directory in hand and its ancestors. Used by one thread; close it."""

    def __init__(self, root: str | bytes | os.PathLike[str] | int) -> None:
        """``root`` is a path, or a descriptor of a directory, which stays the caller's.

        Raises OSError: NotADirectoryError or ELOOP where ``root`` itself is a symlink.
        """
        self._names: list[bytes] = []
        self._fds = [os.dup(root) if isinstance(root, int) else open_quietly(root, _DIRECTORY)]
        self._path = b""

    def at(self, path: bytes) -> int:
        """The descriptor of the directory ``path``, good until the next call.

        Raises OSError when a component is gone, or is no directory (any more).
        """
        if path == self._path and self._fds[-1] != _CLOSED:
            return self._fds[-1]
        names = path.split(b"/") if path else []
        self._shorten(_common(self._names, names))
        self._reopen_last()
        for name in names[len(self._names) :]:
            self._descend(name)
        self._path = path
        return self._fds[-1]

    @property
    def root(self) -> int:
        """The descriptor of the root, good until this is closed."""
        return self._fds[0]

    def close(self) -> None:
        """Close all of it. May be repeated."""
        while self._fds:
            _close(self._fds.pop())

    def _shorten(self, levels: int) -> None:
        while len(self._names) > levels:
            self._names.pop()
            _close(self._fds.pop())
        self._path = b"/".join(self._names)

    def _descend(self, name: bytes) -> None:
        self._fds.append(open_quietly(name, _DIRECTORY, self._fds[-1]))
        self._names.append(name)
        self._path = b"/".join(self._names)
        if len(self._fds) - 1 > MAX_OPEN_LEVELS:
            _close(self._fds[-2])
            self._fds[-2] = _CLOSED

    def _reopen_last(self) -> None:
        """Open the deepest level again if it was closed for being one of too many."""
        if self._fds[-1] != _CLOSED:
            return
        level = min(MAX_OPEN_LEVELS - 1, len(self._fds) - 1)
        fd = os.dup(self._fds[level])
        try:
            for name in self._names[level:]:
                child = open_quietly(name, _DIRECTORY, fd)
                os.close(fd)
                fd = child
        except OSError:
            os.close(fd)
            raise
        self._fds[-1] = fd


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
