"""Records of snapshots and restores, and their keys in the bucket ``snapshots``.

``s.<app>.<id>`` is a snapshot, ``l.<key>.<value>.<app>.<id>`` one of its labels, ``p.<app>.<id>``
says that it is pending. ``r.<id>`` is a restore, ``q.<id>`` says that it is pending. A marker or
label is written and removed in one batch with its record, so listing keys is enough to find them.

Why: docs/decisions.md, "Removed snapshots", and "Pending markers".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from holdfast.domain.names import SnapshotKey, token
from holdfast.form.frames import END_FRAME
from holdfast.form.seek_table import MAX_FRAMES, seek_table_size
from holdfast.form.terms import EntryChange, EntryWarning, RestoreMode, SnapshotState
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.ledger.ledger import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdfast.form.root import Root

LABELS: Final = "l"

MAX_WARNING_BYTES: Final = 24 * 1024
"""Bytes that one record's warnings may take, so that it fits a message whatever the paths."""

MAX_PLAN_BYTES: Final = 24 * 1024
RESTORE_TTL: Final = timedelta(days=7)
"""The end of a restore may be asked for so long."""

_OVERHEAD_BYTES: Final = 64


class Totals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of a snapshot or restore; sizes are bytes. ``removed`` are entries deleted."""

    entries: int = 0
    files: int = 0
    size: int = 0
    archive_size: int = 0
    added: int = 0
    removed: int = 0


class StoredSnapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of a snapshot. ``digest`` is its root: announced while pending, final if ok.

    ``hold`` says why somebody holds it, if somebody does: no policy removes it then.
    """

    app: str
    id: str
    state: SnapshotState
    lease: Lease
    created_at: str
    node: str = ""
    labels: dict[str, str] = {}
    finished_at: str | None = None
    totals: Totals = Totals()
    digest: str | None = None
    parent: str | None = None
    parent_digest: str | None = None
    warnings: tuple[EntryWarning, ...] = ()
    warning_count: int = 0
    code: str | None = None
    reason: str | None = None
    op_id: str | None = None
    hold: str | None = None

    @property
    def key(self) -> SnapshotKey:
        """Its app and id."""
        return SnapshotKey(self.app, self.id)


class StoredRestore(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of a restore of the snapshot ``snapshot`` into the app ``app``."""

    id: str
    snapshot: str
    app: str
    mode: RestoreMode
    state: SnapshotState
    lease: Lease
    created_at: str
    node: str = ""
    digest: str | None = None
    dry_run: bool = False
    finished_at: str | None = None
    totals: Totals = Totals()
    plan: tuple[EntryChange, ...] = ()
    plan_count: int = 0
    warnings: tuple[EntryWarning, ...] = ()
    warning_count: int = 0
    code: str | None = None
    reason: str | None = None


StoredWork = StoredSnapshot | StoredRestore
StoredT = TypeVar("StoredT", StoredSnapshot, StoredRestore)


def is_pending(record: StoredWork) -> bool:
    """Whether somebody works on it."""
    return record.state == "pending"


def renewed(record: StoredT) -> StoredT:
    """``record`` at the next beat of its lease."""
    return msgspec.structs.replace(record, lease=record.lease.renewed())


def failed(record: StoredT, code: str, reason: str, finished_at: datetime) -> StoredT:
    """``record`` as it is when nothing came of it."""
    return msgspec.structs.replace(
        record, state="failure", code=code, reason=reason, finished_at=finished_at.isoformat()
    )


def totals_of(root: Root, *, added: int) -> Totals:
    """A record's totals of its root; ``added`` is bytes."""
    return Totals(
        entries=root.entries,
        files=root.files,
        size=root.size_bytes,
        archive_size=archive_size(root),
        added=added,
    )


def archive_size(root: Root) -> int:
    """The bytes of the ``.tar.zst`` of a snapshot: its frames, the end, and the seek table."""
    frames = root.frames + 1
    table = seek_table_size(frames) if frames <= MAX_FRAMES else 0
    return root.stored_bytes + len(END_FRAME) + table


def snapshot_name(key: SnapshotKey) -> str:
    """The name of a snapshot's record."""
    return f"{token(key.app)}.{key.id}"


def label_prefix(name: str, value: str) -> str:
    """The prefix of the keys of all snapshots with this label."""
    return f"{LABELS}.{token(name)}.{token(value)}"


def _label_keys(record: StoredSnapshot) -> list[str]:
    """The keys that find ``record`` by its labels."""
    name = snapshot_name(record.key)
    return [f"{label_prefix(label, value)}.{name}" for label, value in record.labels.items()]


SNAPSHOT: Final = RecordKind(
    noun="snapshot",
    form=StoredSnapshot,
    prefix="s",
    live_prefix="p",
    name=lambda record: snapshot_name(record.key),
    is_live=is_pending,
    renewed=renewed,
    finders=_label_keys,
)
RESTORE: Final = RecordKind(
    noun="restore",
    form=StoredRestore,
    prefix="r",
    live_prefix="q",
    name=lambda record: record.id,
    is_live=is_pending,
    renewed=renewed,
    ttl=lambda record: None if is_pending(record) else RESTORE_TTL,
)


def first_warnings(warnings: tuple[EntryWarning, ...]) -> tuple[EntryWarning, ...]:
    """As many of ``warnings`` as a record keeps."""
    return tuple(_fitting(warnings, MAX_WARNING_BYTES, lambda w: len(w.path) + len(w.detail)))


def first_plans(plan: tuple[EntryChange, ...]) -> tuple[EntryChange, ...]:
    """As many lines of a dry run as a record keeps."""
    return tuple(_fitting(plan, MAX_PLAN_BYTES, lambda line: len(line.path)))


def _fitting[Line](
    lines: Iterable[Line], limit: int, size: Callable[[Line], int]
) -> Iterator[Line]:
    taken = 0
    for line in lines:
        taken += 4 * size(line) + _OVERHEAD_BYTES
        if taken > limit:
            return
        yield line
