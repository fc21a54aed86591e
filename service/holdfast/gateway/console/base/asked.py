"""The query parameters of pages, of which a path may be any bytes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from holdfast.errors import InvalidError
from holdfast.gateway.http_route import Parameter
from holdfast.protocol.times import parse_zoned_time

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

PATH: Final = Parameter(name="path", about="A path in a snapshot: any bytes.")
NAME: Final = Parameter(name="name", about="A name.")
_MAX_DIGITS: Final = 15
_DURATION: Final = re.compile(r"([0-9]{1,9}) ?([smhdw])")
_UNITS: Final[Mapping[str, timedelta]] = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
APP: Final = Parameter(name="app", about="An app.")
PREFIX: Final = Parameter(name="prefix", about="Prefix of the names.")
CURSOR: Final = Parameter(name="cursor", about="End of the page before.")


def bytes_of(request: Request, parameter: Parameter) -> bytes:
    """The exact bytes of a parameter; none where it is not there."""
    query: bytes = request.scope["query_string"]
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == parameter.name.encode():
            return unquote_to_bytes(value.replace(b"+", b" "))
    return b""


def text_of(request: Request, parameter: Parameter) -> str:
    """A parameter as text; empty where it is not there."""
    return request.query_params.get(parameter.name, "")


def needed(request: Request, parameter: Parameter) -> str:
    """A parameter that has to be there. Raises InvalidError."""
    text = text_of(request, parameter)
    if not text:
        raise InvalidError(f"which {parameter.name}? the address does not say")
    return text


def count_of(text: str, what: str) -> int:
    """A number that was typed; 0 where none was. Raises InvalidError."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise InvalidError(f"{what} is a number, not {text!r}")
    return int(text)


def labels_typed(text: str) -> dict[str, str]:
    """Labels typed as ``key=value``, with commas or lines between. Raises InvalidError."""
    labels: dict[str, str] = {}
    for part in text.replace("\n", ",").split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise InvalidError(f"a label is written key=value, not {part.strip()!r}")
        labels[key.strip()] = value.strip()
    return labels


def seconds_typed(text: str) -> int | None:
    """Seconds of ``90m``, ``12h``, ``30d`` or ``2w``; None where nothing was typed.

    Raises InvalidError.
    """
    if not text:
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidError(f"a duration is 90m, 12h, 30d or 2w, not {text!r}")
    return int(found[1]) * (_UNITS[found[2]] // timedelta(seconds=1))


def time_typed(text: str) -> datetime | None:
    """A day or a time, which is UTC unless it says otherwise; None where nothing was typed.

    Raises InvalidError.
    """
    if not text:
        return None
    whole = text if "T" in text else f"{text}T00:00:00"
    at = parse_zoned_time(whole) or parse_zoned_time(f"{whole}Z")
    if at is None:
        raise InvalidError(f"a time is 2027-01-31 or 2027-01-31T12:00:00, not {text!r}")
    return at
