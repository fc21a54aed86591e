"""The output of commands: results to standard output, all else to standard error.

Text that comes from file names or from a bucket is escaped before it reaches a terminal. A progress
bar appears only on a terminal, and never between results.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from holdfast.runtime.escapes import escape_control

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from rich.console import Console

    type ReadTo = Callable[..., Awaitable[object]]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def print_line(*columns: object) -> None:
    """One line of results, its columns two spaces apart."""
    print("  ".join(escape_control(str(column)) for column in columns))


def print_json(value: Any) -> None:
    """``value`` (plain, or a message) as one line of JSON, all ASCII."""
    import msgspec  # noqa: PLC0415 - no help needs it

    print(json.dumps(msgspec.to_builtins(value)))


def print_result(value: Any, *columns: object, json: bool) -> None:
    """``value`` as a line of JSON, or without ``json`` a line of ``columns``."""
    if json:
        print_json(value)
    else:
        print_line(*columns)


def print_fields(message: Any, *, json: bool, width: int = 12) -> None:
    """A message as a line of JSON, or a line for each field, its name ``width`` columns wide."""
    import msgspec  # noqa: PLC0415 - no help needs it

    if json:
        print_json(message)
        return
    for name, value in msgspec.to_builtins(message).items():
        print_line(f"{name:{width}}", _shown(value))


def _shown(value: object) -> object:
    """``value`` without the punctuation of JSON."""
    if isinstance(value, dict):
        return " ".join(f"{key}={text}" for key, text in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    return "-" if value is None else value


def say(text: str) -> None:
    """A line for the person at the terminal, on standard error, if anybody can be told."""
    with suppress(OSError):
        print("\n".join(escape_control(line) for line in text.split("\n")), file=sys.stderr)


def is_agreed(question: str) -> bool:
    """Ask where there is somebody to ask; scripts have said what they want."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def say_error(code: str, detail: str) -> None:
    """Why the command fails, on standard error."""
    say(f"holdfast: {code}: {detail}")


def reason_of(error: OSError) -> str:
    """The system's reason, as other commands tell it: ``file: No such file or directory``."""
    said = error.strerror or str(error) or type(error).__name__
    names = [
        os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, str | bytes)
    ]
    return ": ".join([*names, said])


def stderr_console() -> Console:
    """For tables and bars that are not results."""
    from rich.console import Console  # noqa: PLC0415 - a tenth of a command's start, if not drawn

    return Console(stderr=True)


def human_bytes(size: float) -> str:
    """``size`` with a binary unit: ``4.0 MiB``."""
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


@contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function to be told of further bytes. Draws only when standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _bytes: None
        return
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr_console(), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda more: progress.update(task, advance=more)


@contextmanager
def status_line(text: str) -> Iterator[Callable[[str], None]]:
    """A function that changes the line shown. Draws only when standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.text import Text  # noqa: PLC0415 - as above

    with stderr_console().status(Text(escape_control(text))) as status:
        yield lambda now: status.update(Text(escape_control(now)))


async def write_range(
    read_to: ReadTo, description: str, output: BinaryIO | Path, offset: int, length: int | None
) -> None:
    """Have ``read_to`` write ``length`` bytes from ``offset`` on, and show how far it is."""
    with progress_bar(description, length) as advance:
        await read_to(output, offset=offset, length=length, progress=as_total(advance))
    sys.stdout.buffer.flush()


def as_total(advance: Callable[[int], None]) -> Callable[[int, int | None], None]:
    """``advance`` as the client's progress callback, which tells totals and may start again."""
    done = 0

    def update(now: int, _total: int | None) -> None:
        nonlocal done
        advance(now - done)
        done = now

    return update
