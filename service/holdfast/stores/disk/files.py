"""The file operations under the disk stores, each of them one step that a crash can follow.

Everything that changes the disk goes through `Files`, so that a test can cut off after any step.
A step promises after a power cut what POSIX and a measurement on ext4 say: a file's bytes
are there once it was synced, a name once its directory was synced after the change.

Nothing here follows a link or waits for a pipe: what stands where a regular file should be was
planted, and is reported as corrupt.

Why: docs/decisions.md, "The crash tests cut off after every step".
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Concatenate, Final

from holdfast.errors import CorruptError, OutcomeUnknownError, QuotaExceededError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable, Iterable, Iterator
    from pathlib import Path

MARKER: Final = "holdfast-store"
"""A root without this file is a volume that is not mounted, or not ours: never "empty"."""

DIRECTORIES: Final = ("blobs", "staging", "tmp", "quarantine")

LOCK_STEP_SECONDS: Final = 0.002
_REWRITTEN_BYTES: Final = 1024 * 1024
_FORMAT: Final = b"holdfast disk store 2\n"
_OLD_FORMAT: Final = b"holdfast disk store 1\n"
"""The same form. Workers that know this one alone do not write as a collector counts on."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_EVEN_OPENED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOENT})
_NOT_A_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENOTDIR})


