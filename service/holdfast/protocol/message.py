"""The two kinds of message, and the field types that carry their bounds into the schemas.

Write ``frozen=True, kw_only=True`` on every message: msgspec inherits ``frozen`` but not
``kw_only``, and type checkers reject a message that leaves ``frozen`` to its base.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta, Struct

from holdfast.domain.digest import DIGEST_PATTERN
from holdfast.domain.limits import MAX_BLOB_BYTES, MAX_CURSOR_CHARS, MAX_LIST_LIMIT, MAX_TYPE_CHARS
from holdfast.form.entries import MAX_FILE_BYTES

WIRE_VERSION: Final = 1
UUID_PATTERN: Final = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
NAME_PATTERN: Final = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"

# Python's `$` also matches before a final newline, hence the look-ahead, which ECMA-262 has too.
# Lengths are bounded before patterns run; JSON numbers stay within 2^53.
WireDigest = Annotated[
    str,
    Meta(
        pattern=DIGEST_PATTERN,
        min_length=64,
        max_length=64,
        description="SHA-256 of the bytes, 64 lower-case hexadecimal characters.",
    ),
]
WireSize = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES, description="Bytes.")]
WireLong = Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES, description="Bytes of something sparse.")]
WireCount = Annotated[int, Meta(ge=0, le=2**53)]
# Numbers in replies have no upper bound: one may be a sum, or another program's, and a client
# that refuses one number of a page has none of its rows.
ToldSize = Annotated[int, Meta(ge=0, description="Bytes.")]
ToldCount = Annotated[int, Meta(ge=0)]
WireCursor = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_CURSOR_CHARS,
        pattern=r"^[A-Za-z0-9_.~-]+$(?!\n)",
        description="Opaque: send back what an answer gave.",
    ),
]
WireLimit = Annotated[int, Meta(ge=1, le=MAX_LIST_LIMIT)]
WireUpload = Annotated[
    str, Meta(pattern="^[A-Za-z0-9]{22}$", min_length=22, max_length=22, description="Upload id.")
]
WireType = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_TYPE_CHARS,
        pattern=r"^[\x20-\x7e]+$(?!\n)",
        description="Media type (RFC 9110), printable ASCII.",
    ),
]
WireKey = Annotated[
    str,
    Meta(
        pattern=f"^{NAME_PATTERN}:{UUID_PATTERN}$(?!\n)",
        max_length=165,
        description="Key of a snapshot: its app, a colon, a UUID (version 7).",
    ),
]
WireName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        description="Name of a blob: any text of 1 to 512 bytes of UTF-8.",
    ),
]
QuotedName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1536,
        description="Name of a blob, percent-encoded UTF-8 (RFC 3986); a / may stay.",
    ),
]
WireVersion = Annotated[
    int, Meta(ge=1, le=2**53, description="Version of a name: it rises with each blob.")
]
WireTime = Annotated[
    str, Meta(description="RFC 3339, UTC.", extra_json_schema={"format": "date-time"})
]


def base64_of(what: str, max_bytes: int) -> Meta:
    """The bounds of bytes that JSON has in base64."""
    pattern = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$(?!\n)"
    return Meta(
        max_length=max_bytes,
        description=f"The exact bytes of {what}.",
        extra_json_schema={"pattern": pattern},
    )


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A caller's message. A field this version does not know is ``invalid``.

    With ``keeps_json`` it holds JSON as it was sent, as a `msgspec.Raw`.
    """

    keeps_json: ClassVar[bool] = False

    def without_bytes(self) -> Request:
        """The same, but for bytes that it names by their digest as well."""
        return self


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker's answer. A field this version does not know is ignored.

    ``keeps_json`` as in a `Request`.
    """

    keeps_json: ClassVar[bool] = False
