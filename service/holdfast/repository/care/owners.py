"""Owners of blobs: names and versions, saves of states, snapshots; and their grouping."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import batched
from typing import TYPE_CHECKING, Final, Literal, Protocol

from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import CorruptError
from holdfast.repository.names.record import NAME, VERSION
from holdfast.repository.snapshots.record import SNAPSHOT
from holdfast.repository.states.record import STATE
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from holdfast.repository.collector.roots import RootSource
    from holdfast.repository.names.record import NamedContent
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.states.record import StateRecord
    from holdfast.stores.record_ports import Changed

By = Literal["app", "prefix", "label"]
_AT_ONCE: Final = 4096
STALE: Final = timedelta(hours=1)
"""After so long without a change a write of a name that is under way should have been ended."""

_LEASES: Final = 4
"""After so many of its leases a snapshot that is pending should have been ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobOwner:
    """Something of ``size`` bytes that needs ``root`` and, if that is of a snapshot, all below it.

    ``name`` is shown. A snapshot has an ``app``.
    """

    kind: Literal["name", "snapshot", "state"]
    name: str
    root: Digest
    size: int
    app: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """The key that owners are grouped by.

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
        if owner.kind != "name" or not owner.name.startswith(self.prefix):
            return []
        pieces = owner.name[len(self.prefix) :].split(self.delimiter)
        below = self.delimiter.join(pieces[: self.depth])
        is_whole = len(pieces) <= self.depth
        return [self.prefix + below + ("" if is_whole else self.delimiter)]


class OwnerSource(Protocol):
    """Records that name owners."""

    @property
    def roots(self) -> RootSource:
        """The source of the records."""

    @property
    def is_direct(self) -> bool:
        """Whether a root needs itself alone."""

    def owners(self, changed: Changed) -> Sequence[BlobOwner]:
        """Those that a record names. Raises CorruptError."""

    def is_living(self, changed: Changed) -> bool:
        """Whether a record that never goes away is more than a note of a removal."""

    def is_stale(self, changed: Changed, now: datetime) -> bool:
        """Whether it is under way, and should have been ended. Raises CorruptError."""

    def needed(self, root: Digest) -> AsyncIterator[Sequence[Digest]]:
        """Every blob that ``root`` needs, itself included. Raises NotFoundError, CorruptError."""


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

    async def needed(self, root: Digest) -> AsyncIterator[Sequence[Digest]]:
        """See OwnerSource."""
        yield (root,)


class StateOwners:
    """The saves of states."""

    is_direct: Final = True

    def __init__(self, roots: RootSource) -> None:
        """``roots`` are those of the states."""
        self.roots = roots

    def owners(self, changed: Changed) -> Sequence[BlobOwner]:
        """See OwnerSource."""
        record = self._record(changed)
        if record is None:
            return ()
        return [
            BlobOwner(kind="state", name=record.name, root=_digest(save.digest), size=save.size)
            for save in record.saves
        ]

    def is_living(self, changed: Changed) -> bool:
        """See OwnerSource. One that cannot be read is more than that."""
        try:
            record = self._record(changed)
        except CorruptError:
            return True
        return record is not None and bool(record.log or record.saves)

    def is_stale(self, changed: Changed, now: datetime) -> bool:
        """See OwnerSource. Nothing is under way in the record of a state."""
        del changed, now
        return False

    async def needed(self, root: Digest) -> AsyncIterator[Sequence[Digest]]:
        """See OwnerSource."""
        yield (root,)

    def _record(self, changed: Changed) -> StateRecord | None:
        """Raises CorruptError."""
        if changed.value is None or not changed.key.startswith(f"{STATE.prefix}."):
            return None
        found = Record(key=changed.key, value=changed.value, revision=changed.revision)
        return STATE.read(found).record


class SnapshotOwners:
    """Snapshots that are ``ok``."""

    is_direct: Final = False

    def __init__(self, roots: RootSource, packs: Packs) -> None:
        """``roots`` are those of the snapshots, which lie in ``packs``."""
        self.roots = roots
        self._packs = packs

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
                kind="snapshot",
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

    async def needed(self, root: Digest) -> AsyncIterator[Sequence[Digest]]:
        """See OwnerSource. A pack that is kept in part counts as one that is there."""
        _, needed = await self._packs.root(root)
        for some in batched(needed, _AT_ONCE):
            yield some


def _named(name: str, content: NamedContent) -> BlobOwner:
    return BlobOwner(
        kind="name",
        name=name,
        root=_digest(content.digest),
        size=content.size,
        labels=content.labels,
    )


def _digest(text: str | None) -> Digest:
    if text is None or not is_digest(text):
        msg = "the record names no digest"
        raise CorruptError(msg)
    return Digest(text)
