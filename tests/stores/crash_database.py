"""SQLite's file operations, cut off after a given one or failing at it, and what is then on disk.

`CrashDatabase` stands between SQLite and its files: a "VFS" that hands every call on to the usual
one, and has its own ``xWrite``, ``xTruncate`` and ``xSync`` between. Each of them is a step. It
keeps beside the files what a power cut would leave of them: what was there when they were last
synced, and of later writes all, none, or some. A sync that failed has lost what it was to write,
and a later one does not bring that back.

The shared memory (``-shm``) is not looked at: the first who opens a database makes it anew.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import errno
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from holdfast.stores.disk.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

_OK: Final = 0
_IOERR: Final = 10
_FULL: Final = 13
_IOERR_WRITE: Final = _IOERR | 3 << 8
_IOERR_FSYNC: Final = _IOERR | 4 << 8
_IOERR_TRUNCATE: Final = _IOERR | 6 << 8

_Pointer = ctypes.c_void_p
_Open = ctypes.CFUNCTYPE(
    ctypes.c_int, _Pointer, _Pointer, _Pointer, ctypes.c_int, ctypes.POINTER(ctypes.c_int)
)
_Write = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_int, ctypes.c_int64)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int64)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int)


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods``, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        *((name, _Pointer) for name in ("close", "read", "write", "truncate", "sync")),
        ("others", _Pointer * 13),
    )


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("max_path", ctypes.c_int),
        ("next", _Pointer),
        ("name", ctypes.c_char_p),
        ("data", _Pointer),
        ("open", _Pointer),
        ("others", _Pointer * 15),
    )


class Left(Enum):
    """The writes since the last sync that are on the disk."""

    ALL = "all"
    NONE = "none"
    EARLIER = "the earlier half of them, and half of the next"
    LATER = "the later half of them"


class _Change(Protocol):
    """A write or a truncation that is not synced yet."""

    def __call__(self, content: bytearray, /) -> None: ...


@dataclass
class _File:
    content: bytearray
    synced: bytearray
    since: list[_Change] = field(default_factory=list)

    def change(self, change: _Change) -> None:
        change(self.content)
        self.since.append(change)

    def sync(self) -> None:
        for change in self.since:
            change(self.synced)
        self.since.clear()

    def lose(self) -> None:
        self.since.clear()

    def left(self, left: Left) -> bytes:
        if left is Left.ALL:
            return bytes(self.content)
        half = len(self.since) // 2
        kept = {
            Left.NONE: [],
            Left.EARLIER: [*self.since[:half], *map(_torn, self.since[half : half + 1])],
            Left.LATER: self.since[half:],
        }[left]
        return self._with(kept)

    def left_of(self, numbers: frozenset[int], first: int) -> bytes:
        """With those of the changes since the last sync, which are numbered from ``first`` on."""
        return self._with([one for n, one in enumerate(self.since, first) if n in numbers])

    def _with(self, changes: list[_Change]) -> bytes:
        content = bytearray(self.synced)
        for change in changes:
            change(content)
        return bytes(content)


@dataclass(frozen=True)
class _Writing:
    offset: int
    data: bytes

    def __call__(self, content: bytearray, /) -> None:
        missing = self.offset - len(content)
        content.extend(bytes(max(missing, 0)))
        content[self.offset : self.offset + len(self.data)] = self.data


@dataclass(frozen=True)
class _Cutting:
    size: int

    def __call__(self, content: bytearray, /) -> None:
        del content[self.size :]


def _torn(change: _Change) -> _Change:
    if isinstance(change, _Writing):
        return _Writing(change.offset, change.data[: len(change.data) // 2])
    return change


class CrashDatabase(Files):
    """Takes what is under ``root`` as durable. Give it one of the two steps, counted from 1.

    After step ``cut_after`` nothing happens any more, and every step fails. Step ``fail_at`` fails
    with ``error``, which leaves half of what it was to write. ``watch`` is called before each step.
    """

    def __init__(
        self,
        root: Path,
        *,
        cut_after: int | None = None,
        fail_at: int | None = None,
        error: int = errno.EIO,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self.steps: list[str] = []
        self.failed_step = ""
        self.is_cut = False
        self._root: Final = root
        self._cut_after: Final = cut_after
        self._fail_at: Final = fail_at
        self._error: Final = error
        self._watch: Final = watch
        self._files: Final[dict[Path, _File]] = {}
        self._opened: Final[dict[int, tuple[_File, str, _Methods]]] = {}
        self._kept: Final[list[Any]] = []  # what C holds pointers to
        self._sqlite: Final = ctypes.CDLL(_sqlite3.__file__)  # and with it the library it uses
        self._sqlite.sqlite3_vfs_find.restype = _Pointer
        for path in root.rglob("*"):
            if path.is_file():
                self._load(path)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Every database that is opened meanwhile is opened by this. It is closed in here, too.

        Nothing is really synced, which would take nearly all of a test's time.
        """
        usual = self._sqlite.sqlite3_vfs_find(None)
        self._usual = _Vfs.from_address(usual)
        self._usual_open = _Open(self._usual.open)
        vfs = _Vfs.from_buffer_copy(self._usual)
        opening = _Open(self._open)
        vfs.name, vfs.next = b"crash", None
        vfs.open = ctypes.cast(opening, _Pointer).value
        self._kept.extend((vfs, opening))
        self._sqlite.sqlite3_vfs_register(ctypes.byref(vfs), 1)
        try:
            yield
        finally:
            self._sqlite.sqlite3_vfs_register(_Pointer(usual), 1)
            self._sqlite.sqlite3_vfs_unregister(ctypes.byref(vfs))

    def rewrite(self, path: Path) -> None:
        """A step as well, of a store that has this for its files."""
        file = self._load(path)
        outcome = self._step("rewrite wal")
        if outcome is not None:
            raise OSError(outcome or errno.EIO, "the step fails")
        super().rewrite(path)
        file.change(_Writing(0, bytes(file.content)))
        file.sync()

    def leave_behind(self, root: Path, left: Left) -> Path:
        """Write to the new directory ``root`` what is on the disk then."""
        root.mkdir()
        for path, file in self._files.items():
            target = root / path.relative_to(self._root)
            target.write_bytes(file.left(left))
        return root

    def subsets(self, most: int, rng: Random) -> Iterator[frozenset[int]]:
        """Which of the changes since the last sync, in all files, may be on the disk.

        Every subset of them, or ``most`` drawn by ``rng``.
        """
        many = sum(len(file.since) for file in self._files.values())
        drawn = range(2**many) if 2**many <= most else (rng.getrandbits(many) for _ in range(most))
        for bits in drawn:
            yield frozenset(n for n in range(many) if bits >> n & 1)

    def leave_subset(self, root: Path, numbers: frozenset[int]) -> Path:
        """As `leave_behind`, with one of the `subsets`."""
        root.mkdir()
        first = 0
        for path, file in self._files.items():
            target = root / path.relative_to(self._root)
            target.write_bytes(file.left_of(numbers, first))
            first += len(file.since)
        return root

    def _load(self, path: Path) -> _File:
        if path not in self._files:
            content = path.read_bytes() if path.exists() else b""
            self._files[path] = _File(bytearray(content), bytearray(content))
        return self._files[path]

    def _open(self, _vfs: int, name: int | None, handle: int, flags: int, out: Any) -> int:
        code: int = self._usual_open(ctypes.addressof(self._usual), name, handle, flags, out)
        path = None if name is None else Path(ctypes.string_at(name).decode())
        if code != _OK or path is None:
            return code
        methods = _Pointer.from_address(handle)
        assert methods.value is not None
        usual = _Methods.from_address(methods.value)
        ours = _Methods.from_buffer_copy(usual)
        if path.is_relative_to(self._root):
            self._opened[handle] = (self._load(path), path.name.rpartition("-")[2], usual)
            write, truncate = _Write(self._write), _Truncate(self._truncate)
            sync = _Sync(self._sync)
            ours.write = ctypes.cast(write, _Pointer).value
            ours.truncate = ctypes.cast(truncate, _Pointer).value
            self._kept.extend((write, truncate))
        else:
            sync = _Sync(lambda _handle, _flags: _OK)
        ours.sync = ctypes.cast(sync, _Pointer).value
        self._kept.extend((ours, sync))
        methods.value = ctypes.addressof(ours)
        return code

    def _write(self, handle: int, data: int, amount: int, offset: int) -> int:
        file, name, usual = self._opened[handle]
        content = ctypes.string_at(data, amount)
        outcome = self._step(f"write {name}")
        if outcome is not None:
            content = content[: amount // 2] if outcome else b""
        if content:
            _Write(usual.write)(handle, content, len(content), offset)
            file.change(_Writing(offset, content))
        if outcome is None:
            return _OK
        return _FULL if outcome == errno.ENOSPC else _IOERR_WRITE

    def _truncate(self, handle: int, size: int) -> int:
        file, name, usual = self._opened[handle]
        if self._step(f"truncate {name}") is not None:
            return _IOERR_TRUNCATE
        _Truncate(usual.truncate)(handle, size)
        file.change(_Cutting(size))
        return _OK

    def _sync(self, handle: int, _flags: int) -> int:
        file, name, _ = self._opened[handle]
        outcome = self._step(f"sync {name}")
        if outcome is not None:
            if outcome:
                file.lose()
            return _IOERR_FSYNC
        file.sync()
        return _OK

    def _step(self, name: str) -> int | None:
        """None to go on, 0 after the cut, or the error that the step fails with."""
        self._watch()
        if self._cut_after is not None and len(self.steps) >= self._cut_after:
            self.is_cut = True
            return 0
        self.steps.append(name)
        if len(self.steps) == self._fail_at:
            self.failed_step = name
            return self._error
        return None
