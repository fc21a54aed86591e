"""File operations that are cut off after a given step, or fail at it, and what is then on disk.

`CrashFiles` does each step for real and keeps beside it what a power cut would leave: of a file
what was there when it was last synced, of a directory the names it had when it was last synced. A
sync that failed has lost what it was to write, and a later one does not bring it back, whatever it
reports.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from holdfast.stores.disk.files import Files

if TYPE_CHECKING:
    from collections.abc import Buffer
    from pathlib import Path


class PowerCut(BaseException):
    """The process is no more: nothing catches this, and nothing it would still do happens."""


class Loss(Enum):
    """The loss besides the process."""

    NOTHING = "nothing"
    UNSYNCED = "data and names that were not synced"
    NEW_NAMES = "data and new names that were not synced; renaming and removing was kept"
    """A name that a rename gave to another file was there before: it has the one or the other."""
    UNSYNCED_DATA = "data that was not synced; the file system kept the names"


@dataclass
class _File:
    content: bytes = b""
    synced: bytes = b""
    broken: bool = False
    replaced: _File | _Directory | None = None

    def sync(self) -> None:
        if not self.broken:
            self.synced = self.content


@dataclass
class _Directory:
    names: dict[str, _File | _Directory] = field(default_factory=dict)
    synced: dict[str, _File | _Directory] = field(default_factory=dict)
    broken: bool = False

    def sync(self) -> None:
        if not self.broken:
            self.synced = dict(self.names)


def _load(path: Path) -> _Directory:
    names: dict[str, _File | _Directory] = {}
    for entry in path.iterdir():
        if entry.is_dir():
            names[entry.name] = _load(entry)
        else:
            content = entry.read_bytes()
            names[entry.name] = _File(content, content)
    return _Directory(names, dict(names))


class CrashFiles(Files):
    """Takes what is under ``root`` as durable. Give it one of the two steps, counted from 1.

    After step ``cut_after`` nothing happens any more. Step ``fail_at`` fails with ``error``.
    """

    def __init__(
        self,
        root: Path,
        *,
        cut_after: int | None = None,
        fail_at: int | None = None,
        error: int = errno.EIO,
    ) -> None:
        self.steps: list[str] = []
        self.failed_step = ""
        self._root: Final = root
        self._tree: Final = _load(root)
        self._open: Final[dict[int, _File]] = {}
        self._cut_after: Final = cut_after
        self._fail_at: Final = fail_at
        self._error: Final = error

    def create(self, path: Path) -> int:
        self._step("create")
        descriptor = super().create(path)
        self._open[descriptor] = file = _File()
        self._parent(path).names[path.name] = file
        return descriptor

    def write(self, descriptor: int, data: Buffer) -> None:
        try:
            self._step("write")
        except BaseException:
            half = bytes(data)[: len(bytes(data)) // 2]
            super().write(descriptor, half)  # some of it may get there
            self._open[descriptor].content += half
            raise
        super().write(descriptor, data)
        self._open[descriptor].content += bytes(data)

    def sync(self, descriptor: int) -> None:
        try:
            self._step("sync")
        except OSError:
            self._open[descriptor].broken = True
            raise
        super().sync(descriptor)
        self._open[descriptor].sync()

    def close(self, descriptor: int) -> None:
        os.close(descriptor)  # in any case: it is the test's process that goes on
        self._open.pop(descriptor)
        self._step("close")

    def link(self, source: Path, target: Path) -> None:
        self._step("link")
        super().link(source, target)
        self._parent(target).names[target.name] = self._parent(source).names[source.name]

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        super().rename(source, target)
        names, moved = self._parent(target).names, self._parent(source).names.pop(source.name)
        if isinstance(moved, _File):
            moved.replaced = names.get(target.name)
        names[target.name] = moved

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        super().unlink(path)
        del self._parent(path).names[path.name]

    def mkdir(self, path: Path) -> None:
        self._step("mkdir")
        super().mkdir(path)
        self._parent(path).names[path.name] = _Directory()

    def rmdir(self, path: Path) -> None:
        self._step("rmdir")
        super().rmdir(path)
        del self._parent(path).names[path.name]

    def sync_directory(self, path: Path) -> None:
        directory = self._parent(path / "any")
        try:
            self._step("sync_directory")
        except OSError:
            directory.broken = True
            raise
        super().sync_directory(path)
        directory.sync()

    def leave_behind(self, root: Path, loss: Loss) -> Path:
        """Write to the new directory ``root`` what is on the disk after that loss."""
        _write(self._tree, root, loss)
        return root

    def _step(self, name: str) -> None:
        if self._cut_after is not None and len(self.steps) >= self._cut_after:
            raise PowerCut
        self.steps.append(name)
        if len(self.steps) == self._fail_at:
            self.failed_step = name
            raise OSError(self._error, os.strerror(self._error))

    def _parent(self, path: Path) -> _Directory:
        directory = self._tree
        for name in path.relative_to(self._root).parts[:-1]:
            below = directory.names[name]
            assert isinstance(below, _Directory)
            directory = below
        return directory


def _write(directory: _Directory, path: Path, loss: Loss) -> None:
    path.mkdir()
    synced = {id(entry) for entry in directory.synced.values()}
    names = directory.synced if loss is Loss.UNSYNCED else directory.names
    for name, entry in names.items():
        left: _File | _Directory | None = entry
        if loss is Loss.NEW_NAMES and id(entry) not in synced:
            left = entry.replaced if isinstance(entry, _File) else None
        if isinstance(left, _Directory):
            _write(left, path / name, loss)
        elif left is not None:
            content = left.content if loss is Loss.NOTHING else left.synced
            (path / name).write_bytes(content)
