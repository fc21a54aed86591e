"""What is kept of snapshots and restores, and under which keys of the bucket ``snapshots``.

``s.<app>.<id>`` is a snapshot, ``l.<key>.<value>.<app>.<id>`` one of its labels, ``p.<app>.<id>``
says that it is pending. ``r.<id>`` is a restore, ``q.<id>`` says that it is pending. A marker or
label is written and removed in one batch with its record, so listing keys is enough to find them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from holdfast.domain.names import SnapshotKey, token
from holdfast.domain.terms import EntryChange, EntryWarning, RestoreMode, SnapshotState
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SNAPSHOTS: Final = "s"
LABELS: Final = "l"
PENDING_SNAPSHOTS: Final = "p"
RESTORES: Final = "r"
PENDING_RESTORES: Final = "q"

MAX_WARNING_BYTES: Final = 24 * 1024
"""What the warnings of one record may take, so that it fits a message whatever the paths."""

MAX_PLAN_BYTES: Final = 24 * 1024
RESTORE_TTL: Final = timedelta(days=7)
"""How long the end of a restore may be asked for."""

_OVERHEAD_BYTES: Final = 64


class Totals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of a snapshot or restore; sizes are bytes. ``removed`` are entries deleted."""

    entries: int = 0
    files: int = 0
    size: int = 0
    archive_size: int = 0
    added: int = 0
    removed: int = 0


class Lease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who works on a pending record. ``beat`` rises, so that others see that somebody does.

    ``owner`` is a worker's id, or empty when the client does the work.
    """

    owner: str
    seconds: float
    beat: int = 0


class StoredSnapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of a snapshot. ``digest`` is its root: announced while pending, final if ok."""

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


Stored = StoredSnapshot | StoredRestore
StoredT = TypeVar("StoredT", StoredSnapshot, StoredRestore)


def record_key(record: Stored) -> str:
    """Where ``record`` lies."""
    if isinstance(record, StoredRestore):
        return restore_key(record.id)
    return snapshot_key(record.key)


def marker_key(record: Stored) -> str:
    """The key that says that ``record`` is pending."""
    if isinstance(record, StoredRestore):
        return f"{PENDING_RESTORES}.{record.id}"
    return pending_key(record.key)


def snapshot_key(key: SnapshotKey) -> str:
    """The key of a snapshot's record."""
    return f"{SNAPSHOTS}.{token(key.app)}.{key.id}"


def pending_key(key: SnapshotKey) -> str:
    """The key that says that a snapshot is pending."""
    return f"{PENDING_SNAPSHOTS}.{token(key.app)}.{key.id}"


def restore_key(restore: str) -> str:
    """The key of a restore's record."""
    return f"{RESTORES}.{restore}"


def label_prefix(name: str, value: str) -> str:
    """What the keys of all snapshots with this label begin with."""
    return f"{LABELS}.{token(name)}.{token(value)}"


def label_keys(record: Stored) -> list[str]:
    """The keys that find ``record`` by its labels; a restore has none."""
    if isinstance(record, StoredRestore):
        return []
    end = f"{token(record.app)}.{record.id}"
    return [f"{label_prefix(name, value)}.{end}" for name, value in record.labels.items()]


def ended_ttl(record: Stored) -> timedelta | None:
    """After which time ``record`` goes away, once it is not pending; None: it stays."""
    return RESTORE_TTL if isinstance(record, StoredRestore) else None


def noun_of(record: Stored) -> str:
    """What ``record`` is of."""
    return "restore" if isinstance(record, StoredRestore) else "snapshot"


def encode(record: Stored) -> bytes:
    """``record`` as it is stored."""
    return msgspec.json.encode(record)


def decode(value: bytes, kind: type[StoredT]) -> StoredT:
    """Raises CorruptError."""
    try:
        return msgspec.json.decode(value, type=kind)
    except msgspec.MsgspecError as error:
        msg = "the record is unreadable"
        raise CorruptError(msg) from error


def first_warnings(warnings: tuple[EntryWarning, ...]) -> tuple[EntryWarning, ...]:
    """As many of ``warnings`` as a record keeps."""
    return tuple(_fitting(warnings, MAX_WARNING_BYTES, lambda w: len(w.path) + len(w.detail)))


def first_plans(plan: tuple[EntryChange, ...]) -> tuple[EntryChange, ...]:
    """As many lines of a dry run as a record keeps."""
    return tuple(_fitting(plan, MAX_PLAN_BYTES, lambda line: len(line.path)))


Line = TypeVar("Line")


def _fitting(lines: Iterable[Line], limit: int, size: Callable[[Line], int]) -> Iterator[Line]:
    taken = 0
    for line in lines:
        taken += 4 * size(line) + _OVERHEAD_BYTES
        if taken > limit:
            return
        yield line
