"""One lap of a scrub: everything is read from a place, a page at a time.

Records come first: all are read, from the start to the end, and counted against how many there
should be. Then come the blobs, and last the logs of states. The findings are written down with the
place that was reached.

Where blobs are listed in the order of writing, a blob put or touched moves to the end, perhaps as
fast as it is read. So they are read as far as the store had come, and then once more from there,
as far as it has come by then: for what was touched before it was reached. So a lap has an end. A
blob touched so often that it is met in neither pass, and one put late, are for the next lap.

Why: docs/decisions.md, "A lap reads until each copy has answered".
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from holdfast.domain.collection import RootsNote, loss
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, NotFoundError, UnavailableError
from holdfast.repository.blobs import report_damage
from holdfast.repository.care.pages import all_changes
from holdfast.repository.care.scrub_record import MAX_TOLD, Damage, Lap, ScrubRecord
from holdfast.repository.collector.spool import Spool
from holdfast.repository.ledger.lease import RENEWALS_PER_LEASE, Carried
from holdfast.repository.states.keeping import StateRoots
from holdfast.stores.deployment import note_roots, read_deployment
from holdfast.stores.ports import BlobInfo, ForeignObject, UnreadableObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.repository.care.logs import StateLogsBack
    from holdfast.repository.collector.collector import Space
    from holdfast.repository.collector.pace import Pace
    from holdfast.repository.collector.roots import RootSource
    from holdfast.stores.record_ports import Changed, RecordStore

_PAGE: Final = 256
_RECORD_BYTES: Final = 1024
"""The cost of a blob or record, beside its bytes, when a lap is slowed down."""

_PASSES: Final = 2
"""Over the blobs of a space, the later ones over what was written since the one before began."""

_NOTED_BYTES: Final = 8 * MIB
"""How much is read of logs before it is noted how far that has come."""

_COUNTED: Final = "records of {}"
"""The name of the note of how many blobs of a space have a record."""

_MARKED: Final = "it was found damaged before"
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ScrubTotals:
    """Totals of the scrub of one worker since it was started, as of `Lap`."""

    laps: int = 0
    checked: int = 0
    bytes: int = 0
    damaged: int = 0
    healed: int = 0
    unreadable: int = 0


class LapRun:
    """One lap, from where it was left."""

    def __init__(
        self,
        carried: Carried[ScrubRecord],
        lap: Lap,
        spaces: Sequence[Space],
        records: RecordStore,
        pace: Pace,
        logs: StateLogsBack,
        *,
        totals: ScrubTotals,
        monotonic: Callable[[], float],
    ) -> None:
        """``lap`` as it was noted last; ``records`` have how many there should be of each store."""
        self._carried = carried
        self._spaces = spaces
        self._roots = [source for space in spaces for source in space.roots]
        self._lap = lap
        self._deployment = records
        self._pace = pace
        self._logs = logs
        self._totals = totals
        self._monotonic = monotonic
        self._spent = 0
        self._renewed_at = monotonic()

    async def run(self) -> None:
        """To the end. Raises ConflictError when another has taken it, UnavailableError.

        The stages are the stores of records, then the passes over each space, then all logs.
        """
        passes = [space for space in self._spaces for _ in range(_PASSES)]
        last = len(self._roots) + len(passes)
        while (stage := self._carried.record.stage) <= last:
            if stage < len(self._roots):
                await self._records(self._roots[stage])
                await self._note(stage + 1, None, 0)
            elif stage < last:
                await self._pass(stage, passes[stage - len(self._roots)])
            else:
                await self._read_logs(stage)

    async def _note(self, stage: int, cursor: str | None, until: int) -> None:
        """Write down the place reached, and the findings."""
        await self._renew(stage=stage, cursor=cursor, until=until, lap=self._lap)
        self._spent = 0

    def _checked(self, size: int) -> None:
        self._lap = replace(self._lap, checked=self._lap.checked + 1, bytes=self._lap.bytes + size)
        self._totals.checked += 1
        self._totals.bytes += size

    def _damage(self, damage: Damage) -> None:
        """A blob could not be read back."""
        self._totals.damaged += 1
        self._totals.healed += damage.healed
        self._tell(damage, damaged=self._lap.damaged + 1, healed=self._lap.healed + damage.healed)

    def _lose(self, space: str, detail: str, key: str = "") -> None:
        """A record cannot be read, or some are lost."""
        self._totals.unreadable += 1
        damage = Damage(space=space, name=key, detail=detail)
        self._tell(damage, unreadable=self._lap.unreadable + 1)

    def _tell(self, damage: Damage, **counts: int) -> None:
        log.warning("scrub_found_damage", **msgspec.structs.asdict(damage))
        self._lap = replace(self._lap, told=(*self._lap.told, damage)[:MAX_TOLD], **counts)

    async def _spend(self, size: int) -> None:
        """Go on no faster than is allowed, and keep the lease over what takes long."""
        await self._pace.spend(size)
        self._spent += size
        lease = self._carried.record.lease
        if self._monotonic() - self._renewed_at > lease.seconds / RENEWALS_PER_LEASE:
            await self._renew()

    async def _renew(self, **changes: Any) -> None:
        """Begin the lease anew, with ``changes`` to the record.

        Raises ConflictError when another has taken it, UnavailableError, also where the record is
        damaged: what is read meanwhile is not.
        """
        try:
            await self._carried.renew(lambda record: replace(record, **changes))
        except CorruptError as error:
            raise UnavailableError(f"the record of the scrub: {error.detail}") from error
        self._renewed_at = self._monotonic()

    # --- blobs ---

    async def _pass(self, stage: int, space: Space) -> None:
        """Read some blobs, and note where to go on: behind all, with those of the next space."""
        cursor, until = self._carried.record.cursor, self._carried.record.until
        if cursor is None:
            await self._count(space)
        if not until:
            until = (await space.store.extent()).last
        listing = await space.store.list_blobs(prefix="", cursor=cursor, limit=_PAGE)
        for entry in listing.entries:
            await self._spend(_RECORD_BYTES)
            await self._look_at(space, entry)
        number = (stage - len(self._roots)) % _PASSES
        if listing.cursor is None:
            await self._note(stage + _PASSES - number, None, 0)
        elif listing.reached is None or listing.reached < until:
            await self._note(stage, listing.cursor, until)
        else:
            is_last = number == _PASSES - 1
            await self._note(stage + 1, None if is_last else listing.cursor, 0)

    async def _count(self, space: Space) -> None:
        """Whether there are no fewer records of blobs than there were."""
        source = _COUNTED.format(space.name)
        noted = await self._noted(source)
        extent, count = await space.store.extent(), await space.store.count()
        if count is None:
            return
        least, most = count
        found = RootsNote(created=extent.created, last=extent.last, keys=most)
        lost = _lost(noted, found)
        if lost is not None:
            self._lose(space.name, lost)
        else:
            await note_roots(self._deployment, source, replace(found, keys=least))

    async def _noted(self, source: str) -> RootsNote | None:
        """How far it had come: to be asked first, for others note more meanwhile."""
        return (await read_deployment(self._deployment)).roots.get(source)

    async def _look_at(self, space: Space, entry: BlobInfo | ForeignObject) -> None:
        if isinstance(entry, UnreadableObject):
            self._damage(Damage(space=space.name, name=entry.name, detail=entry.detail))
        if not isinstance(entry, BlobInfo):
            return
        detail = _MARKED if entry.damaged else None
        try:
            await space.store.read_back(entry, self._spend)
        except NotFoundError:
            return  # deleted meanwhile
        except CorruptError as error:
            detail = error.detail
        self._checked(entry.size)
        if detail is not None:
            healed = await report_damage(space.store, entry)
            self._damage(Damage(space=space.name, name=entry.digest, detail=detail, healed=healed))

    # --- records ---

    async def _records(self, source: RootSource) -> None:
        """Read all records of a store, at once: only the end tells how many are lost."""
        spool = await asyncio.to_thread(Spool)
        try:
            await self._read(source, spool)
        finally:
            await asyncio.to_thread(spool.close)

    async def _read(self, source: RootSource, spool: Spool) -> None:
        noted = await self._noted(source.name)
        extent = await source.records.extent()
        counted = await source.records.count(source.lasting)
        lasting = f"{source.lasting}."
        async for changes in all_changes(source.records):
            for changed in changes:
                self._check(source, changed)
            keys = [one.key for one in changes if one.key.startswith(lasting)]
            await asyncio.to_thread(spool.meet, keys, [])
            await self._spend(_RECORD_BYTES * len(changes))
        met = await asyncio.to_thread(spool.met)
        if met < counted:
            self._lose(source.name, f"{counted - met} records are counted and cannot be read")
            return
        note = RootsNote(created=extent.created, last=extent.last, keys=met)
        lost = _lost(noted, note)
        if lost is not None:
            self._lose(source.name, lost)

    def _check(self, source: RootSource, changed: Changed) -> None:
        try:
            source.named(changed)
        except CorruptError as error:
            self._lose(source.name, error.detail, changed.key)

    # --- logs ---

    async def _read_logs(self, stage: int) -> None:
        """Read the logs of states, in the order of their keys, from where that was left."""
        begun, _, place = (self._carried.record.cursor or "").partition(" ")
        for key in await self._logs.keys():
            if key < begun:
                continue
            await self._spend(_RECORD_BYTES)
            try:
                await self._read_log(stage, key, int(place) if key == begun else 0)
            except CorruptError as error:
                self._lose(StateRoots.name, error.detail, key)
        await self._note(stage + 1, None, 0)

    async def _read_log(self, stage: int, key: str, index: int) -> None:
        async with aclosing(self._logs.pages(key, index)) as pages:
            async for size, next_index in pages:
                await self._spend(size)
                if self._spent >= _NOTED_BYTES:
                    await self._note(stage, f"{key} {next_index}", 0)


def _lost(noted: RootsNote | None, found: RootsNote) -> str | None:
    lost = loss(noted, found)
    return None if lost is None else f"records were lost: {lost}"
