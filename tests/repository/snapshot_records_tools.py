"""Records of snapshots for tests, and a record store that loses answers."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tests.repository.pool import START

from holdfast.domain.names import id_floor
from holdfast.errors import OutcomeUnknownError
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.snapshots.record import SNAPSHOT, StoredSnapshot, snapshot_name
from holdfast.stores.record_ports import CHANGES_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from holdfast.domain.names import SnapshotKey
    from holdfast.repository.ledger.ledger import Held, Ledger
    from holdfast.stores.record_ports import Change, Changes, Extent, Record, RecordStore

LEASE_SECONDS: Final = 60.0
_numbers = itertools.count(1)


def key_at(minute: int) -> str:
    """An id made in ``minute``; each call gives another."""
    return id_floor(START + timedelta(minutes=minute))[:-12] + f"{next(_numbers):012x}"


def pending(
    app: str, minute: int, *, labels: Mapping[str, str] | None = None, owner: str = "w1"
) -> StoredSnapshot:
    """A record as it is when a snapshot is begun."""
    return StoredSnapshot(
        app=app,
        id=key_at(minute),
        state="pending",
        lease=Lease(owner=owner, seconds=LEASE_SECONDS),
        created_at=(START + timedelta(minutes=minute)).isoformat(),
        labels=dict(labels or {}),
    )


async def begin(ledger: Ledger, record: StoredSnapshot) -> Held[StoredSnapshot]:
    """Write the record of a snapshot."""
    return await ledger.begin(SNAPSHOT, snapshot_name(record.key), record)


async def read(ledger: Ledger, key: SnapshotKey) -> Held[StoredSnapshot]:
    """The record of a snapshot. Raises NotFoundError."""
    return await ledger.get(SNAPSHOT, snapshot_name(key))


async def pending_keys(ledger: Ledger) -> list[SnapshotKey]:
    """Which snapshots are pending."""
    return [held.record.key async for held in ledger.live(SNAPSHOT)]


class LossyRecordStore:
    """A record store of which the answer to one change gets lost, ``applied`` or not."""

    def __init__(self, inner: RecordStore, *, applied: bool) -> None:
        self._inner = inner
        self._applied = applied
        self._losing = False

    def lose_next(self) -> None:
        """Lose the answer to the next change."""
        self._losing = True

    async def _lose(self) -> bool:
        losing, self._losing = self._losing, False
        if losing and not self._applied:
            raise OutcomeUnknownError("the answer was lost")
        return losing

    async def get(self, key: str) -> Record:
        """See `RecordStore.get`."""
        return await self._inner.get(key)

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int,
        ttl: timedelta | None = None,
        grave: bool = False,
    ) -> int:
        """See `RecordStore.put`."""
        losing = await self._lose()
        revision = await self._inner.put(key, value, expected=expected, ttl=ttl, grave=grave)
        if losing:
            raise OutcomeUnknownError("the answer was lost")
        return revision

    async def delete(self, key: str, *, expected: int) -> None:
        """See `RecordStore.delete`."""
        await self._inner.delete(key, expected=expected)

    async def batch(self, changes: Sequence[Change]) -> list[int]:
        """See `RecordStore.batch`."""
        losing = await self._lose()
        revisions = await self._inner.batch(changes)
        if losing:
            raise OutcomeUnknownError("the answer was lost")
        return revisions

    async def get_many(self, keys: Sequence[str]) -> list[Record]:
        """See `RecordStore.get_many`."""
        return await self._inner.get_many(keys)

    async def list_keys(self, prefix: str) -> list[str]:
        """See `RecordStore.list_keys`."""
        return await self._inner.list_keys(prefix)

    def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See `RecordStore.list_records`."""
        return self._inner.list_records(prefix)

    async def extent(self) -> Extent:
        """See `RecordStore.extent`."""
        return await self._inner.extent()

    async def count(self, prefix: str) -> int:
        """See `RecordStore.count`."""
        return await self._inner.count(prefix)

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> Changes:
        """See `RecordStore.changes`."""
        return await self._inner.changes(after, limit=limit)

    async def check(self) -> None:
        """See `RecordStore.check`."""
        await self._inner.check()

    async def aclose(self) -> None:
        """See `RecordStore.aclose`."""
        await self._inner.aclose()
