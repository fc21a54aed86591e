"""Names in open directories: making, exchanging and removing them without ever following a link.

Everything here works on one name in a directory that is open already. A path that the kernel
resolves in several steps could be led astray by what was restored, or by who else writes there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from holdfast.errors import (
    ForbiddenError,
    HoldfastError,
    InvalidError,
    QuotaExceededError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_PATH_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

MAX_REMOVE_LEVELS: Final = 64
"""Directories inside each other that are open while a tree is removed; deeper ones are moved up."""

MAX_REMOVE_ROUNDS: Final = 256
"""Times that a directory is emptied into which somebody else keeps putting things."""

NAMES_PER_BATCH: Final = 1024
"""Names of a directory that are held at once."""

_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNFIT: Final = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EFBIG, errno.EINVAL})
_IN_THE_WAY: Final = frozenset({errno.ENOTDIR, errno.EBUSY, errno.ELOOP})
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_NO_FLAGS: Final = frozenset({errno.EINVAL, errno.ENOSYS})
_NO_EXCHANGE: Final = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EBUSY})


def failure_of(error: OSError, doing: str) -> HoldfastError:
    """An operating system's error as a caller's; ``doing`` is what was under way."""
    number = error.errno or 0
    if number in _FULL:
        return QuotaExceededError(f"the disk is full: {doing} failed")
    if number in _REFUSED:
        return ForbiddenError(f"{doing} is not permitted: {error.strerror}")
    if number in _UNFIT:
        return InvalidError(f"this file system cannot hold it: {doing} failed: {error.strerror}")
    if number in _IN_THE_WAY:
        return InvalidError(f"something is in the way: {doing} failed: {error.strerror}")
    return UnavailableError(f"{doing} failed: {error.strerror}")


@contextmanager
def reported(doing: str) -> Iterator[None]:
    """Raise what ``failure_of`` makes of an OSError."""
    try:
        yield
    except OSError as error:
        raise failure_of(error, doing) from error


def open_directory(name: bytes | str | os.PathLike[str], dir_fd: int | None = None) -> int:
    """A descriptor of a directory. Raises OSError, also where the last name is a symlink."""
    return os.open(name, DIRECTORY_FLAGS, dir_fd=dir_fd)


def rename_new(dir_fd: int, name: bytes, new_name: bytes) -> None:
    """Rename a directory, atomically. Raises FileExistsError where there is something, OSError.

    Where the file system does not know that, an empty directory that somebody makes in the same
    moment is not taken for an obstacle.
    """
    try:
        _renameat2(dir_fd, name, new_name, _RENAME_NOREPLACE)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
        with suppress(FileNotFoundError):
            os.stat(new_name, dir_fd=dir_fd, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        os.rename(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)


def exchange(dir_fd: int, name: bytes, other: bytes) -> None:
    """Let two names change places, atomically. Raises InvalidError where that cannot be, OSError.

    It cannot be where one is a mount point or the file system does not know how.
    """
    try:
        _renameat2(dir_fd, name, other, _RENAME_EXCHANGE)
    except OSError as error:
        if error.errno in _NO_EXCHANGE:
            msg = (
                "the directory cannot be exchanged as a whole: it is a mount point, or its file "
                f"system does not support it ({error.strerror}); restore with mode merge"
            )
            raise InvalidError(msg) from error
        raise


def _renameat2(dir_fd: int, name: bytes, new_name: bytes, flags: int) -> None:
    if _LIBC.renameat2(dir_fd, name, dir_fd, new_name, flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_filesystem(fd: int) -> None:
    """Return when everything written to the file system of ``fd`` is on its disk. Raises OSError.

    One call for a whole tree: syncing each of its files would take minutes.
    """
    if _LIBC.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def has_mounts(fd: int) -> bool:
    """Whether the directory ``fd`` is a mount point, or holds one at any depth."""
    return bool(mount_points(fd))


def mount_points(fd: int) -> list[bytes]:
    """Paths of all mount points in the directory ``fd``, relative to it; its own is empty.

    Files may be mount points, too.
    """
    below = os.fsencode(os.readlink(f"/proc/self/fd/{fd}")).rstrip(b"/") + b"/"
    with open("/proc/self/mountinfo", "rb") as mounts:
        points = [_unescaped(line.split(b" ")[4]).rstrip(b"/") + b"/" for line in mounts]
    found = {point[len(below) : -1] for point in points if point.startswith(below)}
    return sorted(found)


def mount_of(fd: int) -> int:
    """A number that tells the mount of ``fd`` from others. Devices do not: a bind has the same."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
        for line in info:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    # Some sandboxes do not tell: devices are better than nothing, and none of them is a mount's.
    return -1 - os.fstat(fd).st_dev


