"""Snapshots: begun and committed by clients, looked up, removed.

The steps that make one, by any archiver: a pending record; the data; the root announced
in the record; what is counted on kept from the collector; then ``ok``, by compare-and-set.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import batched
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.domain.digest import Digest
from holdfast.domain.names import (
    SnapshotKey,
    check_app,
    check_labels,
    created_at_of,
    later_id,
)
from holdfast.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
)
from holdfast.repository.ledger.lease import RENEWALS_PER_LEASE, Carried, Lease
from holdfast.repository.snapshots.listing import SnapshotListing, growing
from holdfast.repository.snapshots.manifests import MAX_MISSING, Manifests, UnreadableError
from holdfast.repository.snapshots.record import (
    SNAPSHOT,
    StoredSnapshot,
    first_warnings,
    renewed,
    snapshot_name,
)
from holdfast.repository.snapshots.retention.prune import fence_against
from holdfast.repository.snapshots.securing import Securing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast.form.terms import EntryWarning
    from holdfast.repository.ledger.ledger import Held, Ledger
    from holdfast.repository.ledger.ops import Ops
    from holdfast.repository.snapshots.packs import Packs
    from holdfast.repository.snapshots.record import Totals
    from holdfast.sources import Sources

CLOCKS_DIFFER: Final = timedelta(seconds=2)
"""Clocks that are less apart are not told of: requests take time, too."""

_PARENTS_LOOKED_AT: Final = 512
_PARENTS_AT_ONCE: Final = 8
_PURGED_AT_ONCE: Final = 16
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """The maker of a snapshot: a worker by its id, or, with an empty one, the client."""

    id: str
    node: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Commit:
    """The answer to a commit: the record, and blobs to put before it can be ``ok``."""

    record: StoredSnapshot
    missing: Sequence[Digest] = ()


class SnapshotLedger:
    """The records of snapshots."""

    def __init__(
        self,
        ledger: Ledger,
        listing: SnapshotListing,
        ops: Ops,
        packs: Packs,
        manifests: Manifests,
        *,
        sources: Sources,
        on_removed: Callable[[str], None],
    ) -> None:
        """``on_removed`` is told of the records of snapshots that this worker removes."""
        self._ledger = ledger
        self._listing = listing
        self.ops = ops
        self._packs = packs
        self._manifests = manifests
        self._sources = sources
        self._on_removed = on_removed
        self.securing = Securing(packs, partial(self.get, sure=True))

    # --- making ---

    async def announce(
        self,
        app: str,
        labels: Mapping[str, str],
        owner: Maker,
        op_id: str | None,
        *,
        alone: bool = False,
    ) -> tuple[Held[StoredSnapshot], bool]:
        """A pending record, and whether it is there from an earlier request with ``op_id``.

        ``alone``: it has no parent.

        Raises InvalidError, ConflictError (the ``Op-Id`` stands for something else, or what it
        made was removed).
        """
        check_app(app)
        check_labels(labels)
        keys = await self._listing.of_app(app)
        fresh = SnapshotKey(app, self._next_id(keys))
        choosing = asyncio.create_task(
            self._choose_parent([] if alone else keys, made_by_worker=bool(owner.node))
        )
        try:
            text, repeated = await self.ops.claim(op_id, str(fresh))
            key = _key_of_op(text, app)
            if op_id is not None and repeated:
                earlier = await self._made_by(op_id, key)
                if earlier is not None:
                    return earlier, True
            parent = await choosing
        finally:
            choosing.cancel()  # a repeat needs none
            await asyncio.gather(choosing, return_exceptions=True)
        record = StoredSnapshot(
            app=app,
            id=key.id,
            state="pending",
            lease=Lease(owner=owner.id, seconds=owner.lease_seconds),
            created_at=self._sources.clock().isoformat(),
            node=owner.node,
            labels=dict(labels),
            parent=str(parent.key) if parent is not None else None,
            parent_digest=parent.digest if parent is not None else None,
            op_id=op_id,
        )
        try:
            return await self._ledger.begin(SNAPSHOT, snapshot_name(key), record), False
        except ConflictError:
            if op_id is None:
                raise
            return await self._held(key), True  # a repeat of this request was quicker

    async def _made_by(self, op_id: str, key: SnapshotKey) -> Held[StoredSnapshot] | None:
        """What an earlier request with ``op_id`` made; None where it did not get so far.

        Raises ConflictError where that was removed.
        """
        try:
            return await self._held(key)
        except NotFoundError as error:
            if await self.ops.was_removed(op_id):
                msg = f"the snapshot {key} of this request was removed"
                raise ConflictError(msg) from error
            return None

    def _next_id(self, keys: Sequence[SnapshotKey]) -> str:
        """A fresh id, later than those of an app's snapshots (newest first), removed ones too."""
        made = self._sources.new_uuid()
        newest = keys[0].id if keys else None
        new_id = later_id(made, newest)
        ahead = created_at_of(new_id) - created_at_of(made)
        if ahead > CLOCKS_DIFFER:
            log.warning("clock_behind", seconds=ahead.total_seconds(), newest=str(keys[0]))
        return new_id

    async def _choose_parent(
        self, keys: Sequence[SnapshotKey], *, made_by_worker: bool
    ) -> StoredSnapshot | None:
        """The newest readable snapshot among ``keys``, newest first.

        A worker builds upon none that a client has made: what looks unchanged is taken over unread,
        so a client could have put other content in the place of files it cannot write.
        """
        looked_at = 0
        for batch in growing(keys, _PARENTS_AT_ONCE):
            found, _ = await self._ledger.get_many(SNAPSHOT, [*map(snapshot_name, batch)])
            looked_at += len(found)
            if looked_at > _PARENTS_LOOKED_AT:
                break
            for held in found.values():
                if made_by_worker and not held.record.node:
                    continue
                if await self._is_there(held.record):
                    return held.record
        return None

    async def _is_there(self, record: StoredSnapshot) -> bool:
        """Whether ``record`` is readable and its root stored."""
        if record.state != "ok" or record.digest is None:
            return False
        return await self._packs.has(Digest(record.digest))

    def finished(self, record: StoredSnapshot, digest: Digest, totals: Totals) -> StoredSnapshot:
        """``record`` as it is when all is well."""
        return msgspec.structs.replace(
            record,
            state="ok",
            digest=digest,
            finished_at=self._sources.clock().isoformat(),
            totals=totals,
        )

    # --- for clients that archive themselves ---

    async def begin(
        self, app: str, labels: Mapping[str, str], lease_seconds: float, op_id: str | None
    ) -> StoredSnapshot:
        """A pending snapshot whose data the client is going to put."""
        owner = Maker(id="", node="", lease_seconds=lease_seconds)
        held, _ = await self.announce(app, labels, owner, op_id)
        return held.record

    async def renew(self, key: SnapshotKey) -> StoredSnapshot:
        """Begin a pending snapshot's lease anew. Raises NotFoundError, ConflictError."""

        def by_client(record: StoredSnapshot) -> StoredSnapshot:
            check_clients(record)
            return renewed(record)

        return (await self._ledger.update(await self._held(key), by_client)).record

    async def commit(
        self,
        key: SnapshotKey,
        digest: Digest,
        *,
        added: int,
        warnings: tuple[EntryWarning, ...],
        warning_count: int,
    ) -> Commit:
        """Make the root ``digest`` the content of a pending snapshot. May be repeated.

        Nothing is announced before the whole manifest was read. Raises NotFoundError,
        ConflictError, CorruptError (it is none), TooLargeError.
        """
        held = await self._held(key)
        if _is_made_of(held.record, digest):
            return Commit(held.record)  # a repeat
        check_clients(held.record)

        async def beat() -> None:
            await self.renew(key)

        every_seconds = held.record.lease.seconds / RENEWALS_PER_LEASE
        try:
            totals = await self._manifests.look_through(
                digest, every_seconds=every_seconds, beat=beat
            )
        except UnreadableError as error:
            return Commit(held.record, error.digests)

        def announced(record: StoredSnapshot) -> StoredSnapshot:
            check_clients(record)
            return msgspec.structs.replace(
                renewed(record),
                digest=digest,
                warnings=first_warnings(warnings),
                warning_count=max(warning_count, len(warnings)),
            )

        totals = msgspec.structs.replace(totals, added=added)
        try:
            held = await self._ledger.update(held, announced)
            return await self._secure(held, digest, totals)
        except ConflictError:
            ended = await self.get(key)
            if not _is_made_of(ended, digest):  # by a repeat that was quicker
                raise
            return Commit(ended)

    async def _secure(self, held: Held[StoredSnapshot], digest: Digest, totals: Totals) -> Commit:
        """Make a snapshot whose root is announced ``ok``, once what it needs is safe.

        Raises ConflictError where it is no longer pending, or the root is another.
        """
        # Its client renews it, too; that the root is another's is a reason to stop.
        carried = Carried(self._ledger, held, partial(_check_announced, digest))
        every_seconds = held.record.lease.seconds / RENEWALS_PER_LEASE
        try:
            async with self._manifests.opened(
                digest, every_seconds=every_seconds, beat=carried.renew
            ) as reader:
                missing = await self.securing.of_manifest(held.record, reader, carried.renew)
        except UnreadableError as error:
            return Commit(carried.record, error.digests)
        if missing:
            return Commit(carried.record, missing[:MAX_MISSING])
        await carried.renew(partial(self.finished, digest=digest, totals=totals))
        return Commit(carried.record)

    # --- looking up, removing ---

    async def get(self, key: SnapshotKey, *, sure: bool = False) -> StoredSnapshot:
        """The record, ``sure`` as in `RecordStore.get`. Raises NotFoundError."""
        return (await self._held(key, sure=sure)).record

    async def _held(self, key: SnapshotKey, *, sure: bool = False) -> Held[StoredSnapshot]:
        return await self._ledger.get(SNAPSHOT, snapshot_name(key), sure=sure)

    async def get_readable(self, key: SnapshotKey) -> tuple[StoredSnapshot, Digest]:
        """A snapshot that is ``ok``, and its root. Raises NotFoundError, ConflictError."""
        record = await self.get(key)
        if record.state != "ok" or record.digest is None:
            raise ConflictError(f"the snapshot {key} is {record.state}: it cannot be read")
        return record, Digest(record.digest)

    async def delete(self, key: SnapshotKey, op_id: str | None) -> bool:
        """Forget a snapshot, a pending one too; whether it was there.

        A repeat with the ``op_id`` that removed it answers True again.
        """
        claim = f"deleted:{key}"
        try:
            held = await self._held(key)
        except NotFoundError:
            return await self._was_deleted(key, op_id, claim)
        except CorruptError:
            await self._ledger.remove_unreadable(SNAPSHOT, snapshot_name(key))
            return True
        await self.ops.claim(op_id, claim)
        await self.ops.note_removed(held.record.op_id, str(key))
        try:
            fence = fence_against(key.app, self._sources.new_id())
            await self._ledger.remove(held, beside=[fence])
        except NotFoundError:
            return await self._was_deleted(key, op_id, claim)
        self._on_removed(held.key)
        return True

    async def hold(self, key: SnapshotKey, reason: str | None) -> StoredSnapshot:
        """Keep a snapshot from policies, for ``reason``; None: do so no more.

        Raises NotFoundError, ConflictError (it was removed meanwhile, or kept changing).
        """

        def changed(record: StoredSnapshot) -> StoredSnapshot:
            if record.hold == reason:
                return record
            return msgspec.structs.replace(record, hold=reason)

        return (await self._ledger.amend(await self._held(key), changed)).record

    async def _was_deleted(self, key: SnapshotKey, op_id: str | None, claim: str) -> bool:
        """Whether the request ``op_id`` has deleted the snapshot, which is not there."""
        if op_id is None:
            return False
        said, _ = await self.ops.claim(op_id, f"absent:{key}")
        return said == claim

    async def purge(self, app: str) -> int:
        """Forget all snapshots of an app; how many."""
        deleted = 0
        for batch in batched(await self._listing.of_app(app), _PURGED_AT_ONCE):
            found = await asyncio.gather(*(self.delete(key, None) for key in batch))
            deleted += sum(found)
        return deleted


def check_clients(record: StoredSnapshot) -> None:
    """Raises ConflictError unless ``record`` is pending and its client's to end."""
    if record.state != "pending":
        raise ConflictError(f"the snapshot {record.key} is {record.state}")
    if record.lease.owner:
        raise ConflictError(f"the snapshot {record.key} is being made by a worker")


def _check_announced(digest: Digest, record: StoredSnapshot) -> None:
    if record.digest != digest:
        raise ConflictError("the snapshot was announced anew meanwhile")


def _is_made_of(record: StoredSnapshot, digest: Digest) -> bool:
    return record.state == "ok" and record.digest == digest


def _key_of_op(text: str, app: str) -> SnapshotKey:
    try:
        key = SnapshotKey.parse(text)
    except InvalidError as error:
        raise ConflictError(_OTHER_OP) from error
    if key.app != app:
        raise ConflictError(_OTHER_OP)
    return key


_OTHER_OP: Final = "the Op-Id was used for another request"
