"""The bytes that a read covers, and the windows they come in. Sizes are bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from holdfast.errors import InvalidError

_CURSOR: Final = re.compile(r"([A-Za-z0-9]{1,64})\.(\d{1,16})\.(\d{1,16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``stop`` of a blob."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """In bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Cursor:
    """The rest of a read, of which stored copy. ``generation`` may be gone by then."""

    generation: str
    span: Span


def clip(size: int, offset: int, length: int | None) -> Span:
    """The part of a blob of ``size`` bytes that a read asks for; past the end it is empty."""
    start = min(offset, size)
    stop = size if length is None else min(start + length, size)
    return Span(start, stop)


def first_window(span: Span, part_size: int, window_bytes: int) -> Span:
    """The head of ``span``, at most ``window_bytes`` and ending with a part where it can.

    Windows that end with a part make the next one start with one, so nothing is sent twice.
    """
    stop = min(span.start + window_bytes, span.stop)
    if stop < span.stop and stop // part_size * part_size > span.start:
        stop = stop // part_size * part_size
    return Span(span.start, stop)


def encode_cursor(cursor: Cursor) -> str:
    """The opaque text that continues a read."""
    return f"{cursor.generation}.{cursor.span.start}.{cursor.span.stop}"


def decode_cursor(text: str, size: int) -> Cursor:
    """The cursor ``text``, for a blob of ``size`` bytes. Raises InvalidError."""
    match = _CURSOR.fullmatch(text)
    if match is None or not int(match[2]) <= int(match[3]) <= size:
        raise InvalidError("not a cursor of this blob")
    return Cursor(match[1], Span(int(match[2]), int(match[3])))
