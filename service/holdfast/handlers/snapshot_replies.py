"""Stored records and entries of snapshots as messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from holdfast.errors import CorruptError
from holdfast.form.terms import EntryChange, EntryWarning
from holdfast.handlers.pages import fitting
from holdfast.protocol.entries import KIND_NAMES, change_message, warning_message, wire_path
from holdfast.protocol.files import DamagedPack, FileEntry, SnapshotChange, SnapshotVerified
from holdfast.protocol.snapshots import RestoreRecord, SnapshotRecord, SnapshotWarning
from holdfast.protocol.times import as_utc, nanosecond_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.archive.read.diff import PathChange
    from holdfast.archive.read.verify import Verified
    from holdfast.domain.digest import Digest
    from holdfast.domain.names import SnapshotKey
    from holdfast.form.entries import Entry
    from holdfast.protocol.message import Reply
    from holdfast.repository.snapshots.record import StoredRestore, StoredSnapshot

ReplyT = TypeVar("ReplyT", bound="Reply")


def snapshot_reply(record: StoredSnapshot, missing: Sequence[Digest] = ()) -> SnapshotRecord:
    """The record of a snapshot. Its root is told only when it can be read.

    Raises CorruptError where a client could not read it as a message.
    """
    totals = record.totals
    clients = record.state == "pending" and not record.lease.owner
    return _readable(
        SnapshotRecord(
            key=str(record.key),
            app=record.app,
            state=record.state,
            created_at=as_utc(record.created_at),
            node=record.node,
            labels=record.labels,
            finished_at=_optional_time(record.finished_at),
            entries=totals.entries,
            files=totals.files,
            size=totals.size,
            archive_size=totals.archive_size,
            added=totals.added,
            digest=record.digest if record.state == "ok" else None,
            parent=record.parent,
            parent_digest=record.parent_digest,
            warnings=[warning_message(warning) for warning in record.warnings],
            warning_count=record.warning_count,
            code=record.code,
            reason=record.reason,
            missing=list(missing),
            lease_seconds=record.lease.seconds if clients else None,
            held=record.hold is not None,
            hold_reason=record.hold or "",
        )
    )


def snapshot_replies(
    records: Iterable[StoredSnapshot],
) -> tuple[list[SnapshotRecord], list[SnapshotKey]]:
    """Those of ``records`` that can be shown, and the keys of the others."""
    shown: list[SnapshotRecord] = []
    damaged: list[SnapshotKey] = []
    for record in records:
        try:
            shown.append(snapshot_reply(record))
        except CorruptError:
            damaged.append(record.key)
    return shown, damaged


def _readable(reply: ReplyT) -> ReplyT:
    """``reply``, if a client can read it: a record may hold anything."""
    try:
        written = msgspec.msgpack.encode(reply)
        return msgspec.msgpack.decode(written, type=type(reply))
    except (msgspec.MsgspecError, OverflowError, UnicodeError) as error:
        raise CorruptError("the record is damaged: it cannot be shown") from error


def restore_reply(record: StoredRestore) -> RestoreRecord:
    """The record of a restore. Raises CorruptError as ``snapshot_reply`` does."""
    totals = record.totals
    return _readable(
        RestoreRecord(
            restore=record.id,
            key=record.snapshot,
            app=record.app,
            mode=record.mode,
            state=record.state,
            created_at=as_utc(record.created_at),
            node=record.node,
            finished_at=_optional_time(record.finished_at),
            entries=totals.entries,
            files=totals.files,
            size=totals.size,
            digest=record.digest,
            warnings=[warning_message(warning) for warning in record.warnings],
            warning_count=record.warning_count,
            code=record.code,
            reason=record.reason,
            removed=totals.removed,
            dry_run=record.dry_run,
            plan=[change_message(line) for line in record.plan],
            plan_count=record.plan_count,
        )
    )


def entry_reply(entry: Entry) -> FileEntry:
    """One entry of a snapshot."""
    path, path_bytes = wire_path(entry.path)
    target, target_bytes = (None, None) if not entry.target else wire_path(entry.target)
    return FileEntry(
        path=path,
        path_bytes=path_bytes,
        kind=KIND_NAMES[entry.kind],
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=nanosecond_time(entry.mtime_ns),
        size=entry.size,
        target=target,
        target_bytes=target_bytes,
        xattrs={name.decode(errors="replace"): value for name, value in entry.xattrs},
    )


def change_reply(change: PathChange) -> SnapshotChange:
    """One difference between two snapshots."""
    last = change.after or change.before
    return change_message(
        EntryChange(
            path=change.path,
            change=change.change,
            kind=last.kind if last is not None else None,
            size_before=change.before.size if change.before is not None else None,
            size_after=change.after.size if change.after is not None else None,
        )
    )


def verified_reply(
    found: Sequence[Verified], cursor: str | None, max_bytes: int
) -> SnapshotVerified:
    """The result of reading a snapshot back. Damage that has no room is only counted."""
    damaged = [
        DamagedPack(
            digest=pack.pack,
            code=pack.code,
            detail=pack.detail,
            paths=[wire_path(path)[0] for path in pack.paths],
        )
        for part in found
        for pack in part.damaged
    ]
    return SnapshotVerified(
        packs=sum(part.packs for part in found),
        frames=sum(part.frames for part in found),
        bytes=sum(part.bytes for part in found),
        damaged=fitting(damaged, max_bytes),
        damaged_count=sum(part.damaged_count for part in found),
        cursor=cursor,
    )


def stored_warning(warning: SnapshotWarning) -> EntryWarning:
    """A warning that a client sends along."""
    path = warning.path.encode(errors="replace")
    if warning.path_bytes is not None:
        path = warning.path_bytes
    return EntryWarning(kind=warning.kind[:32], path=path[:4096], detail=warning.detail[:512])


def _optional_time(text: str | None) -> str | None:
    return as_utc(text) if text is not None else None
