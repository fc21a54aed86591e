"""Where downloads go: a file that appears in its place when every byte is there, or not at all.

Paths that are no file of their own are written through: pipes, devices, and names of open files in
/proc (``/dev/stdout`` is one), behind which there may be a file that somebody else goes on writing.
A link stays a link: the file it names is the one that is replaced.
"""

from __future__ import annotations

import asyncio
import io
import os
import secrets
import stat
import sys
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from itertools import batched
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol

from holdfast.client.from_thread import PIPE_STOP_SECONDS, STOP_SECONDS, DaemonThread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

_MAX_LINKS: Final = 40
"""As many as the kernel follows."""

_PARTS_AT_ONCE: Final = 1024
"""As many as Linux takes."""

_OPEN_FILES: Final = ("/proc/", "/dev/fd/")
_ENDING: Final = ".partial"
_ACCESS_LIST: Final = "system.posix_acl_access"
_PERMISSIONS: Final = 0o777
_GROUP: Final = 0o070


class SupportsWrite(Protocol):
    """A binary file object."""

    def write(self, data: memoryview, /) -> int | None:
        """Take ``data``, or say how much of it was taken."""


@contextmanager
def partial_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` on leaving, unless there was an exception.

    A former file stays until then. The new file has its mode, owner and access list, as far
    as this process may give them; where there was none, those of any new file. Until it is whole
    nobody else can open it. Another name of the former file (a hard link) keeps the former bytes.

    A pipe, a device or an open file in /proc is written to directly, and one of this process goes
    on where it is: there is nothing to replace. Raises OSError, with ``path`` as its file name.
    """
    try:
        target = _follow(Path(path))
        with _open_through(target) if _is_written_through(target) else _replacing(target) as file:
            yield file
    except OSError as error:
        # A name that nobody gave says nothing to the reader.
        if error.errno is None or (error.filename and _ENDING not in os.fsdecode(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _follow(path: Path) -> Path:
    """The path that ``path`` names in the end, be it there or not. Raises OSError."""
    for _ in range(_MAX_LINKS):
        try:
            link = os.readlink(path)
        except OSError:
            return path  # no link, or nothing at all
        if _is_open_file(path):
            return path
        path = path.parent / link
    return path  # opening it says what is wrong


def _is_open_file(path: Path) -> bool:
    """Whether it is not a name in a file system, but stands for what a process has open."""
    return f"{os.path.realpath(path.parent)}/".startswith(_OPEN_FILES)


def _is_written_through(target: Path) -> bool:
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) or _is_open_file(target)


def _open_through(target: Path) -> IO[bytes]:
    """``target`` for writing: a file of our own that is open goes on where it stands.

    Without a buffer, whose lock a thread would hold that writes to a pipe nobody reads.
    """
    folder = os.path.realpath(target.parent)
    if folder in {f"/proc/{os.getpid()}/fd", "/dev/fd"} and target.name.isdecimal():
        return os.fdopen(os.dup(int(target.name)), "wb", buffering=0)
    return target.open("wb", buffering=0)


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    # In a directory of its own, which nobody else may enter and whose name nobody can foresee: so
    # the file can have the mode and access list of any new one here before it is whole.
    name = f".{target.name[:50]}.{secrets.token_hex(8)}{_ENDING}"
    folder = target.with_name(name)
    folder.mkdir(mode=0o700)
    unfinished = folder / "file"
    try:
        with unfinished.open("xb", buffering=0) as file:
            yield file
            _keep_rights(target, file.fileno())
        unfinished.replace(target)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    finally:
        with suppress(OSError):
            folder.rmdir()


def _keep_rights(target: Path, file: int) -> None:
    """Give ``file`` the owner, mode and access list of ``target``, if that is there.

    Where it cannot go to the former group its own group gets no more than all others have.
    """
    try:
        former = target.stat()
    except FileNotFoundError:
        return
    mode = former.st_mode & _PERMISSIONS
    now = os.fstat(file)
    if now.st_uid != former.st_uid:
        with suppress(PermissionError):
            os.fchown(file, former.st_uid, -1)
    if now.st_gid != former.st_gid:
        try:
            os.fchown(file, -1, former.st_gid)
        except PermissionError:
            mode &= ~_GROUP | (mode & 0o007) << 3
    former_list = _access_list(target)
    if _access_list(file) is not None:
        os.removexattr(file, _ACCESS_LIST)  # inherited from the directory
    os.fchmod(file, mode)
    if former_list is not None:
        os.setxattr(file, _ACCESS_LIST, former_list)


def _access_list(file: Path | int) -> bytes | None:
    """None where there is none but the mode, or there cannot be any."""
    if sys.platform != "linux":
        return None
    try:
        return os.getxattr(file, _ACCESS_LIST)
    except OSError:
        return None


def write_whole(file: SupportsWrite, piece: memoryview) -> None:
    """Write all of ``piece``: a raw file may take less at a time. Raises OSError."""
    while piece:
        written = file.write(piece)
        if written is None and not isinstance(file, io.RawIOBase):
            return  # not everybody's ``write`` says how much; those that do not take all
        if not written:
            raise BlockingIOError("the target takes no more bytes")
        piece = piece[written:]


def write_parts(file: SupportsWrite, parts: Sequence[memoryview]) -> None:
    """Write ``parts`` one after the other, which the system does without a copy. Raises OSError."""
    if len(parts) == 1:
        write_whole(file, parts[0])
    elif type(file) is not io.FileIO:
        write_whole(file, memoryview(b"".join(parts)))
    else:
        for some in batched(parts, _PARTS_AT_ONCE):
            written = os.writev(file.fileno(), some)
            if written < sum(map(len, some)):
                write_whole(file, memoryview(b"".join(some))[written:])


@contextmanager
def opened_target(target: str | os.PathLike[str] | SupportsWrite) -> Iterator[SupportsWrite]:
    """The file to write to: a ``partial_file``, or the caller's file object as it is."""
    if isinstance(target, str | os.PathLike):
        with partial_file(target) as file:
            yield file
    else:
        yield target


def stop_seconds_of(file: SupportsWrite) -> float:
    """Seconds to wait for a write under way: to a pipe or a terminal it may never end."""
    try:
        mode = os.fstat(file.fileno()).st_mode  # type: ignore[attr-defined]  # or it has none
    except (AttributeError, OSError, ValueError):  # it is no file of the system
        return STOP_SECONDS
    return STOP_SECONDS if stat.S_ISREG(mode) else PIPE_STOP_SECONDS


async def write_to(
    target: str | os.PathLike[str] | SupportsWrite, incoming: AsyncGenerator[memoryview]
) -> int:
    """Write what comes to a path or file object; how many bytes. See ``partial_file``.

    When the caller is cancelled, a write under way is waited for, for ``stop_seconds_of`` the file.
    """
    size = 0
    async with aclosing(incoming):
        with opened_target(target) as file:
            # In a thread, so that the next window comes in meanwhile.
            thread = DaemonThread("holdfast-write")
            try:
                async for piece in incoming:
                    writing = thread.do(partial(write_whole, file, piece))
                    try:
                        await asyncio.shield(writing)
                    except asyncio.CancelledError:
                        await asyncio.wait([writing], timeout=stop_seconds_of(file))
                        raise
                    size += len(piece)
            finally:
                thread.end()
    return size
