"""Trees with everything in them that has ever broken an archiver, and comparing two of them."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LATIN_1 = b"caf\xe9"
OLD_NS = 1_600_000_000_123_456_789
SPARSE_BYTES = 3 * 2**20


def write(root: Path, name: str | bytes, data: bytes = b"", *, mode: int = 0o644) -> bytes:
    """Make the file ``name`` below ``root``, and what it lies in; its whole path."""
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)
    return path


def rewrite(root: Path, name: str, data: bytes) -> None:
    """Write the file again, until its change time shows it: the kernel's clock has coarse steps."""
    before = (root / name).stat().st_ctime_ns
    while (root / name).stat().st_ctime_ns == before:
        (root / name).write_bytes(data)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, always the same for one ``seed``."""
    import random

    return random.Random(seed).randbytes(size)  # noqa: S311 - not for secrets


def nasty(root: Path) -> None:
    """Fill the directory ``root`` with what an archive must bring back just as it was."""
    write(root, "empty")
    write(root, "one", b"1")
    write(root, "block", b"b" * 512)
    write(root, "own frame", noise(16_384, 1))
    write(root, "chunked", noise(2 * 2**20 + 17, 2))
    write(root, "a.b/after the directory", b"because . comes after the end")
    write(root, "a/inside", b"text\n" * 1000)
    write(root, LATIN_1, b"not UTF-8")
    write(root, "snow ☃/man", b"UTF-8")
    write(root, "setuid", b"#!", mode=0o6755)
    write(root, "n" * 255, b"a long name")
    write(root, "/".join(["deep" * 20] * 5) + "/end", b"a long path")
    (root / "empty directory").mkdir(mode=0o1777)
    (root / "dangling").symlink_to("nowhere/at all")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../../..")
    (root / ("long link " + "l" * 100)).symlink_to("t" * 1000)
    os.link(root / "one", root / "two")
    os.link(root / "chunked", root / "a" / "chunked, too")
    sparse(root / "sparse")
    sparse(root / "all hole", pieces=())
    for path in (root / "one", root / "a"):
        set_xattr(path, "user.note", b"\0binary\xff")
    os.utime(root / "one", ns=(OLD_NS, OLD_NS))
    os.utime(root / "empty", ns=(-1_500_000_000, -1_500_000_000))
    os.utime(root / "dangling", ns=(OLD_NS, OLD_NS), follow_symlinks=False)
    if os.geteuid() == 0:
        os.chown(root / "block", 1234, 3_000_000)


def sparse(path: Path, pieces: tuple[int, ...] = (2**20, 2 * 2**20)) -> None:
    """A file of SPARSE_BYTES that has data only at the given places."""
    with path.open("wb") as file:
        for piece in pieces:
            file.seek(piece)
            file.write(noise(4096, piece))
        file.truncate(SPARSE_BYTES)


def strange(root: Path) -> None:
    """Make a pipe and a socket, which are not archived."""
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(root, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)


def deep(root: Path, length: int) -> bytes:
    """A file whose path below ``root`` has ``length`` bytes; the path.

    Made piece by piece: the kernel takes no such path whole.
    """
    parts: list[bytes] = []
    fd = os.open(root, os.O_RDONLY)
    left = length
    while left > 200:
        name = b"d" * 99
        os.mkdir(name, dir_fd=fd)
        child = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
        parts.append(name)
        left -= 100
    name = b"f" * left
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
    os.close(fd)
    return b"/".join([*parts, name])


def set_xattr(path: Path, name: str, value: bytes) -> bool:
    """Set an attribute; False where the file system has none."""
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return False
        raise
    return True


def listing(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything about a tree that an archive keeps (times in whole seconds), by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    first_names: dict[int, bytes] = {}
    base = os.fsencode(root)
    stack = [b""]
    while stack:
        path = stack.pop()
        full = base + b"/" + path if path else base
        status = os.lstat(full)
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if kind == stat.S_IFREG:
            with open(full, "rb") as file:
                content = file.read()
        elif kind == stat.S_IFLNK:
            content = os.readlink(full)
        elif kind == stat.S_IFDIR:
            stack += [path + b"/" * bool(path) + name for name in os.listdir(full)]
        else:
            continue
        names = os.listxattr(full, follow_symlinks=False)
        found[path] = (
            kind,
            None if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns // 10**9,
            content,
            {n: os.getxattr(full, n, follow_symlinks=False) for n in names if "selinux" not in n},
            status.st_nlink if kind == stat.S_IFREG else 0,
        )
        first_names.setdefault(status.st_ino, path)
    return found
