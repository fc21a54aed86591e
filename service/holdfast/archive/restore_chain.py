"""The open directories on the way to where a restore is at work, made where they are missing.

Entries come in path order, so the next one is nearly always in the same directory or a few names
away. Each directory is opened from its parent without following a link: what was restored before,
or what somebody swaps in meanwhile, can lead nowhere else. Only a bounded number stays open.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from holdfast.archive.directories import open_directory
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_OPEN_LEVELS: Final = 64
"""Directories of one path that stay open; those further up are opened again when needed."""

_CLOSED: Final = -1
_NO_NAMES: Final = frozenset({b"", b".", b".."})

type Enter = Callable[[int, bytes, bytes], int]
"""Opens (parent descriptor, name, path), making it if that is what is wanted. Raises OSError."""

type Leave = Callable[[bytes, int], None]
"""Told of each directory (path, descriptor) when everything below it has been dealt with."""


def _ignore(_path: bytes, _fd: int) -> None:
    """For walks that have nothing to do on the way back."""


class RestoreChain:
    """A directory in hand and its ancestors, below ``root_fd``. Used by one thread; close it."""

    def __init__(self, root_fd: int, enter: Enter, leave: Leave = _ignore) -> None:
        """``root_fd`` stays the caller's."""
        self._names: list[bytes] = []
        self._fds = [os.dup(root_fd)]
        self._enter = enter
        self._leave = leave
        self._path = b""

    def at(self, path: bytes) -> int:
        """The descriptor of the directory ``path``, good until the next call.

        Directories that ``path`` does not lie in are left. What ``enter`` raises.
        """
        if path == self._path and self._fds[-1] != _CLOSED:
            return self._fds[-1]
        names = path.split(b"/") if path else []
        levels = _common(self._names, names)
        while len(self._names) > levels:
            self._pop()
        if self._fds[-1] == _CLOSED:
            self._reopen()
        for name in names[levels:]:
            self._push(name)
        return self._fds[-1]

    def finish(self) -> None:
        """Leave everything, the root last."""
        self.at(b"")
        self._leave(b"", self._fds[0])

    def close(self) -> None:
        """Close all of it without leaving anything. May be repeated."""
        while self._fds:
            _close(self._fds.pop())

    def _push(self, name: bytes) -> None:
        if name in _NO_NAMES:
            # Checked when the page was read. Here it would lead out of the tree, so once more.
            msg = "a path in the snapshot has an empty, . or .. component"
            raise CorruptError(msg)
        path = b"%b/%b" % (self._path, name) if self._path else name
        self._fds.append(self._enter(self._fds[-1], name, path))
        self._names.append(name)
        self._path = path
        level = len(self._fds) - 1 - MAX_OPEN_LEVELS
        if level > 0:
            _close(self._fds[level])
            self._fds[level] = _CLOSED

    def _pop(self) -> None:
        if self._fds[-1] == _CLOSED:
            self._reopen()
        self._leave(self._path, self._fds[-1])
        _close(self._fds.pop())
        self._names.pop()
        self._path = self._path.rpartition(b"/")[0]

    def _reopen(self) -> None:
        """Open the last levels again, going down from the root, which always stays open."""
        last = len(self._fds) - 1
        for level in range(1, last + 1):
            if self._fds[level] == _CLOSED:
                parent = self._fds[level - 1]
                self._fds[level] = open_directory(self._names[level - 1], parent)
            if level - MAX_OPEN_LEVELS > 0:
                _close(self._fds[level - MAX_OPEN_LEVELS])
                self._fds[level - MAX_OPEN_LEVELS] = _CLOSED


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
