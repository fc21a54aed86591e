"""Workers that apply policies to the snapshots of one store, and time that a test moves."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from tests.repository.pool import DoomedRecordStore, Time
from tests.repository.snapshot_records_tools import begin, pending, read

from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.ledger.ops import Ops
from holdfast.repository.snapshots.listing import SnapshotListing
from holdfast.repository.snapshots.record import SNAPSHOT, snapshot_name
from holdfast.repository.snapshots.retention.policies import Policies
from holdfast.repository.snapshots.retention.prune import Pruner, fence_against
from holdfast.repository.snapshots.retention.zones import TimeZones, packaged_zones
from holdfast.stores.memory import MemoryRecordStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, tzinfo

    from tests.repository.pool import Pause

    from holdfast.domain.names import SnapshotKey
    from holdfast.form.terms import SnapshotState
    from holdfast.stores.record_ports import RecordStore

APP = "shop"
ZONES = packaged_zones()


def other_zones(version: str, zone: tzinfo) -> TimeZones:
    """Another database, in which every zone is ``zone``."""
    return TimeZones(version, lambda _name: zone)


class Archive:
    """The snapshots of a store, and the workers that look after them."""

    def __init__(
        self,
        store: RecordStore | None = None,
        *,
        clock: Callable[[], datetime] | None = None,
        app: str = APP,
    ) -> None:
        """Over ``store``, whose clock is ``clock``, or over one in memory."""
        self.app = app
        self.time = Time()
        self.time.seconds = timedelta(days=30).total_seconds()
        self.clock = clock or self.time.clock
        made = partial(MemoryRecordStore, self.time.monotonic, clock=self.clock)
        self.store = store or made()
        self.ops = made()
        self.ledger = Ledger(self.store)
        self._ids = (f"{number:022d}" for number in itertools.count(1))

    def worker(
        self,
        *,
        off: timedelta = timedelta(0),
        zones: TimeZones = ZONES,
        pause: Pause | None = None,
    ) -> Pruner:
        """A worker whose clock is ``off`` the store's."""
        store = self.store if pause is None else DoomedRecordStore(self.store, pause)
        ledger = Ledger(store)
        sources = replace(
            self.time.sources,
            clock=lambda: self.clock() + off,
            new_id=lambda: next(self._ids),
        )
        return Pruner(
            ledger,
            SnapshotListing(ledger),
            Ops(self.ops),
            Policies(ledger, zones),
            zones,
            sources=sources,
        )

    def policies(self, zones: TimeZones = ZONES) -> Policies:
        """The policies of the pool."""
        return Policies(self.ledger, zones)

    async def add(
        self,
        day: float,
        *,
        app: str | None = None,
        state: SnapshotState = "ok",
        labels: Mapping[str, str] | None = None,
        dated: datetime | None = None,
    ) -> SnapshotKey:
        """A snapshot made on a day after the start; ``dated`` is what its maker's clock said."""
        record = pending(app or self.app, int(day * 24 * 60), labels=labels)
        if dated is not None:
            record = msgspec.structs.replace(record, created_at=dated.isoformat())
        held = await begin(self.ledger, record)
        if state != "pending":
            await self.ledger.update(held, lambda one: msgspec.structs.replace(one, state=state))
        return record.key

    async def add_days(self, count: int) -> list[SnapshotKey]:
        """A snapshot a day, from the first day on."""
        return [await self.add(day) for day in range(count)]

    async def delete(self, key: SnapshotKey) -> None:
        """As a caller deletes one."""
        held = await read(self.ledger, key)
        await self.ledger.remove(held, beside=[fence_against(key.app, next(self._ids))])

    async def hold(self, key: SnapshotKey, reason: str | None) -> None:
        """As a caller holds one."""
        held = await read(self.ledger, key)
        await self.ledger.amend(held, lambda one: msgspec.structs.replace(one, hold=reason))

    async def left(self, app: str | None = None) -> list[SnapshotKey]:
        """The snapshots, the newest first."""
        keys = await SnapshotListing(self.ledger).of_app(app or self.app)
        found, _ = await self.ledger.get_many(SNAPSHOT, [*map(snapshot_name, keys)])
        return [key for key in keys if snapshot_name(key) in found]
