"""Waiting for a snapshot or restore that a worker is making: progress if it comes, polling anyway.

Progress messages are a courtesy: they may be lost, and a user's permissions may keep them away. The
record alone says how it ended, so it is read with a growing pause, and at once when a message says
that there is an end.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.domain.digest import Digest
from holdfast.errors import ConflictError, error_for
from holdfast.protocol import codec
from holdfast.protocol.snapshots import (
    GET_RESTORE,
    GET_SNAPSHOT,
    GetRestore,
    GetSnapshot,
    RestoreRecord,
    SnapshotProgress,
    SnapshotRecord,
)
from holdfast.protocol.subjects import PROGRESS_SUBJECT

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.client.requests import Requester
    from holdfast.protocol.message import Request
    from holdfast.protocol.operation import Operation
    from holdfast.transport.message import Message

    OnProgress = Callable[[SnapshotProgress], None]

_FIRST_POLL_SECONDS: Final = 0.1
_MAX_POLL_SECONDS: Final = 2.0

RecordT = TypeVar("RecordT", SnapshotRecord, RestoreRecord)


def raise_failure(record: SnapshotRecord | RestoreRecord) -> None:
    """Raise the failure that ``record`` tells of; return when it has not failed."""
    if record.state == "failure":
        raise error_for(record.code or "internal", record.reason or "it failed")


def readable_root(record: SnapshotRecord) -> Digest:
    """The root of a snapshot that can be read. Raises ConflictError when it is not ``ok``."""
    raise_failure(record)
    if record.state != "ok" or record.digest is None:
        raise ConflictError(f"snapshot {record.key} is {record.state}: it cannot be read")
    return Digest(record.digest)


async def wait_ended(
    requester: Requester, record: RecordT, on_progress: OnProgress | None
) -> RecordT:
    """The record once it is not pending. A worker that dies meanwhile makes it a failure, in time.

    Raises NotFoundError when it was deleted, UnavailableError.
    """
    ended = asyncio.Event()
    is_told = False

    def receive(message: Message) -> None:
        nonlocal is_told
        progress = codec.decode_reply(message.data, SnapshotProgress)
        if progress.state != "pending":
            ended.set()
        elif on_progress is not None:
            is_told = True
            on_progress(progress)

    sid = requester.connection.route(_progress_subject(requester, record), receive)
    seconds = _FIRST_POLL_SECONDS
    try:
        while True:
            # The record tells of progress too, where no message does.
            if on_progress is not None and (not is_told or record.state != "pending"):
                on_progress(_progress_of(record))
            if record.state != "pending":
                return record
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ended.wait()
            ended.clear()
            seconds = min(seconds * 1.5, _MAX_POLL_SECONDS)
            record = await requester.ask(*_request_for(record))
    finally:
        requester.connection.unroute(sid)


def may_be_repeated(record: SnapshotRecord | RestoreRecord) -> bool:
    """Whether it failed because its worker stopped or could not reach the store."""
    return record.state == "failure" and error_for(record.code or "", "").retryable


def _request_for(
    record: SnapshotRecord | RestoreRecord,
) -> tuple[Operation[Any, Any], Request]:
    if isinstance(record, RestoreRecord):
        return GET_RESTORE, GetRestore(restore=record.restore)
    return GET_SNAPSHOT, GetSnapshot(key=record.key)


def _progress_subject(requester: Requester, record: SnapshotRecord | RestoreRecord) -> str:
    made = record.restore if isinstance(record, RestoreRecord) else record.key.partition(":")[2]
    return requester.full_subject(f"{PROGRESS_SUBJECT}.{made}")


def _progress_of(record: SnapshotRecord | RestoreRecord) -> SnapshotProgress:
    return SnapshotProgress(
        key=record.key,
        state=record.state,
        phase="",
        entries=record.entries,
        bytes=record.size,
        added=record.added if isinstance(record, SnapshotRecord) else 0,
        restore=record.restore if isinstance(record, RestoreRecord) else None,
    )