class Files:
    """The steps. Each raises OSError; none of them is repeated or repaired here."""

    def create(self, path: Path) -> int:
        """A descriptor for writing a file that did not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)

    def write(self, descriptor: int, data: Buffer) -> None:
        """Append all of ``data``."""
        with memoryview(data).cast("B") as view:
            done = 0
            while done < len(view):
                done += os.write(descriptor, view[done:])

    def sync(self, descriptor: int) -> None:
        """Make the written bytes durable."""
        os.fsync(descriptor)

    def touch(self, descriptor: int) -> None:
        """Make the present time that of the file's last change, or one just after it; durably.

        Clocks of file systems stand still for milliseconds.
        """
        before = os.fstat(descriptor).st_mtime_ns
        os.utime(descriptor)
        if os.fstat(descriptor).st_mtime_ns <= before:
            os.utime(descriptor, ns=(before + 1, before + 1))
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor that `create` returned."""
        os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """Give the file a second name. FileExistsError if taken: exactly one of many succeeds."""
        os.link(source, target, follow_symlinks=False)

    def rename(self, source: Path, target: Path) -> None:
        """Move a name. FileNotFoundError if it is gone: exactly one of many succeeds."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        path.unlink()

    def mkdir(self, path: Path) -> None:
        """Make a directory that did not exist."""
        path.mkdir(mode=0o700)

    def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def rewrite(self, path: Path) -> None:
        """Write a file's bytes once more, and sync it, for a sync that failed has lost it.

        The caller sees to it that nobody else writes.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            offset = 0
            while piece := os.pread(descriptor, _REWRITTEN_BYTES, offset):
                offset += os.pwrite(descriptor, piece, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make the names in ``path`` durable, as they are now."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unless_failed[**P, T](
    step: Callable[Concatenate[Files, P], T],
) -> Callable[Concatenate[FailStop, P], T]:
    """``step``, refused once a directory could not be synced."""
    name = step.__name__

    @functools.wraps(step)
    def take(self: FailStop, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.refuse_after_failure()
        done: T = getattr(self._files, name)(*args, **kwargs)
        return done

    return take


class FailStop(Files):
    """`Files` that refuse every further change once a directory could not be synced.

    A second sync would report success without having written what the first one lost, and names,
    unlike a temporary file, cannot be thrown away and written anew. Reading goes on.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._failed = False

    def refuse_after_failure(self) -> None:
        """Raises OSError if a directory could not be synced before."""
        if self._failed:
            raise OSError(errno.EROFS, "a directory could not be synced")

    create = _unless_failed(Files.create)
    touch = _unless_failed(Files.touch)
    link = _unless_failed(Files.link)
    rename = _unless_failed(Files.rename)
    unlink = _unless_failed(Files.unlink)
    mkdir = _unless_failed(Files.mkdir)
    rmdir = _unless_failed(Files.rmdir)
    rewrite = _unless_failed(Files.rewrite)

    def write(self, descriptor: int, data: Buffer) -> None:
        self._files.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self._files.sync(descriptor)

    def close(self, descriptor: int) -> None:
        self._files.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        self.refuse_after_failure()
        try:
            self._files.sync_directory(path)
        except OSError as error:
            self._failed = error.errno not in _NOT_EVEN_OPENED
            raise


def write_file(files: Files, path: Path, pieces: Iterable[Buffer]) -> None:
    """Write ``pieces`` to the new file ``path`` and sync it; its name is not durable yet.

    On any failure the file is removed. In particular nothing is kept after a failed sync: the
    kernel may have dropped the pages and would call the next sync of the same file a success.
    """
    descriptor = files.create(path)
    try:
        try:
            for piece in pieces:
                files.write(descriptor, piece)
            files.sync(descriptor)
        finally:
            files.close(descriptor)
    except BaseException:
        with suppress(OSError):
            files.unlink(path)
        raise


def ensure_directory(files: Files, path: Path) -> None:
    """Make ``path``, unless it is there, and make its name durable either way.

    Its maker may not have synced it yet, so finding it is no reason to skip that.
    """
    with suppress(FileExistsError):
        files.mkdir(path)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise CorruptError("something other than a directory stands in the store's way")
    files.sync_directory(path.parent)


def open_regular(path: Path) -> int:
    """A descriptor for reading ``path``, whose directory is no symbolic link either.

    Raises FileNotFoundError, and CorruptError if it is anything but a regular file.
    """
    try:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a planted pipe must not hang us
            descriptor = os.open(path.name, flags, dir_fd=parent)
        finally:
            os.close(parent)
    except OSError as error:
        if error.errno in _NOT_A_FILE:
            raise CorruptError("the path in the store is not a regular file") from error
        raise
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        os.close(descriptor)
        raise
    if not regular:
        os.close(descriptor)
        raise CorruptError("the path in the store is not a regular file")
    return descriptor


def read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    """``length`` bytes from ``offset``, fewer only where the file ends."""
    pieces = []
    while length > 0 and (piece := os.pread(descriptor, length, offset)):
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def read_regular(path: Path) -> bytes:
    """All of a regular file. Raises as `open_regular` does."""
    descriptor = open_regular(path)
    try:
        return read_exactly(descriptor, 0, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def create_disk_store(root: Path, files: Files | None = None) -> None:
    """Make ``root`` a disk store, as an operator does once, and no worker ever does.

    May be repeated; what is stored stays. Raises UnavailableError, QuotaExceededError.
    """
    files = files or Files()
    with translated():
        if not root.exists():
            root.mkdir(mode=0o700, parents=True)
        for name in DIRECTORIES:
            ensure_directory(files, root / name)
        if not (root / MARKER).exists():
            _mark(root, files)


def raise_disk_format(root: Path) -> None:
    """Have workers of an older version refuse the store. Raises UnavailableError."""
    confirm_disk_store(root)
    with translated():
        if read_regular(root / MARKER) != _FORMAT:
            _mark(root, Files())


def _mark(root: Path, files: Files) -> None:
    temporary = root / "tmp" / MARKER
    with suppress(FileNotFoundError):
        files.unlink(temporary)
    write_file(files, temporary, [_FORMAT])
    files.rename(temporary, root / MARKER)
    files.sync_directory(root)


def confirm_disk_store(root: Path) -> None:
    """Raises UnavailableError unless ``root`` holds a disk store of this format.

    Asked before anything is called missing: an empty mount point has no blobs either.
    """
    try:
        content = read_regular(root / MARKER)
    except (OSError, CorruptError) as error:
        msg = "no disk store was found at the configured path; mount it, or create it once"
        raise UnavailableError(msg) from error
    if content not in {_FORMAT, _OLD_FORMAT}:
        msg = "the disk store has another format; use the version of holdfast that wrote it"
        raise UnavailableError(msg)


def remove_directory(files: Files, directory: Path) -> None:
    """Remove a directory of files, last of all itself. Never follows a link."""
    if directory.is_symlink():
        raise CorruptError("something other than a directory stands in the store's way")
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):
            files.unlink(directory / name)
    files.rmdir(directory)


def check_disk_store(root: Path, files: FailStop) -> None:
    """Raises UnavailableError unless the store is there and takes changes."""
    confirm_disk_store(root)
    try:
        files.refuse_after_failure()
    except OSError as error:
        msg = "the disk failed to sync and takes no changes; check it, then restart"
        raise UnavailableError(msg) from error


def entries_before(directory: Path, before: float) -> list[Path]:
    """Entries of ``directory`` last changed earlier than ``before`` (seconds since 1970)."""
    found = []
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            if path.lstat().st_mtime < before:
                found.append(path)
    return found


def sync_change(files: Files, directory: Path) -> None:
    """Make a change of names durable that is visible already. Raises OutcomeUnknownError."""
    try:
        files.sync_directory(directory)
    except OSError as error:
        raise OutcomeUnknownError("the disk did not confirm the change") from error


@contextmanager
def locked(directory: Path, until: float, otherwise: str) -> Iterator[None]:
    """Keep other threads and processes from locking ``directory``, which goes away with them.

    Raises UnavailableError, with the text ``otherwise`` where another has it ``until`` that time by
    `time.monotonic`.
    """
    with translated():
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        take_lock(descriptor, until, otherwise)
        yield
    finally:
        os.close(descriptor)


def take_lock(descriptor: int, until: float, otherwise: str) -> None:
    """Lock the open ``descriptor``; closing it lets go. Raises as `locked`."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise UnavailableError(otherwise) from None
            time.sleep(LOCK_STEP_SECONDS)
        else:
            return


@contextmanager
def translated() -> Iterator[None]:
    """Turn OSError into an error the caller can act on; for steps that left nothing behind."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown error")
        if error.errno in _FULL:
            raise QuotaExceededError(f"the disk store is full ({name})") from error
        raise UnavailableError(f"the disk store could not be used ({name})") from error
