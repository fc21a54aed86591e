"""Who needs a blob: a name, a version of one, or a snapshot, and what they are grouped by."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, Protocol

from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import CorruptError
from holdfast.repository.names.record import NAME, VERSION
from holdfast.repository.snapshots.record import SNAPSHOT
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from holdfast.repository.collector.roots import RootSource
    from holdfast.repository.names.record import NamedContent
    from holdfast.stores.record_ports import Changed

By = Literal["app", "prefix", "label"]
STALE: Final = timedelta(hours=1)
"""After so long without a change a write of a name that is under way should have been ended."""

_LEASES: Final = 4
"""After so many of its leases a snapshot that is pending should have been ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobOwner:
    """Something of ``size`` bytes that needs ``root`` and, if that is of a snapshot, all below it.

    ``name`` is shown. Of a snapshot there is an ``app``, of a name none.
    """

    name: str
    root: Digest
    size: int
    app: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """What owners are put together by.

    By ``prefix`` it is the first ``depth`` pieces between ``delimiter`` of the names that begin
    with ``prefix``. By ``label`` an owner counts for each that it has.
    """

    by: By
    prefix: str = ""
    delimiter: str = "/"
    depth: int = 1

    def groups(self, owner: BlobOwner) -> Sequence[str]:
        """The groups that ``owner`` is in."""
        if self.by == "label":
            return [f"{key}={value}" for key, value in owner.labels.items()]
        if self.by == "app":
            return [] if owner.app is None else [owner.app]
        if owner.app is not None or not owner.name.startswith(self.prefix):
            return []
        pieces = owner.name[len(self.prefix) :].split(self.delimiter)
        below = self.delimiter.join(pieces[: self.depth])
        is_whole = len(pieces) <= self.depth
        return [self.prefix + below + ("" if is_whole else self.delimiter)]


class OwnerSource(Protocol):
    """Records that name owners, beside a source of roots that knows what these need."""

    @property
    def roots(self) -> RootSource:
        """What the roots need, and where the records are."""

    @property
    def is_direct(self) -> bool:
        """Whether a root needs itself alone."""

    def owners(self, changed: Changed) -> Sequence[BlobOwner]:
        """Those that a record names. Raises CorruptError."""

    def is_living(self, changed: Changed) -> bool:
        """Whether a record that never goes away is more than a note of a removal."""

    def is_stale(self, changed: Changed, now: datetime) -> bool:
        """Whether it is under way, and should have been ended. Raises CorruptError."""


class NameOwners:
    """Names and their versions."""

    is_direct: Final = True

    def __init__(self, roots: RootSource) -> None:
        """``roots`` are those of the names."""
        self.roots = roots

    def owners(self, changed: Changed) -> Sequence[BlobOwner]:
        """See OwnerSource."""
        if changed.value is None:
            return ()
        found = Record(key=changed.key, value=changed.value, revision=changed.revision)
        if changed.key.startswith(f"{NAME.prefix}."):
            record = NAME.read(found).record
            return [] if record.content is None else [_named(record.name, record.content)]
        if changed.key.startswith(f"{VERSION.prefix}."):
            version = VERSION.read(found).record
            return [_named(version.name, version.content)]
        return ()

    def is_living(self, changed: Changed) -> bool:
        """See OwnerSource. One that cannot be read is more than that."""
        if changed.value is None:
            return False
        found = Record(key=changed.key, value=changed.value, revision=changed.revision)
        try:
            return NAME.read(found).record.state != "deleted"
        except CorruptError:
            return True

    def is_stale(self, changed: Changed, now: datetime) -> bool:
        """See OwnerSource."""
        if changed.value is None or not changed.key.startswith(f"{NAME.prefix}."):
            return False
        found = Record(key=changed.key, value=changed.value, revision=changed.revision)
        return bool(NAME.read(found).record.pending) and now - changed.at > STALE


class SnapshotOwners:
    """Snapshots that are ``ok``."""

    is_direct: Final = False

    def __init__(self, roots: RootSource) -> None:
        """``roots`` are those of the snapshots."""
        self.roots = roots

    def owners(self, changed: Changed) -> Sequence[BlobOwner]:
        """See OwnerSource."""
        if changed.value is None or not changed.key.startswith(f"{SNAPSHOT.prefix}."):
            return ()
        found = Record(key=changed.key, value=changed.value, revision=changed.revision)
        record = SNAPSHOT.read(found).record
        if record.state != "ok":
            return ()
        return [
            BlobOwner(
                name=str(record.key),
                root=_digest(record.digest),
                size=record.totals.size,
                app=record.app,
                labels=record.labels,
            )
        ]

    def is_living(self, changed: Changed) -> bool:
        """See OwnerSource."""
        return changed.value is not None

    def is_stale(self, changed: Changed, now: datetime) -> bool:
        """See OwnerSource."""
        if changed.value is None or not changed.key.startswith(f"{SNAPSHOT.prefix}."):
            return False
        found = Record(key=changed.key, value=changed.value, revision=changed.revision)
        record = SNAPSHOT.read(found).record
        patience = timedelta(seconds=record.lease.seconds * _LEASES)
        return record.state == "pending" and now - changed.at > patience


def _named(name: str, content: NamedContent) -> BlobOwner:
    return BlobOwner(
        name=name, root=_digest(content.digest), size=content.size, labels=content.labels
    )


def _digest(text: str | None) -> Digest:
    if text is None or not is_digest(text):
        msg = "the record names no digest"
        raise CorruptError(msg)
    return Digest(text)
