"""The ``holdfast`` command: one module per noun, loaded when its command is used.

Every failure ends here, as one line on standard error and a documented exit status
(``exit_codes``). A traceback means a bug.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

from holdfast.cli.base import exit_codes
from holdfast.cli.base.ending import take_signals
from holdfast.cli.base.output import reason_of, say_error
from holdfast.errors import HoldfastError

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVING: Final = frozenset({"gateway", "up", "watch", "worker"})
"""The commands that run until they are told to end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``arguments`` (``sys.argv`` by default); the exit status."""
    _open_standard_streams()
    _take_any_text()
    words = sys.argv[1:] if arguments is None else arguments
    if arguments is None:  # else it is not our process
        take_signals(is_serving=bool(words) and words[0] in SERVING)
    try:
        return _run(words)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush_or_forget(stream)


def _run(words: Sequence[str]) -> int:
    try:
        status = _status_of(words)
        sys.stdout.flush()
    except HoldfastError as error:
        say_error(error.code, error.detail)
        return exit_codes.exit_code_of(error)
    except BrokenPipeError:
        return exit_codes.BROKEN_PIPE
    except OSError as error:
        say_error("failed", reason_of(error))
        return exit_codes.FAILURE
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    return status


def _status_of(words: Sequence[str]) -> int:
    if list(words) == ["--version"]:
        print(own_version())
        return exit_codes.OK
    from holdfast.cli.app import run  # noqa: PLC0415 - a version needs no parser

    return run(words)


def own_version() -> str:
    """The version of this package, as it is installed."""
    from importlib.metadata import version  # noqa: PLC0415 - a tenth of a command's start

    return version("holdfast")


def _open_standard_streams() -> None:
    """Have all three, though our parent, a daemon say, closed them.

    Else a file opened next would be taken for one. To read or write a closed one fails, as it
    should; only text that nobody would be told anyway is written to nowhere.
    """
    closed = (("stdin", os.O_WRONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY))
    for number, (name, access) in enumerate(closed):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, access)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _take_any_text() -> None:
    """File names need not be UTF-8, nor what is piped in; a terminal need not know every letter."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")


def _flush_or_forget(stream: TextIO) -> None:
    """The interpreter flushes it once more when it ends: nobody may be there to take that."""
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
