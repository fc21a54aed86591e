"""The address of a blob: the lower-case hexadecimal SHA-256 of its bytes (FIPS 180-4).

One spelling only. ``AB…`` and ``ab…`` would otherwise be two keys for one blob, and a digest that
was not checked has been a path before (``../``).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING, Final, NewType

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Buffer

Digest = NewType("Digest", str)

DIGEST_PATTERN: Final = "^[0-9a-f]{64}$"
_DIGEST_RE: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def parse_digest(text: str) -> Digest:
    """``text`` as a digest. Raises InvalidError unless it is 64 lower-case hex characters."""
    if _DIGEST_RE.fullmatch(text) is None:
        raise InvalidError("a digest is 64 lower-case hexadecimal characters (SHA-256)")
    return Digest(text)


def is_digest(text: str) -> bool:
    """Whether ``text`` is spelled as a digest."""
    return _DIGEST_RE.fullmatch(text) is not None


def digest_of(data: Buffer) -> Digest:
    """The digest of ``data``."""
    return Digest(hashlib.sha256(data).hexdigest())


def check_expected(digest: Digest, *expected: str | None) -> None:
    """Raises InvalidError where bytes of ``digest`` were said to have another one."""
    if any(one is not None and one != digest for one in expected):
        raise InvalidError(f"the bytes have the digest {digest}, not the one expected")


def to_object_digest(digest: Digest) -> str:
    """``digest`` as ADR-20 writes it: ``SHA-256=`` and padded URL-safe base64."""
    return "SHA-256=" + base64.urlsafe_b64encode(bytes.fromhex(digest)).decode()
