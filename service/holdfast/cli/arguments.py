"""What arguments of several commands have in common: ``-``, ``--json``, output files."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from holdfast.client.sources import SupportsRead

STANDARD: Final = "-"


_END_OF_OPTIONS: Final = "--"
_literal: ContextVar[frozenset[str]] = ContextVar("literal", default=frozenset())


def note_literal(arguments: Sequence[str]) -> None:
    """Remember what comes after ``--``: none of it is an option."""
    words = list(arguments)
    after = words[words.index(_END_OF_OPTIONS) + 1 :] if _END_OF_OPTIONS in words else []
    _literal.set(frozenset(after))


def _not_an_option(_type: object, values: object) -> None:
    """Lets ``-`` pass, which the parser takes for an option, and nothing else that looks so."""
    for value in values if isinstance(values, list | tuple) else [values]:
        if str(value).startswith("-") and value != STANDARD and value not in _literal.get():
            raise ValueError(f"there is no option {value}; a file of that name is ./{value}")


DASH: Final = Parameter(allow_leading_hyphen=True, validator=_not_an_option)
"""An argument that may be ``-``."""

Json = Annotated[bool, Parameter(help="Print JSON, one object per line.", negative="")]


def output_of(name: str) -> BinaryIO | Path:
    """Where bytes go: standard output for ``-``, a file of that name otherwise.

    Raises InvalidError for an empty name, which would be this directory.
    """
    if not name:
        raise InvalidError("the name of the file to write is empty")
    return sys.stdout.buffer if name == STANDARD else Path(name)


def first_words(lines: Iterable[str]) -> Iterator[str]:
    r"""The first word of each line: of a list that this command or ``sha256sum`` has written.

    That one begins a line with a backslash whose file name it has escaped.
    """
    for line in lines:
        if words := line.split():
            yield words[0].removeprefix("\\")


def standard_input() -> SupportsRead:
    """Standard input, read without a buffer.

    The interpreter takes the buffer's lock when it ends, and a thread that waits for a silent
    terminal would still hold it.
    """
    raw: SupportsRead = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return raw
