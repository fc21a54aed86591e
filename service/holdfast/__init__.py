"""holdfast keeps blobs and snapshots for other services, over NATS.

async with await holdfast.connect() as hf:
    stored = await hf.put(b"bytes")
    assert await hf.get(stored.digest) == b"bytes"
"""

from __future__ import annotations

from holdfast.client import Client, SyncClient, connect, connect_sync
from holdfast.errors import (
    ConflictError,
    CorruptError,
    ForbiddenError,
    HoldfastError,
    InternalError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)

__all__ = [
    "Client",
    "ConflictError",
    "CorruptError",
    "ForbiddenError",
    "HoldfastError",
    "InternalError",
    "InvalidError",
    "NotFoundError",
    "OutcomeUnknownError",
    "QuotaExceededError",
    "RateLimitedError",
    "SyncClient",
    "TooLargeError",
    "UnavailableError",
    "connect",
    "connect_sync",
]
