"""The canonical form of saved states: JSON as RFC 8785 writes it, so that equal states hash alike.

RFC 8785 is about numbers that a double holds. So integers beyond 2^53 are refused, but for those
that are themselves what it writes for a double (``1e20`` is written ``100000000000000000000``):
what is canonical stays so.

Almost all documents are written by the standard library, in C, to the same bytes: where no number
needs an exponent, and no character is beyond U+FFFF, for which names sort otherwise in UTF-16.

Why: docs/decisions.md, "What is canonical stays so".
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import rfc8785

from holdfast.domain.digest import digest_of
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Buffer, Callable

MAX_NESTING: Final = 512
"""Objects and arrays within each other, in states and commands."""

_MAX_INTEGER: Final = 2**53 - 1
_SAFE_DIGITS: Final = 15
_LEAST_PLAIN: Final = 1e-4
"""From here to 2^53 Python writes a number as JavaScript does, but for ``.0`` behind an integer."""

_ASTRAL: Final = re.compile("[\U00010000-\U0010ffff]")


def canonical(text: Buffer) -> bytes:
    """The JSON document ``text`` as RFC 8785 writes it.

    Raises InvalidError of what is not JSON in UTF-8, has a key twice, NaN, a number that no double
    holds, an integer beyond 2^53, a lone surrogate, or is nested deeper than 512.
    """
    try:
        document = bytes(text).decode()
        try:
            return _written_plainly(document)
        except _NotPlainError:
            return rfc8785.dumps(_value_of(document, parse_int=_integer, parse_float=float))
    except UnicodeError as error:
        raise InvalidError("a state is UTF-8, without lone surrogates") from error
    except RecursionError as error:
        raise InvalidError(_TOO_DEEP) from error
    except ValueError as error:
        raise InvalidError(f"a state is JSON as RFC 8785 has it: {error}") from error


def canonical_state(state: object) -> bytes:
    """The bytes that a save of ``state`` stores: bytes as they are, else canonical JSON.

    Raises InvalidError, as ``canonical``, and of what is no JSON value.
    """
    if isinstance(state, bytes | bytearray | memoryview):
        return bytes(state)
    return canonical(json_of(state))


def state_hash(state: object) -> str:
    """The ``state_hash`` of a save of ``state``: the SHA-256 of its bytes, or canonical JSON.

    Raises InvalidError of what cannot be saved.
    """
    return digest_of(canonical_state(state))


def json_of(value: object) -> bytes:
    """``value``, of dicts, lists, texts, numbers, booleans and None, as JSON in UTF-8.

    Raises InvalidError of anything else, NaN, infinity and lone surrogates.
    """
    try:
        return _ENCODE(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidError(f"{error.object!a} is not UTF-8") from error
    except RecursionError as error:
        raise InvalidError(_TOO_DEEP) from error
    except (TypeError, ValueError) as error:
        raise InvalidError(f"this is not JSON: {error}") from error


_TOO_DEEP: Final = f"nested deeper than {MAX_NESTING}"
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_ENCODE_SORTED: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
).encode


class _NotPlainError(Exception):
    """The standard library would not write it as RFC 8785 does."""


def _written_plainly(document: str) -> bytes:
    """The canonical form. Raises _NotPlainError."""
    value = _value_of(document, parse_int=_plain_integer, parse_float=_plain_float)
    written = _ENCODE_SORTED(value)
    if not written.isascii() and _ASTRAL.search(written) is not None:
        raise _NotPlainError
    return written.encode()


def _value_of(
    document: str, *, parse_int: Callable[[str], float], parse_float: Callable[[str], float]
) -> Any:
    value = json.loads(
        document,
        object_pairs_hook=_object,
        parse_int=parse_int,
        parse_float=parse_float,
        parse_constant=_constant,
    )
    if document.count("[") + document.count("{") > MAX_NESTING:
        _check_nesting(value)
    return value


def _plain_integer(text: str) -> int:
    if len(text) <= _SAFE_DIGITS:
        return int(text)
    number = _integer(text)
    if isinstance(number, float):
        raise _NotPlainError
    return number


def _plain_float(text: str) -> float:
    number = float(text)
    size = abs(number)
    if size <= _MAX_INTEGER and number.is_integer():
        return int(number)
    if not _LEAST_PLAIN <= size <= _MAX_INTEGER:
        raise _NotPlainError
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidError("an object has a key twice")
    return found


def _integer(text: str) -> int | float:
    number = float(text)
    if abs(number) <= _MAX_INTEGER:
        return int(text)
    if rfc8785.dumps(number) != text.encode():
        raise InvalidError("an integer beyond 2^53, which RFC 8785 would change: write it as text")
    return number


def _constant(name: str) -> NoReturn:
    raise InvalidError(f"{name} is not JSON")


def _check_nesting(value: object) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_NESTING):
        level = [child for parent in level for child in _containers(parent)]
    if level:
        raise InvalidError(_TOO_DEEP)


def _containers(parent: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    values = parent.values() if isinstance(parent, dict) else parent
    return [value for value in values if isinstance(value, dict | list)]
