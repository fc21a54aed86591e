"""Directory trees as hostile as a file system allows, and what they look like from outside."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

KIB: Final = 1024
MIB: Final = 1024 * KIB
MTIME_NS: Final = 1_234_567_890_123_456_789
SIZES: Final = (0, 1, 511, 512, 513, 16 * KIB - 1, 16 * KIB, 512 * KIB - 1, 512 * KIB, 5 * MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One entry as ``lstat`` and reading show it."""

    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: str
    attributes: tuple[tuple[bytes, bytes], ...]
    same_file_as: bytes
    sparse: bool


def look(tree: Path) -> dict[bytes, Seen]:
    """Everything in ``tree``, itself (``.``) included, by relative path."""
    first_paths: dict[tuple[int, int], bytes] = {}
    root = os.fsencode(tree)
    seen = {}
    for path in sorted(_paths(root)):
        status = os.lstat(path)
        relative = os.path.relpath(path, root)
        first = first_paths.setdefault((status.st_dev, status.st_ino), relative)
        seen[relative] = Seen(
            mode=status.st_mode,
            owner=(status.st_uid, status.st_gid),
            mtime_ns=status.st_mtime_ns,
            content=_content(path, status),
            attributes=_attributes(path),
            same_file_as=first,
            sparse=stat.S_ISREG(status.st_mode) and status.st_blocks * 512 < status.st_size // 2,
        )
    return seen


def contents(tree: Path) -> dict[bytes, str]:
    """The content of the files and links of ``tree``, by relative path."""
    return {path: each.content for path, each in look(tree).items()}


def difference(before: dict[bytes, Seen], after: dict[bytes, Seen]) -> Sequence[object]:
    """The first few entries that differ: nothing when both are the same."""
    paths = sorted(before.keys() | after.keys())
    return [
        (path[:80], before.get(path), after.get(path))
        for path in paths
        if before.get(path) != after.get(path)
    ][:5]


def _paths(root: bytes) -> Iterator[bytes]:
    yield root
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            yield os.path.join(directory, name)


