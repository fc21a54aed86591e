"""holdfast keeps blobs and snapshots for other services, over NATS.

async with await holdfast.connect() as hf:
    stored = await hf.put(b"bytes")
    assert await hf.get(stored.digest) == b"bytes"
    record = await hf.snapshots.create("blog")
"""

from __future__ import annotations

from holdfast.client import Client, SyncClient, connect, connect_sync
from holdfast.client.snapshots import Snapshots
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
from holdfast.protocol.snapshots import (
    FileEntry,
    RestoreRecord,
    SnapshotChange,
    SnapshotProgress,
    SnapshotRecord,
)

__all__ = [
    "Client",
    "ConflictError",
    "CorruptError",
    "FileEntry",
    "ForbiddenError",
    "HoldfastError",
    "InternalError",
    "InvalidError",
    "NotFoundError",
    "OutcomeUnknownError",
    "QuotaExceededError",
    "RateLimitedError",
    "RestoreRecord",
    "SnapshotChange",
    "SnapshotProgress",
    "SnapshotRecord",
    "Snapshots",
    "SyncClient",
    "TooLargeError",
    "UnavailableError",
    "connect",
    "connect_sync",
]
