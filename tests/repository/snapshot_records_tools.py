"""Records of snapshots for tests, and a record store that loses answers."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from tests.repository.pool import START, Doom, DoomedRecordStore

from holdfast.domain.names import id_floor
from holdfast.errors import OutcomeUnknownError
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.snapshots.record import SNAPSHOT, StoredSnapshot, snapshot_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.domain.names import SnapshotKey
    from holdfast.repository.ledger.ledger import Held, Ledger
    from holdfast.stores.record_ports import RecordStore

T = TypeVar("T")

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


class LossyRecordStore(DoomedRecordStore):
    """A record store of which the answer to one change gets lost, ``applied`` or not."""

    def __init__(self, inner: RecordStore, *, applied: bool) -> None:
        super().__init__(inner, Doom(0, applied=False))
        self._applied = applied
        self._losing = False

    def lose_next(self) -> None:
        """Lose the answer to the next change."""
        self._losing = True

    async def _write(self, function: Callable[[], Awaitable[T]]) -> T:
        losing, self._losing = self._losing, False
        if losing:
            if self._applied:
                await function()
            raise OutcomeUnknownError("the answer was lost")
        return await function()
