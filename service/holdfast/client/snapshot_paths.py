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


def wire_patterns(patterns: Iterable[str]) -> list[str]:
    """Patterns, which travel as text. Raises InvalidError for one that is not UTF-8."""
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in listed:
        try:
            pattern.encode()
        except UnicodeEncodeError:
            msg = "a pattern is UTF-8: name what is not by a wildcard"
            raise InvalidError(msg) from None
    return listed


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