def _unescaped(text: bytes) -> bytes:
    """The kernel writes space, tab, newline and backslash as three octal digits."""
    for escape, plain in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n")):
        text = text.replace(escape, plain)
    return text.replace(b"\\134", b"\\")


def names_in(fd: int) -> Iterator[list[tuple[bytes, bool]]]:
    """The names in the directory ``fd``, each with whether it is a directory, in batches.

    Those of a batch may be removed before the next is asked for.
    """
    with os.scandir(fd) as listing:
        while batch := list(islice(listing, NAMES_PER_BATCH)):
            yield [(os.fsencode(item.name), item.is_dir(follow_symlinks=False)) for item in batch]


def remove_entry(dir_fd: int, name: bytes) -> int:
    """Remove ``name`` and, of a directory, everything in it; the count of entries.

    Nothing there is fine. Raises InvalidError at a mount point, before anything in that is
    touched; OSError, also where somebody else keeps making entries in it (ENOTEMPTY).
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return 0
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise
        return _remove_directory(dir_fd, name)
    return 1


def _remove_directory(dir_fd: int, name: bytes) -> int:
    mount = mount_of(dir_fd)
    top = _open_for_removal(dir_fd, name, mount)
    try:
        removal = _Removal(top, mount)
        removal.directory(dir_fd, name, top, 0)
    finally:
        os.close(top)
    return removal.removed


class _Removal:
    def __init__(self, top: int, mount: int) -> None:
        self._top = top
        self._mount = mount
        self._moved = 0
        self.removed = 0

    def directory(self, parent: int, name: bytes, fd: int, level: int) -> None:
        """Remove the directory ``name`` of ``parent``, which ``fd`` is, with what is in it.

        One round may not be enough: what was too deep is moved up into the top, a file system may
        skip names while others are removed, and somebody may still be at work in it. Right after
        a round there is least of that, and from when it is gone nothing can be made in it.
        """
        rounds = 0
        while True:
            moved = self._moved
            self._empty(fd, level)
            rounds += self._moved == moved
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno not in _NOT_EMPTY or rounds >= MAX_REMOVE_ROUNDS:
                    raise
            else:
                self.removed += 1
                return

    def _empty(self, fd: int, level: int) -> None:
        for batch in names_in(fd):
            for name, is_directory in batch:
                if is_directory:
                    self._below(fd, name, level + 1)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=fd)
                        self.removed += 1

    def _below(self, parent: int, name: bytes, level: int) -> None:
        if level > MAX_REMOVE_LEVELS:
            self._move_up(parent, name)
            return
        fd = _open_for_removal(parent, name, self._mount)
        try:
            self.directory(parent, name, fd, level)
        finally:
            os.close(fd)

    def _move_up(self, parent: int, name: bytes) -> None:
        while True:
            self._moved += 1
            new_name = b".holdfast-deep-%d" % self._moved
            with suppress(FileNotFoundError):
                os.stat(new_name, dir_fd=self._top, follow_symlinks=False)
                continue
            os.rename(name, new_name, src_dir_fd=parent, dst_dir_fd=self._top)
            return


def _open_for_removal(dir_fd: int, name: bytes, mount: int) -> int:
    """Open a directory whose entries are to go, even if its mode forbids its owner that.

    Raises InvalidError where it is not of ``mount``.
    """
    try:
        fd = open_directory(name, dir_fd)
    except PermissionError:
        path_fd = os.open(name, _PATH_FLAGS, dir_fd=dir_fd)
        try:
            _check_mount(path_fd, mount)
            os.chmod(f"/proc/self/fd/{path_fd}", stat.S_IRWXU)
        finally:
            os.close(path_fd)
        fd = open_directory(name, dir_fd)
    try:
        _check_mount(fd, mount)
        if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            with suppress(PermissionError):
                os.fchmod(fd, stat.S_IRWXU)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_mount(fd: int, mount: int) -> None:
    if mount_of(fd) != mount:
        raise InvalidError("something is mounted in the tree: it is not removed")
