"""Files of keys and tokens that commands change, and workers and gateways read again."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from holdfast.errors import InvalidError
from holdfast.live_file import checked_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EntryT = TypeVar("EntryT")


def read_file(
    file: str | None, variable: str, parse: Callable[[bytes], Sequence[EntryT]]
) -> Sequence[EntryT]:
    """What is in ``file``, or the one that ``variable`` names. Raises InvalidError, OSError."""
    return parse(_path(file, variable).read_bytes())


def change_file(
    file: str | None,
    variable: str,
    parse: Callable[[bytes], Sequence[EntryT]],
    written: Callable[[Sequence[EntryT]], bytes],
    change: Callable[[Sequence[EntryT]], Sequence[EntryT]],
    *,
    is_new: bool = False,
) -> None:
    """Replace the file by a changed one; ``is_new``: or make it, for its owner alone to read.

    It is there whole at any time, its mode and owner stay, and what would not be read again is not
    written. Of two commands at once one may be forgotten. Raises InvalidError, OSError, and what
    ``change`` does.
    """
    path = _path(file, variable)
    present: Sequence[EntryT] = ()
    status = None
    if not is_new or path.exists():
        present, status = parse(path.read_bytes()), path.stat()
    text = written(change(present))
    parse(checked_size(text))
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
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """From here on a power cut does not bring back what a file of it was."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path(file: str | None, variable: str) -> Path:
    named = file or os.environ.get(variable)
    if not named:
        raise InvalidError(f"say which file: --file, or ${variable}")
    return Path(named)
