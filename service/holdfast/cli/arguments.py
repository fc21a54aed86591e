"""What arguments of several commands have in common: ``-``, ``--json``, output files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

if TYPE_CHECKING:
    from typing import BinaryIO

    from holdfast.client.sources import SupportsRead

STANDARD: Final = "-"


def _not_an_option(_type: object, values: object) -> None:
    """Lets ``-`` pass, which the parser takes for an option, and nothing else that looks so."""
    for value in values if isinstance(values, list | tuple) else [values]:
        if str(value).startswith("-") and value != STANDARD:
            raise ValueError(f"there is no option {value}; a file of that name is ./{value}")


DASH: Final = Parameter(allow_leading_hyphen=True, validator=_not_an_option)
"""An argument that may be ``-``."""

Json = Annotated[bool, Parameter(help="JSON, an object per line.", negative="")]


def output_of(name: str) -> BinaryIO | Path:
    """Where bytes go: standard output for ``-``, a file of that name otherwise."""
    return sys.stdout.buffer if name == STANDARD else Path(name)


def standard_input() -> SupportsRead:
    """Standard input, read without a buffer.

    The interpreter takes the buffer's lock when it ends, and a thread that waits for a silent
    terminal would still hold it.
    """
    raw: SupportsRead = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return raw
