"""``Range`` (RFC 9110, 14): which bytes of how many. Decides, and does nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_RANGES: Final = 16
"""Ranges of one request. More take other requests: each is a read of its own."""

_RANGE: Final = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
_MAX_DIGITS: Final = 19
_FAR: Final = 10**_MAX_DIGITS


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Bytes from ``start`` up to, and without, ``stop``."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """In bytes."""
        return self.stop - self.start

    def of(self, size: int) -> str:
        """As ``Content-Range`` has it."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


class UnsatisfiableError(Exception):
    """No byte of the content is asked for, or more ranges than are given."""


def parse_range(header: str | None, size: int) -> tuple[ByteRange, ...]:
    """The spans that ``header`` asks for of ``size`` bytes, in its order; none: all of it.

    Any other header is passed over, as RFC 9110 has it. Spans that overlap or touch come
    as one, where the first of them was. Raises UnsatisfiableError.
    """
    asked = _asked(header or "")
    if not asked:
        return ()
    if len(asked) > MAX_RANGES:
        raise UnsatisfiableError
    spans = [span for pair in asked if (span := _span(*pair, size)) is not None]
    if not spans:
        raise UnsatisfiableError
    return _joined(spans)


def _asked(header: str) -> list[tuple[int | None, int | None]]:
    """First and last byte of each range, as they are written; empty where ``header`` is none."""
    unit, _, ranges = header.partition("=")
    if unit.strip().lower() != "bytes":
        return []
    pairs: list[tuple[int | None, int | None]] = []
    for text in ranges.split(","):
        found = _RANGE.fullmatch(text.strip(" \t"))
        if found is None:
            return []
        first, last = _number(found[1]), _number(found[2])
        if (first is None and last is None) or (None not in {first, last} and last < first):  # type: ignore[operator]
            return []
        pairs.append((first, last))
    return pairs


def _number(digits: str) -> int | None:
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else _FAR


def _span(first: int | None, last: int | None, size: int) -> ByteRange | None:
    if first is None:
        start, stop = max(size - (last or 0), 0), size
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    return ByteRange(start, stop) if start < stop else None


def _joined(spans: list[ByteRange]) -> tuple[ByteRange, ...]:
    joined: list[ByteRange] = []
    for span in spans:
        touching = [one for one in joined if one.start <= span.stop and span.start <= one.stop]
        if not touching:
            joined.append(span)
            continue
        at = joined.index(touching[0])
        all_of = [*touching, span]
        whole = ByteRange(min(one.start for one in all_of), max(one.stop for one in all_of))
        joined = [one for one in joined if one not in touching]
        joined.insert(at, whole)
    return tuple(joined)
