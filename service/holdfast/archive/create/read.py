"""Reading the entries of a tree: links, extended attributes, holes and content.

A file opened is that of the walk: the same inode on the same device, a regular file, reached
without following a link. Anything else there now means that the entry has changed or vanished.

Some files have more or less than they claim: those that a kernel or a program makes up when they
are read. The bytes that can be read count, which are then held in memory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from holdfast.archive.chain import DirectoryChain, open_quietly
from holdfast.archive.ports import Described, FileReader, Scanned, Warn
from holdfast.archive.troubles import Troubles, changed, unreadable
from holdfast.domain.limits import KIB, MIB
from holdfast.form.entries import MAX_XATTRS, MAX_XATTRS_BYTES, Kind, clamped
from holdfast.form.sparse import MAX_SEGMENTS, to_blocks
from holdfast.form.terms import EntryWarning

MAX_MADE_UP_BYTES: Final = 64 * MIB
"""Of a file that does not have what it claims. It may never end."""

_READ_BYTES: Final = 256 * KIB
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_HOST_XATTRS: Final = frozenset({"security.selinux", "security.ima", "security.evm"})
"""Labels that belong to the host: its policy sets them, and refuses those of another."""

_NO_XATTRS: Final = frozenset({errno.ENOTSUP, errno.ENODATA})

type _Xattrs = tuple[tuple[bytes, bytes], ...]


class TreeReader:
    """Reads what a walk has found below the root of ``chain``."""

    def __init__(
        self, chain: DirectoryChain, troubles: Troubles, unlisted: set[bytes] | None = None
    ) -> None:
        """``unlisted`` are directories that the walk has warned of already."""
        self._chain = chain
        self._unlisted = set() if unlisted is None else unlisted
        self._troubles = troubles
        self._user = os.geteuid()
        self._made_up: tuple[bytes, bytes] | None = None

    def describe(self, scanned: Scanned, content_limit: int, warn: Warn) -> Described | None:
        """See ``ports.Source.describe``."""
        try:
            match scanned.kind:
                case Kind.FILE:
                    return self._file(scanned, content_limit, warn)
                case Kind.DIRECTORY:
                    return self._directory(scanned)
                case Kind.SYMLINK:
                    return self._symlink(scanned, warn)
                case Kind.HARDLINK:
                    return Described(size=0, mtime_ns=scanned.mtime_ns)
        except OSError as error:
            if scanned.path not in self._unlisted:
                self._troubles.failed(scanned.path, error, warn)
        except _UnfitError as error:
            self._troubles.refused(scanned.path, str(error), warn)
        if scanned.kind is Kind.DIRECTORY:  # stays: there may be entries below it
            return Described(size=0, mtime_ns=scanned.mtime_ns, settled=False)
        return None

    def open(self, scanned: Scanned, size: int, warn: Warn) -> FileReader | None:
        """See ``ports.Source.open``."""
        if self._made_up is not None and self._made_up[0] == scanned.path:
            content, self._made_up = self._made_up[1], None
            return _Content(content)
        try:
            fd = self._open(scanned)
        except OSError as error:
            self._troubles.failed(scanned.path, error, warn)
            return None
        status = os.fstat(fd)
        if not _is_same_file(status, scanned):
            os.close(fd)
            warn(_vanished(scanned))
            return None
        return _OpenFile(fd, scanned, size)

    def _symlink(self, scanned: Scanned, warn: Warn) -> Described | None:
        directory, name = os.path.split(scanned.path)
        fd = self._chain.at(directory)
        try:
            target = os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            warn(_vanished(scanned))  # it is no symlink any more
            return None
        xattrs = _xattrs(f"/proc/self/fd/{fd}/".encode() + name, follow_symlinks=False)
        return Described(size=0, mtime_ns=scanned.mtime_ns, target=target, xattrs=xattrs)

    def _directory(self, scanned: Scanned) -> Described:
        xattrs = _xattrs(self._chain.at(scanned.path))
        return Described(size=0, mtime_ns=scanned.mtime_ns, xattrs=xattrs)

    def _file(self, scanned: Scanned, content_limit: int, warn: Warn) -> Described | None:
        fd = self._open(scanned)
        try:
            content = None
            if scanned.size <= content_limit:
                # Read first and look afterwards: one fstat tells that it was the file of the
                # walk and that nothing has changed since. O_NONBLOCK makes other things harmless.
                content = os.read(fd, scanned.size + 1)
                is_true = len(content) == scanned.size
            else:
                is_true = len(os.pread(fd, 2, scanned.size - 1)) == 1
            status = os.fstat(fd)
            if not _is_same_file(status, scanned):
                warn(_vanished(scanned))
                return None
            xattrs = _xattrs(fd)
            is_unchanged = _is_unchanged(status, scanned)
            if is_unchanged and is_true:
                return Described(
                    size=scanned.size,
                    mtime_ns=scanned.mtime_ns,
                    xattrs=xattrs,
                    segments=_segments(fd, scanned.size, scanned.allocated),
                    content=content,
                )
            if is_unchanged and status.st_size == scanned.size:
                return self._all_there_is(fd, scanned, content or b"", xattrs, content_limit)
            warn(changed(scanned.path))
            return Described(
                size=status.st_size,
                mtime_ns=clamped(status.st_mtime_ns),
                xattrs=xattrs,
                segments=_segments(fd, status.st_size, status.st_blocks * 512),
                settled=False,
            )
        finally:
            os.close(fd)

    def _all_there_is(
        self, fd: int, scanned: Scanned, begin: bytes, xattrs: _Xattrs, content_limit: int
    ) -> Described:
        """A file that has not changed, and has not what it claims. ``begin`` was read already."""
        pieces = [begin]
        size = len(begin)
        while piece := os.read(fd, _READ_BYTES):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_MADE_UP_BYTES:
                msg = f"it claims {scanned.size} bytes, and has more than {MAX_MADE_UP_BYTES}"
                raise _UnfitError(msg)
        content = b"".join(pieces)
        if size > content_limit:  # it is opened next, and may say something else then
            self._made_up = scanned.path, content
        return Described(
            size=size,
            mtime_ns=scanned.mtime_ns,
            xattrs=xattrs,
            content=content if size <= content_limit else None,
            settled=False,  # nothing tells when it will have something else
        )

    def _open(self, scanned: Scanned) -> int:
        directory, name = os.path.split(scanned.path)
        dir_fd = self._chain.at(directory)
        if self._user in (0, scanned.uid):
            return open_quietly(name, _OPEN_FILE, dir_fd)
        return os.open(name, _OPEN_FILE, dir_fd=dir_fd)


class _OpenFile:
    def __init__(self, fd: int, scanned: Scanned, size: int) -> None:
        self._fd = fd
        self._scanned = scanned
        self._size = size
        self._is_short = False

    def read_into(self, buffer: memoryview, offset: int) -> None:
        have = 0
        while have < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[have:]], offset + have)
            except OSError as error:  # its header is written: too late to leave it out
                raise unreadable(self._scanned.path, error) from error
            if not count:
                self._is_short = True
                buffer[have:] = bytes(len(buffer) - have)
                return
            have += count

    def close(self) -> bool:
        try:
            status = os.fstat(self._fd)
            return (
                not self._is_short
                and status.st_size == self._size
                and _is_unchanged(status, self._scanned)
            )
        finally:
            os.close(self._fd)


class _Content:
    """A file of which all is in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read_into(self, buffer: memoryview, offset: int) -> None:
        buffer[:] = self._content[offset : offset + len(buffer)]

    def close(self) -> bool:
        return True


