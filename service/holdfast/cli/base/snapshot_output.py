"""Snapshots on a terminal. Names of files are other people's text: they are escaped."""

from __future__ import annotations

import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.cli.base.output import (
    human_bytes,
    print_json,
    print_line,
    print_result,
    say,
    status_line,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.protocol.files import FileEntry, SnapshotChange
    from holdfast.protocol.snapshots import RestoreRecord, SnapshotProgress, SnapshotRecord

WARNINGS_SHOWN: Final = 10

_TYPES: Final = {
    "file": stat.S_IFREG,
    "hardlink": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
}
_MARKS: Final = {"added": "+", "removed": "-", "modified": "M", "metadata": "U"}


def name_of(path: str, path_bytes: bytes | None) -> str:
    r"""A path to print: ``.`` for the directory itself, ``\xNN`` for what is not UTF-8."""
    text = path if path_bytes is None else path_bytes.decode(errors="backslashreplace")
    return text or "."


def print_file(entry: FileEntry, *, long: bool, json: bool) -> None:
    """One entry: its path, or a line as ``tar -tv`` has it."""
    if json:
        print_json(entry)
        return
    name = name_of(entry.path, entry.path_bytes)
    if entry.kind == "directory":
        name += "/"
    if not long:
        print_line(name)
        return
    mode = stat.filemode(_TYPES[entry.kind] | entry.mode)
    if entry.kind == "hardlink":
        mode = f"h{mode[1:]}"
    print_line(
        mode,
        f"{entry.uid}/{entry.gid}".rjust(11),
        f"{entry.size:>12}",
        _seconds(entry.mtime),
        f"{name}{_target(entry)}",
    )


def _target(entry: FileEntry) -> str:
    if entry.target is None:
        return ""
    arrow = " link to " if entry.kind == "hardlink" else " -> "
    return arrow + name_of(entry.target, entry.target_bytes)


def _seconds(time: str) -> str:
    """A time of the wire without its fraction: ``2026-11-30T12:00:00Z``."""
    head, dot, _ = time.partition(".")
    return f"{head}Z" if dot else head


def print_change(change: SnapshotChange, *, json: bool) -> None:
    """``+`` added, ``-`` removed, ``M`` other content, ``U`` other mode, owner or time."""
    name = name_of(change.path, change.path_bytes)
    print_result(change, _MARKS.get(change.change, "?"), name, json=json)


def print_row(record: SnapshotRecord, *, json: bool) -> None:
    """A line of a list."""
    print_result(
        record,
        record.key,
        _seconds(record.created_at),
        record.state.ljust(7),
        f"{record.files:>8}",
        human_bytes(record.size).rjust(10),
        _as_text(record.labels),
        json=json,
    )


def print_record(record: SnapshotRecord | RestoreRecord, *, json: bool) -> None:
    """Every field that says something, a line each; then the warnings."""
    if json:
        print_json(record)
        return
    for key, value in msgspec.to_builtins(record).items():
        text = _as_text(value)
        if text and key != "warnings":
            print_line(f"{key:14}", text)
    for warning in record.warnings:
        path = name_of(warning.path, warning.path_bytes)
        print_line(f"{'warning':14}", warning.kind, path, warning.detail)


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={text}" for key, text in sorted(value.items()))
    if isinstance(value, list):
        return str(len(value)) if value else ""
    return "" if value is None else str(value)


def say_created(record: SnapshotRecord, seconds: float) -> None:
    """Say the snapshot's size, how much of that is new, and what is not in it."""
    if record.state == "pending":
        say("it goes on: `holdfast snapshot show` tells how it ends")
        return
    known = 1 - record.added / record.archive_size if record.archive_size else 0
    say(
        f"{_files(record)}, {human_bytes(record.size)}, {human_bytes(record.added)} added"
        f" ({max(known, 0):.0%} deduplicated), {seconds:.1f} s"
    )
    say_warnings(record)


def say_more(record: RestoreRecord) -> None:
    """Say how many more lines a dry run's plan has than its record."""
    more = record.plan_count - len(record.plan)
    if more > 0:
        say(f"and {more} more")


def say_restored(record: RestoreRecord, where: str, seconds: float) -> None:
    """Say the outcome."""
    if record.state == "pending":
        say("it goes on: `holdfast snapshot show` tells how it ends")
        return
    removed = f", {record.removed} removed" if record.removed else ""
    would = "would be " if record.dry_run else ""
    say(
        f"{_files(record)}, {human_bytes(record.size)} {would}restored to {where}{removed},"
        f" {seconds:.1f} s"
    )
    say_warnings(record)


def _files(record: SnapshotRecord | RestoreRecord) -> str:
    return f"{record.files} file{'' if record.files == 1 else 's'}"


def say_warnings(record: SnapshotRecord | RestoreRecord) -> None:
    """The first of the warnings, and how many there are."""
    for warning in record.warnings[:WARNINGS_SHOWN]:
        detail = f" ({warning.detail})" if warning.detail else ""
        say(f"warning: {warning.kind}: {name_of(warning.path, warning.path_bytes)}{detail}")
    more = max(record.warning_count, len(record.warnings)) - WARNINGS_SHOWN
    if more > 0:
        say(f"and {more} more warnings")


@contextmanager
def progress_of(
    verb: str, clock: Callable[[], float]
) -> Iterator[Callable[[SnapshotProgress], None] | None]:
    """A function to be told of progress, which draws one line; None where there is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    began = clock()
    with status_line(verb) as show:

        def update(progress: SnapshotProgress) -> None:
            seconds = max(clock() - began, 0.001)
            added = f", {human_bytes(progress.added)} added" if progress.added else ""
            show(
                f"{verb}: {progress.entries} entries, {human_bytes(progress.bytes)}"
                f" ({human_bytes(progress.bytes / seconds)}/s){added}"
            )

        yield update
