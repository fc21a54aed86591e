"""The canonical form of saved states: JSON as RFC 8785 writes it, so that equal states hash alike.

RFC 8785 is about numbers that a double holds. So integers beyond 2^53 are refused, but for those
that are themselves what it writes for a double (``1e20`` is written ``100000000000000000000``):
what is canonical stays so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

import rfc8785

from holdfast.domain.digest import digest_of
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Buffer

MAX_NESTING: Final = 512
"""Objects and arrays within each other, in states and commands."""

_MAX_INTEGER: Final = 2**53 - 1


def canonical(text: Buffer) -> bytes:
    """The JSON document ``text`` as RFC 8785 writes it.

    Raises InvalidError of what is not JSON in UTF-8, has a key twice, NaN, a number that no double
    holds, an integer beyond 2^53, a lone surrogate, or is nested deeper than 512.
    """
    try:
        value = json.loads(
            bytes(text).decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=_constant,
        )
        _check_nesting(value)
        return rfc8785.dumps(value)
    except UnicodeError as error:
        msg = "a state is UTF-8, without lone surrogates"
        raise InvalidError(msg) from error
    except RecursionError as error:
        raise InvalidError(_TOO_DEEP) from error
    except ValueError as error:
        msg = f"a state is JSON as RFC 8785 has it: {error}"
        raise InvalidError(msg) from error


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
        msg = f"{error.object!a} is not UTF-8"
        raise InvalidError(msg) from error
    except RecursionError as error:
        raise InvalidError(_TOO_DEEP) from error
    except (TypeError, ValueError) as error:
        msg = f"this is no JSON: {error}"
        raise InvalidError(msg) from error


_TOO_DEEP: Final = f"nested deeper than {MAX_NESTING}"
_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "an object has a key twice"
        raise InvalidError(msg)
    return found


def _integer(text: str) -> float:
    number = float(text)
    if abs(number) <= _MAX_INTEGER:
        return int(text)
    if rfc8785.dumps(number) != text.encode():
        msg = "an integer beyond 2^53, which RFC 8785 would change: write it as text"
        raise InvalidError(msg)
    return number


def _constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise InvalidError(msg)


def _check_nesting(value: object) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_NESTING):
        level = [child for parent in level for child in _containers(parent)]
    if level:
        raise InvalidError(_TOO_DEEP)


def _containers(parent: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    values = parent.values() if isinstance(parent, dict) else parent
    return [value for value in values if isinstance(value, dict | list)]
