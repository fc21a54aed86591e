"""Owners of blobs: names and versions, saves of states, snapshots; and their grouping."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Final, Literal

from holdfast.repository.blob_roots import as_digests
from holdfast.repository.names.record import NAME, VERSION, NamedContent
from holdfast.repository.snapshots.record import SNAPSHOT
from holdfast.repository.snapshots.roots import roots_of
from holdfast.repository.states.record import STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.repository.collector.roots import RootSource
    from holdfast.repository.snapshots.packs import Packs
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


@dataclass(frozen=True, slots=True)
class OwningRecord:
    """The ``owners`` that a record names.

    ``is_living``: it is more than a note of a removal. ``is_stale``: it is under way, and should
    have been ended.
    """

    owners: Sequence[BlobOwner] = ()
    is_living: bool = True
    is_stale: bool = False


@dataclass(frozen=True, slots=True)
class OwnerSource:
    """The records of ``roots``, which name owners.

    ``read`` gives what one says that was changed, at a time by the store's clock, or raises
    CorruptError. ``needed`` gives every blob that a root needs, itself included, and raises
    NotFoundError, CorruptError; where it is None a root needs itself alone.
    """

    roots: RootSource
    read: Callable[[Changed, datetime], OwningRecord]
    needed: Callable[[Digest], AsyncIterator[Sequence[Digest]]] | None = None


def owning_names(changed: Changed, now: datetime) -> OwningRecord:
    """A name or a version. Raises CorruptError."""
    if name := NAME.of(changed):
        record = name.record
        return OwningRecord(
            [] if record.content is None else [_named(record.name, record.content)],
            is_living=record.state != "deleted",
            is_stale=bool(record.pending) and now - changed.at > STALE,
        )
    if version := VERSION.of(changed):
        return OwningRecord([_named(version.record.name, version.record.content)])
    return OwningRecord()


def owning_states(changed: Changed, _: datetime) -> OwningRecord:
    """The saves of a state. Raises CorruptError."""
    held = STATE.of(changed)
    if held is None:
        return OwningRecord()
    record = held.record
    roots = as_digests((save.digest for save in record.saves), "state")
    owners = [
        BlobOwner(kind="state", name=record.name, root=root, size=save.size)
        for root, save in zip(roots, record.saves, strict=True)
    ]
    return OwningRecord(owners, is_living=record.exists)


def owning_snapshots(changed: Changed, now: datetime) -> OwningRecord:
    """A snapshot that is ``ok``. Raises CorruptError."""
    held = SNAPSHOT.of(changed)
    if held is None:
        return OwningRecord()
    record = held.record
    if record.state != "ok":
        patience = timedelta(seconds=record.lease.seconds * _LEASES)
        return OwningRecord(is_stale=held.is_live and now - changed.at > patience)
    [root] = roots_of(record)
    owner = BlobOwner(
        kind="snapshot",
        name=str(record.key),
        root=root,
        size=record.totals.size,
        app=record.app,
        labels=record.labels,
    )
    return OwningRecord([owner])


async def needed_by_snapshot(packs: Packs, root: Digest) -> AsyncIterator[Sequence[Digest]]:
    """The blobs that a root needs. A pack that is kept in part counts as one that is there.

    Raises NotFoundError, CorruptError.
    """
    _, needed = await packs.root(root)
    for some in batched(needed, _AT_ONCE):
        yield some


def _named(name: str, content: NamedContent) -> BlobOwner:
    [root] = as_digests([content.digest], "name")
    return BlobOwner(kind="name", name=name, root=root, size=content.size, labels=content.labels)
