"""Digests in headers (RFC 9530): a blob's address is the ``sha-256`` of ``Repr-Digest``."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MEMBER: Final = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*=*):\s*(?:,|$)")
_SHA256_BYTES: Final = 32


def repr_digest(digest: str) -> str:
    """``digest`` as ``Repr-Digest`` has it."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:"


def expected_digest(headers: Mapping[str, str], *also: Digest | None) -> Digest | None:
    """The digest that a request states for its bytes; None where it states none.

    It is stated by ``Repr-Digest`` or ``Content-Digest``, which are the same for bytes without an
    encoding, or by ``also``. Other algorithms than sha-256 are passed over. Raises InvalidError,
    also where they differ.
    """
    found = {digest for digest in also if digest is not None}
    for name in ("repr-digest", "content-digest"):
        if (header := headers.get(name)) is not None:
            found |= _sha256_of(header)
    if len(found) > 1:
        raise InvalidError("the request expects several digests of the same bytes")
    return next(iter(found), None)


def _sha256_of(header: str) -> set[Digest]:
    found: set[Digest] = set()
    at = 0
    while at < len(header):
        member = _MEMBER.match(header, at)
        if member is None:
            raise InvalidError("a digest in a header is like sha-256=:BASE64:")
        at = member.end()
        if member[1] == "sha-256":
            found.add(_decoded(member[2]))
    return found


def _decoded(text: str) -> Digest:
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InvalidError("a digest in a header is base64") from error
    if len(raw) != _SHA256_BYTES:
        raise InvalidError("a sha-256 has 32 bytes")
    return Digest(raw.hex())
