"""holdfast keeps blobs and snapshots for other services, over NATS.

async with await holdfast.connect() as hf:
    stored = await hf.put(b"bytes")
    assert await hf.get(stored.digest) == b"bytes"
    record = await hf.snapshots.create("blog")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from holdfast.client import Client, SyncClient, connect, connect_sync
    from holdfast.client.snapshots.api import Snapshots
    from holdfast.domain.canonical import state_hash
    from holdfast.protocol.files import FileEntry, SnapshotChange
    from holdfast.protocol.snapshots import RestoreRecord, SnapshotProgress, SnapshotRecord

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
    "state_hash",
]

_CLIENT: Final = "holdfast.client"
_SNAPSHOTS: Final = "holdfast.client.snapshots.api"
_FILES: Final = "holdfast.protocol.files"
_MESSAGES: Final = "holdfast.protocol.snapshots"
_HOMES: Final = {
    "Client": _CLIENT,
    "SyncClient": _CLIENT,
    "connect": _CLIENT,
    "connect_sync": _CLIENT,
    "Snapshots": _SNAPSHOTS,
    "FileEntry": _FILES,
    "RestoreRecord": _MESSAGES,
    "SnapshotChange": _FILES,
    "SnapshotProgress": _MESSAGES,
    "SnapshotRecord": _MESSAGES,
    "state_hash": "holdfast.domain.canonical",
}
"""Loaded when they are first asked for (PEP 562): most commands, and workers, need no client."""


def __getattr__(name: str) -> Any:
    if name == "client":
        return import_module(_CLIENT)
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