class _UnfitError(Exception):
    """An entry cannot be archived."""


def _xattrs(file: int | bytes, *, follow_symlinks: bool = True) -> _Xattrs:
    """Names and values in the order of the names. Empty where the file system has none."""
    try:
        names = os.listxattr(file, follow_symlinks=follow_symlinks)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise
    if not names:
        return ()
    found = []
    for name in sorted(set(names) - _HOST_XATTRS):
        try:
            value = os.getxattr(file, name, follow_symlinks=follow_symlinks)
        except OSError as error:
            if error.errno in _NO_XATTRS:  # removed a moment ago
                continue
            raise
        found.append((os.fsencode(name), value))
    if len(found) > MAX_XATTRS or sum([len(n) + len(v) for n, v in found]) > MAX_XATTRS_BYTES:
        raise _UnfitError("too many extended attributes")
    return tuple(found)


def _segments(fd: int, size: int, allocated: int) -> tuple[tuple[int, int], ...] | None:
    """Where a file of ``size`` bytes has data, or None if it is all data, or in too many pieces.

    Only asked where the file occupies less than its size.
    """
    if allocated >= size:
        return None
    found: list[tuple[int, int]] = []
    end = 0
    try:
        while end < size:
            start = os.lseek(fd, end, os.SEEK_DATA)
            if start >= size:
                break
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            found.append((start, end - start))
            if len(found) > MAX_SEGMENTS:
                return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a file system that does not tell
            return None
        if error.errno != errno.ENXIO:  # that is: nothing but a hole from there on
            raise
    segments = to_blocks(found, size)
    return None if segments == ((0, size),) else segments


def _is_same_file(status: os.stat_result, scanned: Scanned) -> bool:
    return (
        status.st_ino == scanned.inode
        and status.st_dev == scanned.device
        and stat.S_ISREG(status.st_mode)
    )


def _is_unchanged(status: os.stat_result, scanned: Scanned) -> bool:
    """Whether the content is what the walk saw. A new link or mode changes the ctime alone."""
    return status.st_ctime_ns == scanned.ctime_ns or (
        status.st_size == scanned.size and clamped(status.st_mtime_ns) == scanned.mtime_ns
    )


def _vanished(scanned: Scanned) -> EntryWarning:
    return EntryWarning(
        kind="vanished", path=scanned.path, detail="another file was there when it was to be read"
    )
