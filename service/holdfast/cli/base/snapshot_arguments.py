"""Arguments of snapshots: keys, labels, times, patterns, and sources of files."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from holdfast.cli.base.arguments import STANDARD, parse_duration, standard_input
from holdfast.domain.names import SnapshotKey, check_app
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.client import Client
    from holdfast.client.sources import SupportsRead

Key = Annotated[str, Parameter(help="Key of the snapshot; APP or APP:latest is the app's newest.")]

LATEST: Final = "latest"
ARCHIVE_ENDINGS: Final = (
    ".tar",
    *(".tar.gz", ".tgz", ".taz"),
    *(".tar.bz2", ".tbz2", ".tbz", ".tz2"),
    *(".tar.xz", ".txz"),
    *(".tar.zst", ".tzst"),
)
"""Those that GNU tar knows of what can be read here, in upper case too."""

_MAX_PATTERN_FILE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AppSource:
    """The directory of an app, on the node that has it."""

    app: str


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A directory or archive here, or a tar on standard input. ``app`` is whose snapshot it is."""

    files: SupportsRead | Path
    app: str


def source_of(text: str, app: str | None) -> AppSource | LocalSource:
    """The source ``text``: with a slash, or as an archive that exists, a local one.

    Raises InvalidError.
    """
    if text == STANDARD:
        if app is None:
            raise InvalidError("name the app of the snapshot: --app NAME")
        return LocalSource(standard_input(), check_app(app))
    path = Path(text)
    is_archive = text.lower().endswith(ARCHIVE_ENDINGS) and path.is_file()
    if "/" in text or text in {".", ".."} or is_archive:
        return LocalSource(path, check_app(app if app is not None else _app_of(path)))
    if app is not None and app != text:
        raise InvalidError(f"{text} is an app already; a directory has a slash: ./{text}")
    return AppSource(check_app(text))


def _app_of(path: Path) -> str:
    """The name of a directory or archive, if an app may be called so."""
    name = path.resolve().name
    if not path.is_dir():
        endings = [ending for ending in ARCHIVE_ENDINGS if name.lower().endswith(ending)]
        name = name[: len(name) - max(map(len, endings), default=0)]
    try:
        return check_app(name)
    except InvalidError:
        raise InvalidError(f"no app may be called {name!r}: name one with --app") from None


def parse_time(text: str | None, now: datetime) -> datetime | None:
    """A time: RFC 3339 (UTC if it names no zone), or how long ago, such as ``2d`` or ``90m``.

    Raises InvalidError.
    """
    if text is None:
        return None
    ago = parse_duration(text)
    try:
        if ago is not None:
            return now - ago
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):  # at the edge of time there is no other zone
        msg = f"{text!r} is not a time: 2026-11-30T12:00:00Z, 2026-11-30, or 2d for two days ago"
        raise InvalidError(msg) from None


def read_patterns(patterns: Iterable[str], files: Iterable[Path]) -> list[str]:
    """Patterns of the command line and, a line each, of files; in gitignore syntax.

    They are bytes as names of files are, whatever the locale. Empty lines, comments, and a byte
    order mark in front of a file are left out. Raises OSError, InvalidError.
    """
    found = list(patterns)
    for file in files:
        if file.stat().st_size > _MAX_PATTERN_FILE_BYTES:
            raise InvalidError(f"{file} is too long for a list of patterns")
        text = file.read_bytes().removeprefix(BOM_UTF8)
        lines = [line.removesuffix(b"\r") for line in text.split(b"\n")]
        wanted = [line for line in lines if line.strip(b" ") and not line.startswith(b"#")]
        found.extend(map(os.fsdecode, wanted))
    return found


async def resolve_key(connection: Client, text: str) -> str:
    """A key as it is; for ``APP`` and ``APP:latest`` that of the newest snapshot that is ok.

    Raises InvalidError, NotFoundError.
    """
    app, colon, rest = text.partition(":")
    if colon and rest != LATEST:
        return str(SnapshotKey.parse(text))
    return (await connection.snapshots.newest(check_app(app))).key
