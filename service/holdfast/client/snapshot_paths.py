"""Paths, times and patterns of callers, as the wire wants them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable

type AnyPath = str | bytes | os.PathLike[str]


class WirePaths(NamedTuple):
    """A path as text, and as bytes where it is not UTF-8."""

    path: str
    path_bytes: bytes | None


def wire_path(path: AnyPath) -> WirePaths:
    """``path``: bytes, or text in which ``os.fsdecode`` may have hidden bytes."""
    raw = path if isinstance(path, bytes) else os.fsencode(path)
    text = raw.decode(errors="replace")
    return WirePaths(text, None if text.encode() == raw else raw)


class WireExcludes(NamedTuple):
    """Patterns as text, or all of them as bytes where one is not UTF-8."""

    texts: list[str]
    raw: list[bytes]


def pattern_bytes(patterns: Iterable[str | bytes]) -> list[bytes]:
    """Patterns as the names of files are: text is what ``os.fsdecode`` makes of these."""
    listed = [patterns] if isinstance(patterns, str | bytes) else list(patterns)
    return [pattern if isinstance(pattern, bytes) else _encoded(pattern) for pattern in listed]


def wire_excludes(patterns: Iterable[str | bytes]) -> WireExcludes:
    """Patterns that exclude, in their order."""
    raw = pattern_bytes(patterns)
    try:
        return WireExcludes([pattern.decode() for pattern in raw], [])
    except UnicodeDecodeError:
        return WireExcludes([], raw)


def wire_patterns(patterns: Iterable[str]) -> list[str]:
    """Patterns, which travel as text. Raises InvalidError for one that is not UTF-8."""
    try:
        return [pattern.decode() for pattern in pattern_bytes(patterns)]
    except UnicodeDecodeError:
        msg = "a pattern is UTF-8: name what is not by a wildcard"
        raise InvalidError(msg) from None


def _encoded(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # no name of a file here can be so: then it is what it says
        return text.encode("utf-8", "surrogateescape")


def wire_time(at: datetime | str | None) -> str | None:
    """A time as RFC 3339 in UTC. Raises InvalidError for one without a time zone."""
    if not isinstance(at, datetime):
        return at
    if at.tzinfo is None:
        msg = "a time needs a time zone"
        raise InvalidError(msg)
    try:
        utc = at.astimezone(UTC)
    except OverflowError:
        msg = "a time is between the years 1 and 9999 in UTC"
        raise InvalidError(msg) from None
    return utc.isoformat(timespec="microseconds").replace("+00:00", "Z")
