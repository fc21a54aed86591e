"""A small file that is read again when it changes: keys and tokens that people edit."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from holdfast.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
EntryT = TypeVar("EntryT")
ParsedT = TypeVar("ParsedT")


class LiveFile(Generic[ParsedT]):
    """The content of a file as it is now. A writer renames another file to it."""

    def __init__(self, path: str, parse: Callable[[bytes], ParsedT]) -> None:
        """``parse`` raises InvalidError."""
        self.path = Path(path)
        self._parse = parse
        self._read: tuple[tuple[int, ...], ParsedT] | None = None

    def read(self) -> ParsedT:
        """Raises UnavailableError where it cannot be read or says nothing: nothing is remembered.

        It is looked at each time, which takes microseconds.
        """
        try:
            with self.path.open("rb") as file:
                mark = _mark(file.fileno())
                if self._read is None or self._read[0] != mark:
                    self._read = mark, self._parse(checked_size(file.read(MAX_FILE_BYTES + 1)))
        except OSError as error:
            self._read = None
            raise UnavailableError(f"{self.path}: {error.strerror}") from error
        except InvalidError as error:
            self._read = None
            raise UnavailableError(f"{self.path}: {error.detail}") from error
        return self._read[1]


def checked_size(data: bytes) -> bytes:
    """``data`` of such a file. Raises InvalidError where it is too much to be read again."""
    if len(data) > MAX_FILE_BYTES:
        msg = f"such a file has at most {MAX_FILE_BYTES} bytes"
        raise InvalidError(msg)
    return data


def change_live_file(
    path: Path,
    parse: Callable[[bytes], Sequence[EntryT]],
    written: Callable[[Sequence[EntryT]], bytes],
    change: Callable[[Sequence[EntryT]], Sequence[EntryT]],
    *,
    is_new: bool = False,
) -> None:
    """Replace the file by a changed one; ``is_new``: or make it, for its owner alone to read.

    It is there whole at any time, its mode and owner stay, and what would not be read again is not
    written. Changes of the files of one directory take turns, those of other processes, too. Raises
    InvalidError, OSError, and what ``change`` does.
    """
    with _turn_in(path.parent) as directory:
        present: Sequence[EntryT] = ()
        status = None
        if not is_new or path.exists():
            present, status = parse(path.read_bytes()), path.stat()
        text = written(change(present))
        _put(path, checked_size(text), parse, status)
        os.fsync(directory)  # from here on a power cut does not bring back what the file was


def _put(
    path: Path,
    text: bytes,
    parse: Callable[[bytes], object],
    status: os.stat_result | None,
) -> None:
    """Put a file with ``text``, and the owner and mode of ``status``, in the place of ``path``.

    Raises InvalidError of what would not be read again, OSError.
    """
    parse(text)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            new.write(text)
            new.flush()
            if status is not None:
                os.fchown(new.fileno(), status.st_uid, status.st_gid)
                os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
            os.fsync(new.fileno())
            Path(new.name).replace(path)
        except BaseException:
            Path(new.name).unlink()
            raise


@contextmanager
def _turn_in(directory: Path) -> Iterator[int]:
    """Its descriptor, while nobody else has a turn in it; a process that ends has none any more."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _mark(file: int) -> tuple[int, ...]:
    """Values of which one differs between two states of a file."""
    found = os.fstat(file)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
