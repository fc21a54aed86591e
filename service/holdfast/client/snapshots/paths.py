"""Paths, times and patterns of callers, as the wire wants them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from holdfast.errors import InvalidError
from holdfast.protocol.entries import ToldPath, wire_path

if TYPE_CHECKING:
    from collections.abc import Iterable


type AnyPath = str | bytes | os.PathLike[str]


def asked_path(path: AnyPath) -> ToldPath:
    """``path``: bytes, or text in which ``os.fsdecode`` may have hidden bytes."""
    return wire_path(path if isinstance(path, bytes) else os.fsencode(path))


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
        raise InvalidError("a pattern is UTF-8: name what is not by a wildcard") from None


def _encoded(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:  # no name of a file here can be so: then it is what it says
        return text.encode("utf-8", "surrogateescape")
