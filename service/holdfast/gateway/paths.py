"""Names and paths in the path of a URL: what a proxy or a client would rewrite is refused.

Segments ``.``, ``..`` and empty ones have another meaning where a URL is resolved (RFC 3986,
5.2.4), so a name with them is never taken from a path. A name can be given in the query instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, override
from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor

from holdfast.domain.link_targets import name_place
from holdfast.gateway.problems import HttpError

if TYPE_CHECKING:
    from starlette.requests import Request

_REWRITTEN: Final = frozenset({b"", b".", b".."})
_CONTROL_BYTES: Final = frozenset(range(0x20)) | {0x7F}


class AnyText(Convertor[str]):
    """The rest of a path, as ``path`` does it, but with any character in it."""

    regex = "(?s:.*)"

    @override
    def convert(self, value: str) -> str:
        return value

    @override
    def to_string(self, value: str) -> str:
        return value


def check_segments(request: Request, pattern: str) -> None:
    """Raises HttpError (400) of a slash that is percent-encoded, but in the rest that is any text.

    So a path has the same segments as it came, and as it is compared with ``pattern`` and scopes.
    """
    segments: list[bytes] = request.scope["raw_path"].split(b"/")
    *fixed, last = pattern.split("/")
    plain = segments[: len(fixed)] if last.endswith(":any}") else segments
    if any(b"/" in unquote_to_bytes(segment) for segment in plain):
        raise HttpError(400, "invalid", "here a slash in a path is not percent-encoded")


def path_bytes(request: Request, skipped: int, *, any_character: bool = False) -> bytes:
    """The path behind its first ``skipped`` segments, percent-decoded.

    Raises HttpError (400) of segments that are rewritten on the way, and of control characters,
    unless there may be ``any_character``.
    """
    raw: bytes = request.scope["raw_path"]
    tail = b"/".join(raw.split(b"/")[skipped + 1 :])
    decoded = unquote_to_bytes(tail)
    if any(segment in _REWRITTEN for segment in decoded.split(b"/")):
        detail = "a path has no segment that is empty, . or ..: give such a name in the query"
        raise HttpError(400, "invalid", detail)
    if not any_character and not _CONTROL_BYTES.isdisjoint(decoded):
        detail = "a path has no control characters: give such a name in the query"
        raise HttpError(400, "invalid", detail)
    return decoded


def rest_of_path(request: Request, skipped: int) -> str:
    """As ``path_bytes``, as text. Raises HttpError (400) where it is not UTF-8."""
    try:
        return path_bytes(request, skipped).decode()
    except UnicodeDecodeError as error:
        raise HttpError(400, "invalid", "a name is UTF-8") from error


def name_url(name: str) -> str:
    """Where the blob of a name is: by its path, or by the query where no path can carry it."""
    path, query = name_place(name)
    return f"{path}?{query}" if query else path
