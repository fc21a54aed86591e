"""Headers and query parameters that several routes take, and how they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import InvalidError
from holdfast.gateway.http_route import Parameter
from holdfast.protocol.blobs import DEFAULT_TYPE
from holdfast.protocol.message import WireLimit, WireType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

CONTENT_TYPE: Final = Parameter(
    name="Content-Type", about="Type of the bytes; told to readers.", kind=WireType
)
REPR_DIGEST: Final = Parameter(name="Repr-Digest", about="sha-256 of the bytes (RFC 9530).")
CONTENT_DIGEST: Final = Parameter(name="Content-Digest", about="The same of these bytes.")
IF_MATCH: Final = Parameter(name="If-Match", about="Only of what has one of these tags.")
IF_NONE_MATCH: Final = Parameter(
    name="If-None-Match", about="Only of what has none of these tags; *: only where there is none."
)
RANGE: Final = Parameter(name="Range", about="Up to 16 ranges of bytes.")
IF_RANGE: Final = Parameter(name="If-Range", about="Give a range only of what has this tag.")
IF_MODIFIED_SINCE: Final = Parameter(name="If-Modified-Since", about="Only if changed later.")
IF_UNMODIFIED_SINCE: Final = Parameter(
    name="If-Unmodified-Since", about="Only if not changed later."
)
CONTENT_HEADERS: Final = (RANGE, IF_RANGE, IF_MATCH, IF_NONE_MATCH)
"""The headers that a read of bytes takes."""

LIMIT: Final = Parameter(name="limit", about="Rows of a page.", kind=WireLimit)
CURSOR: Final = Parameter(name="cursor", about="End of a page: opaque.")


def media_type_of(request: Request) -> str:
    """The body's stated type. Raises InvalidError."""
    return str(converted(CONTENT_TYPE, request.headers.get("content-type") or DEFAULT_TYPE))


def given(request: Request, *parameters: Parameter) -> dict[str, Any]:
    """Those of ``parameters`` that the query has, by name, as their kinds. Raises InvalidError."""
    found: dict[str, Any] = {}
    for parameter in parameters:
        texts = request.query_params.getlist(parameter.name)
        if not texts:
            continue
        if parameter.many:
            found[parameter.name] = texts
            continue
        if len(texts) > 1:
            raise InvalidError(f"{parameter.name} is given once")
        found[parameter.name] = converted(parameter, texts[0])
    return found


def labels_of(texts: Iterable[str]) -> dict[str, str]:
    """Labels that are written ``key=value``. Raises InvalidError."""
    labels: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in labels:
            raise InvalidError("a label is key=value, each key once")
        labels[key] = value
    return labels


def converted(parameter: Parameter, text: str) -> Any:
    """``text`` as the parameter's kind. Raises InvalidError."""
    try:
        return msgspec.convert(text, parameter.kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidError(f"{parameter.name}: {error}") from error
