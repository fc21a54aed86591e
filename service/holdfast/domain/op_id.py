"""An ``Op-Id`` as it is kept: what the caller said, a space, and a digest of what was asked.

An id stands for one request: a repeat gets its answer, and another request under the same id is a
conflict, never that answer. An id that was kept before requests were has no digest, and is
compared as it is.

Why: docs/decisions.md, "An Op-Id stands for one request".
"""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from typing import Final

from holdfast.errors import ConflictError

_REQUEST_CHARS: Final = 32
"""128 bits: nobody who may choose both requests gains anything by a pair that looks alike."""


_SPLIT: Final = 1024
"""As many as are under way at once: each is asked of several times."""


def bind_op_id(op_id: str, subject: str, request: bytes) -> str:
    """``op_id``, which has no space in it, for ``request`` to the operation ``subject``."""
    asked = hashlib.sha256(subject.encode() + b"\n" + request)
    return join_op_id(op_id, asked.hexdigest()[:_REQUEST_CHARS])


def join_op_id(op_id: str, request: str) -> str:
    """The two as they are kept in one; ``request`` may be empty."""
    return f"{op_id} {request}" if request else op_id


@lru_cache(maxsize=_SPLIT)
def split_op_id(kept: str) -> tuple[str, str]:
    """The caller's id, and the digest of the request: empty where none was kept."""
    op_id, _, request = kept.partition(" ")
    return op_id, request


def op_token(kept: str) -> str:
    """The caller's id, without the request, as one token of a record's key."""
    return base64.urlsafe_b64encode(split_op_id(kept)[0].encode()).decode().rstrip("=")


def is_repeat(kept: str | None, asked: str | None) -> bool:
    """Whether ``asked`` comes again of the request that ``kept`` is of.

    Raises ConflictError when it is the same id with another request.
    """
    if kept is None or asked is None:
        return False
    (kept_id, kept_request), (op_id, request) = split_op_id(kept), split_op_id(asked)
    if kept_id != op_id:
        return False
    if kept_request and request and kept_request != request:
        raise ConflictError("the Op-Id was used for another request")
    return True
