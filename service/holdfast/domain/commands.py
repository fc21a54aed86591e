"""Commands of a log: their limits, and how JSON becomes msgpack and back.

A command is kept as the text that it was sent as, so every reader must be able to read it: what one
parser lets pass and another refuses is refused before it is written.

Why: docs/decisions.md, "Commands are kept as they were sent".
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.limits import MAX_COMMAND_NESTING
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_DOUBLE_DIGITS: Final = 308
_LONG_NUMBER: Final = re.compile(rb"[0-9]{%d}" % (_MOST_DOUBLE_DIGITS + 1))
_BEYOND_64_BITS: Final = 2**64
_LEAST_64_BITS: Final = -(2**63)


def check_command(text: bytes) -> None:
    """Raises InvalidError unless ``text`` is JSON that every reader can read.

    In UTF-8, nested at most 512 deep, with numbers that a double can be. A name that comes twice in
    an object passes.
    """
    value = _parsed(text)
    if len(text) <= _MOST_DOUBLE_DIGITS:
        return  # too short for that many digits, and for that depth
    may_be_deep = text.count(b"[") + text.count(b"{") > MAX_COMMAND_NESTING
    if may_be_deep or _LONG_NUMBER.search(text) is not None:
        for part, depth in _parts(value):
            _check_part(part, depth)


def to_json(packed: bytes) -> bytes:
    """The msgpack ``packed`` as JSON. Raises InvalidError of what JSON cannot say."""
    try:
        value = msgspec.msgpack.decode(packed)
        for part, depth in _parts(value):
            _check_part(part, depth)
        return msgspec.json.encode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError, TypeError) as error:
        raise InvalidError("a command is as JSON has it") from error


def to_msgpack(text: bytes) -> bytes:
    """The JSON ``text`` as msgpack; integers beyond 64 bits become doubles, as JSON's readers do.

    Raises InvalidError of what is not JSON.
    """
    value = _parsed(text)
    try:
        return msgspec.msgpack.encode(value)
    except OverflowError:
        return msgspec.msgpack.encode(_with_doubles(value))


def _parsed(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:
        raise InvalidError(_TOO_DEEP) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidError(f"a command is JSON in UTF-8: {error}") from error


_TOO_DEEP: Final = f"a command is nested at most {MAX_COMMAND_NESTING} deep"


def _parts(value: Any) -> Iterator[tuple[Any, int]]:
    """Everything in ``value``, with how many arrays and objects there are around and with it."""
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, dict | list):
            depth += 1
            inner = part if isinstance(part, list) else [*part, *part.values()]
            if isinstance(part, dict) and not all(isinstance(name, str) for name in part):
                raise InvalidError("names in an object are text")
            waiting += [(one, depth) for one in inner]
        yield part, depth


def _check_part(part: Any, depth: int) -> None:
    if depth > MAX_COMMAND_NESTING:
        raise InvalidError(_TOO_DEEP)
    if part is not None and not isinstance(part, bool | int | float | str | list | dict):
        raise InvalidError(f"a command is as JSON has it, which has no {type(part).__name__}")
    if isinstance(part, int | float) and not _is_double(part):
        raise InvalidError("a number is within what a double can be")


def _is_double(number: float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _with_doubles(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_doubles(item) for item in value]
    if isinstance(value, dict):
        return {name: _with_doubles(item) for name, item in value.items()}
    if isinstance(value, int) and not _LEAST_64_BITS <= value < _BEYOND_64_BITS:
        return float(value)
    return value
