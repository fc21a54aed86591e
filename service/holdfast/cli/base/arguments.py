"""Arguments of several commands: ``-``, ``--json``, labels, output files."""

from __future__ import annotations

import re
import sys
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

from cyclopts import Parameter

from holdfast.domain.names import check_labels
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.client.sources import SupportsRead

STANDARD: Final = "-"

_DURATION: Final = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

_LONGEST: Final = timedelta(weeks=520)
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

Flag: Final = Parameter(negative="", show_default=False)
Many: Final = Parameter(negative="", negative_iterable="", show_default=False)

Json = Annotated[bool, Parameter(help="Print JSON, one object per line.", negative="")]
Label = Annotated[tuple[str, ...], Many, Parameter(help="KEY=VALUE; may be repeated.")]
OnlyLabel = Annotated[
    tuple[str, ...], Many, Parameter(help="Only with the label KEY=VALUE; may be repeated.")
]
Output = Annotated[str, DASH, Parameter(name=("--output", "-o"), help="File to write.")]
Offset = Annotated[int, Parameter(help="First byte to read.")]
Length = Annotated[int | None, Parameter(help="Number of bytes at most.")]


def output_of(name: str) -> BinaryIO | Path:
    """Where bytes go: standard output for ``-``, a file of that name otherwise.

    Raises InvalidError for an empty name, which would be this directory.
    """
    if not name:
        raise InvalidError("the name of the file to write is empty")
    return standard_output() if name == STANDARD else Path(name)


def input_of(name: str) -> SupportsRead | Path:
    """Where bytes come from: standard input for ``-``, the file of that name otherwise."""
    return standard_input() if name == STANDARD else Path(name)


def total_size(names: Iterable[str]) -> int | None:
    """Bytes of the files together, None where that cannot be known."""
    try:
        return sum(Path(name).stat().st_size for name in names if name != STANDARD) or None
    except OSError:
        return None


def first_words(lines: Iterable[str]) -> Iterator[str]:
    r"""The first word of each line: of a list that this command or ``sha256sum`` has written.

    ``sha256sum`` begins a line whose name it escaped with a backslash.
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


def standard_output() -> BinaryIO:
    """Standard output, written without a buffer, for the same reason."""
    sys.stdout.flush()
    raw: BinaryIO = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    return raw


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping. Raises InvalidError."""
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidError(f"a label is KEY=VALUE, and {text!r} is not")
        if key in labels:
            raise InvalidError(f"label {key} is given twice")
        labels[key] = value
    check_labels(labels)
    return labels


def parse_duration(text: str) -> timedelta | None:
    """The time in ``90m`` or ``2d``; None where ``text`` is no duration."""
    found = _DURATION.fullmatch(text)
    return None if found is None else timedelta(**{_UNITS[found[2]]: int(found[1])})


def parse_long_duration(text: str) -> timedelta:
    """As `parse_duration`, of up to ten years. Raises InvalidError."""
    duration = parse_duration(text)
    if duration is None or duration > _LONGEST:
        raise InvalidError(f"a duration is 90m, 12h or 1d, at most 520w, and {text!r} is not")
    return duration