def _content(path: bytes, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return repr(os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _attributes(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return tuple(
        (os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names
    )


def nasty_tree(root: Path) -> Path:
    """Everything that restoring is known to get wrong. Needs root for owners."""
    root.mkdir()
    for size in SIZES:
        (root / f"file-{size:07}").write_bytes(random.Random(size).randbytes(size))  # noqa: S311
    _names(root)
    _links(root)
    _sparse(root)
    _modes(root)
    _set_times(root)
    return root


def _names(root: Path) -> None:
    (root / "empty directory").mkdir()
    (root / "a\nnewline").write_bytes(b"newline")
    (root / " leading and trailing ").write_bytes(b"spaces")
    (root / "-rf").write_bytes(b"dash")
    (root / "*?[a]\\{b}").write_bytes(b"glob")
    (root / "ünïcödé 文字").write_bytes(b"unicode")
    with open(os.fsencode(root) + b"/not \xff\xfe utf-8", "wb") as file:
        file.write(b"bytes")
    (root / ("n" * 255)).write_bytes(b"long name")
    deep = root / "long"
    for length in (60, 60, 100):
        deep /= "d" * length
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"path beyond 100 characters")
    (deep / ("e" * 200)).write_bytes(b"path beyond 255 characters")
    very_deep = root / "very-long"
    while len(os.fsencode(very_deep.relative_to(root))) < 3740:
        very_deep /= "v" * 249
    very_deep.mkdir(parents=True)
    last = 4000 - len(os.fsencode(very_deep.relative_to(root))) - 1
    (very_deep / ("w" * last)).write_bytes(b"path of 4,000 bytes")


def _links(root: Path) -> None:
    directory = root / "links"
    directory.mkdir()
    (directory / "dangling").symlink_to("nowhere")
    (directory / "absolute").symlink_to("/etc/passwd")
    (directory / "outside").symlink_to("../../../somewhere")
    (directory / "to-directory").symlink_to("../empty directory")
    (directory / "to-itself").symlink_to("to-itself")
    (directory / "long").symlink_to("t" * 300)
    os.symlink(b"\xff\xfe", os.fsencode(directory) + b"/to-bytes")
    os.link(root / "file-0000513", directory / "hard")
    (root / "zz").mkdir()
    os.link(root / "file-0000513", root / "zz" / "hard, in another directory")
    os.link(root / "file-5242880", root / "zz" / "large and hard")
    os.link(root / "file-0000000", root / "zz" / "empty and hard")


def _sparse(root: Path) -> None:
    with (root / "sparse").open("wb") as file:
        for start in (0, 3 * MIB, 9 * MIB):
            file.seek(start)
            file.write(random.Random(start).randbytes(64 * KIB))  # noqa: S311
        file.truncate(16 * MIB)
    with (root / "nothing but a hole").open("wb") as file:
        file.truncate(2 * MIB)


def _modes(root: Path) -> None:
    modes = root / "modes"
    modes.mkdir()
    for number, mode in enumerate((0o4755, 0o2755, 0o1777, 0o000, 0o400, 0o7777)):
        path = modes / f"{number}"
        path.write_bytes(b"%o" % mode)
        os.chown(path, 10_000 + number, 3_000_000 + number)
        path.chmod(mode)
    for number, mode in enumerate((0o2775, 0o1777, 0o500)):
        path = modes / f"directory-{number}"
        path.mkdir()
        (path / "within").write_bytes(b"within")
        path.chmod(mode)
    os.chown(modes / "directory-1", 65534, 65534)
    link = modes / "link"
    link.symlink_to("0")
    os.lchown(link, 12_345, 54_321)
    with suppress(OSError):  # not every file system has them
        os.setxattr(root / "file-0000512", b"user.comment", b"binary \x00\xff value")
        os.setxattr(root / "empty directory", b"user.of-directory", b"d")
        os.setxattr(root / "sparse", b"user.large", b"x" * 2000)
        subprocess.run(
            ["setfacl", "-m", "u:1234:rw,g:4321:r", root / "file-0000511"],
            check=False,
            capture_output=True,
        )
        subprocess.run(
            ["setfacl", "-d", "-m", "u:1234:rwx", root / "empty directory"],
            check=False,
            capture_output=True,
        )


def _set_times(root: Path) -> None:
    """Times that are not now, deepest first: making an entry changes its directory's."""
    for number, path in enumerate(sorted(_paths(os.fsencode(root)), reverse=True)):
        at = MTIME_NS + number * 1_000_000_007
        os.utime(path, ns=(at, at), follow_symlinks=False)
    os.utime(root / "file-0000001", ns=(-1_500_000_000, -1_500_000_000))
    os.utime(root, ns=(MTIME_NS, MTIME_NS))


def wreck(tree: Path) -> None:
    """Spoil a nasty tree in every way: kinds, contents, metadata, what is missing, what is new."""
    (tree / "file-0000001").unlink()
    (tree / "file-0000001").mkdir()
    (tree / "file-0000001" / "within").write_bytes(b"within")
    shutil.rmtree(tree / "empty directory")
    (tree / "empty directory").symlink_to("links")
    (tree / "links" / "dangling").unlink()
    (tree / "links" / "dangling").write_bytes(b"a file now")
    (tree / "links" / "absolute").unlink()
    (tree / "links" / "absolute").symlink_to("elsewhere")
    (tree / "links" / "hard").unlink()
    (tree / "links" / "hard").write_bytes(b"another file now")
    os.link(tree / "file-0000512", tree / "linked without leave")
    (tree / "file-0524288").write_bytes(b"shorter")
    with (tree / "file-5242880").open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed in the middle")
    (tree / "sparse").write_bytes(bytes(16 * MIB))
    shutil.rmtree(tree / "long")
    (tree / "modes" / "0").chmod(0o600)
    os.chown(tree / "modes" / "1", 0, 0)
    (tree / "new" / "and" / "deep").mkdir(parents=True)
    (tree / "new" / "file").write_bytes(b"new")
    with suppress(OSError):
        os.setxattr(tree / "file-0000513", b"user.unwanted", b"1")
        os.setxattr(tree / "file-0000512", b"user.comment", b"other")


def leftovers(apps: Path) -> list[str]:
    """The names beside the apps: stagings."""
    return [entry.name for entry in apps.iterdir() if entry.name.startswith(".")]


def call(*command: str | Path, **given: Any) -> bytes:
    """The output of ``command`` on stdout. Raises CalledProcessError."""
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, **given
    )
    return done.stdout


def plain_tree(root: Path, *, files: int, size: int, seed: int) -> Path:
    """``files`` files of about ``size`` random bytes in a few directories."""
    rng = random.Random(seed)  # noqa: S311
    root.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        directory = root / f"d{number % 5}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number:04}").write_bytes(rng.randbytes(rng.randint(1, 2 * size)))
    return root


needs_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="sets owners, so needs root")
