"""Comparing two trees in everything that a snapshot keeps, without a tool that might keep less."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One entry. ``links`` are all names of one file, ``is_sparse`` if it has holes."""

    kind: int
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    links: tuple[bytes, ...]
    is_sparse: bool


def look_at(root: Path | str) -> dict[bytes, Look]:
    """Every entry of the tree by relative path, the root being ``b""``.

    Works by descriptors, so that paths may be longer than the kernel takes.
    """
    found = {path: (status, content) for path, status, content in _walk(root)}
    names: dict[tuple[int, int], list[bytes]] = {}
    for path, (status, _) in found.items():
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault((status.st_dev, status.st_ino), []).append(path)
    return {
        path: Look(
            kind=stat.S_IFMT(status.st_mode),
            mode=stat.S_IMODE(status.st_mode),
            owner=(status.st_uid, status.st_gid),
            mtime_ns=status.st_mtime_ns,
            content=content,
            xattrs=xattrs,
            links=tuple(sorted(names.get((status.st_dev, status.st_ino), ()))),
            is_sparse=stat.S_ISREG(status.st_mode)
            and status.st_size >= 2**20
            and status.st_blocks * 512 < status.st_size,
        )
        for path, (status, (content, xattrs)) in found.items()
    }


def differences(one: Path | str, other: Path | str) -> dict[bytes, tuple[Look | None, Look | None]]:
    """The entries that differ between two trees, as they are in each."""
    left, right = look_at(one), look_at(other)
    return {
        path: (left.get(path), right.get(path))
        for path in sorted({*left, *right})
        if left.get(path) != right.get(path)
    }


type _Content = tuple[bytes, tuple[tuple[str, bytes], ...]]


def _walk(root: Path | str) -> Iterator[tuple[bytes, os.stat_result, _Content]]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    pending = [(b"", fd)]
    while pending:
        path, fd = pending.pop()
        yield path, os.fstat(fd), (b"", _xattrs(fd))
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            below = path + b"/" + name if path else name
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                pending.append((below, child))
            else:
                yield below, status, _content(fd, name, status)
        os.close(fd)


def _content(dir_fd: int, name: bytes, status: os.stat_result) -> _Content:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(name, dir_fd=dir_fd), ()
    if not stat.S_ISREG(status.st_mode):
        return b"", ()
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
    with os.fdopen(fd, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest(), _xattrs(fd)


def _xattrs(fd: int) -> tuple[tuple[str, bytes], ...]:
    return tuple(sorted((name, os.getxattr(fd, name)) for name in os.listxattr(fd)))
