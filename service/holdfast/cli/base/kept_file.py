"""Files of keys and tokens that commands change, and workers and gateways read again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from holdfast.errors import InvalidError
from holdfast.live_file import change_live_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EntryT = TypeVar("EntryT")


def read_file(
    file: str | None, variable: str, parse: Callable[[bytes], Sequence[EntryT]]
) -> Sequence[EntryT]:
    """The entries in ``file``, or the one that ``variable`` names. Raises InvalidError, OSError."""
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
    """Change ``file``, or the one that ``variable`` names: see ``change_live_file``."""
    change_live_file(_path(file, variable), parse, written, change, is_new=is_new)


def _path(file: str | None, variable: str) -> Path:
    named = file or os.environ.get(variable)
    if not named:
        raise InvalidError(f"say which file: --file, or ${variable}")
    return Path(named)
