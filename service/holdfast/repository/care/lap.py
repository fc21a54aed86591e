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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from holdfast.domain.collection import RootsNote, loss
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, HoldfastError, NotFoundError, UnavailableError
from holdfast.repository.care.pages import all_changes
from holdfast.repository.care.scrub_record import MAX_TOLD, Damage, Lap, ScrubRecord
from holdfast.repository.collector.spool import Spool
from holdfast.repository.ledger.lease import RENEWALS_PER_LEASE
from holdfast.repository.states.roots import StateRoots
from holdfast.stores.ports import BlobInfo, UnreadableObject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.repository.care.logs import StateLogsBack
    from holdfast.repository.collector.agreement import Agreement
    from holdfast.repository.collector.collector import Space
    from holdfast.repository.collector.pace import Pace
    from holdfast.repository.collector.roots import RootSource
    from holdfast.repository.ledger.lease import Carried
    from holdfast.stores.ports import BlobStore, ForeignObject

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


@dataclass(slots=True, kw_only=True)
class Findings:
    """Counts since the record was written last; or of a worker since it was started."""

    laps: int = 0
    checked: int = 0
    bytes: int = 0
    damaged: int = 0
    healed: int = 0
    unreadable: int = 0
    told: list[Damage] = field(default_factory=list)

    def blob(self, size: int) -> None:
        """A blob of ``size`` bytes was read."""
        self.checked += 1
        self.bytes += size

    def damage(self, damage: Damage) -> None:
        """A blob could not be read back."""
        self.damaged += 1
        self.healed += damage.healed
        self._tell(damage)

    def lose(self, damage: Damage) -> None:
        """A record cannot be read, or some are lost."""
        self.unreadable += 1
        self._tell(damage)

    def _tell(self, damage: Damage) -> None:
        log.warning("scrub_found_damage", **msgspec.structs.asdict(damage))
        if len(self.told) < MAX_TOLD:
            self.told.append(damage)

    def added_to(self, lap: Lap) -> Lap:
        """``lap`` with the findings since."""
        return msgspec.structs.replace(
            lap,
            checked=lap.checked + self.checked,
            bytes=lap.bytes + self.bytes,
            damaged=lap.damaged + self.damaged,
            healed=lap.healed + self.healed,
            unreadable=lap.unreadable + self.unreadable,
            told=(*lap.told, *self.told)[:MAX_TOLD],
        )

    def count(self, more: Findings) -> None:
        """All of ``more``, too, but the damages told one by one."""
        self.checked += more.checked
        self.bytes += more.bytes
        self.damaged += more.damaged
        self.healed += more.healed
        self.unreadable += more.unreadable


class LapRun:
    """One lap, from where it was left."""

    def __init__(
        self,
        carried: Carried[ScrubRecord],
        spaces: Sequence[Space],
        agreement: Agreement,
        pace: Pace,
        logs: StateLogsBack,
        *,
        totals: Findings,
        monotonic: Callable[[], float],
    ) -> None:
        """``agreement`` knows how many records there should be; ``totals`` are told of all."""
        self._carried = carried
        self._spaces = spaces
        self._roots = [source for space in spaces for source in space.roots]
        self._agreement = agreement
        self._pace = pace
        self._logs = logs
        self._totals = totals
        self._monotonic = monotonic
        self._found = Findings()
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
        found, self._found = self._found, Findings()
        lap = self._carried.record.lap
        noted = found.added_to(lap) if lap is not None else None
        await self._renew(stage=stage, cursor=cursor, until=until, lap=noted)
        self._spent = 0
        self._totals.count(found)

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
            await self._carried.renew(lambda record: msgspec.structs.replace(record, **changes))
        except CorruptError as error:
            msg = f"the record of the scrub: {error.detail}"
            raise UnavailableError(msg) from error
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
            self._found.lose(Damage(space=space.name, name="", detail=lost))
        else:
            await self._agreement.note(source, msgspec.structs.replace(found, keys=least))

    async def _noted(self, source: str) -> RootsNote | None:
        """How far it had come: to be asked first, for others note more meanwhile."""
        return (await self._agreement.terms()).noted.get(source)

    async def _look_at(self, space: Space, entry: BlobInfo | ForeignObject) -> None:
        if isinstance(entry, UnreadableObject):
            self._found.damage(Damage(space=space.name, name=entry.name, detail=entry.detail))
        if not isinstance(entry, BlobInfo):
            return
        detail = _MARKED if entry.damaged else None
        try:
            await space.store.read_back(entry, self._spend)
        except NotFoundError:
            return  # deleted meanwhile
        except CorruptError as error:
            detail = error.detail
        self._found.blob(entry.size)
        if detail is not None:
            healed = await _heal(space.store, entry)
            self._found.damage(
                Damage(space=space.name, name=entry.digest, detail=detail, healed=healed)
            )

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
                if changed.value is not None:
                    self._check(source, changed.key, changed.value)
            keys = [one.key for one in changes if one.key.startswith(lasting)]
            await asyncio.to_thread(spool.meet, keys, [])
            await self._spend(_RECORD_BYTES * len(changes))
        met = await asyncio.to_thread(spool.met)
        if met < counted:
            self._lose(source, f"{counted - met} records are counted and cannot be read")
            return
        note = RootsNote(created=extent.created, last=extent.last, keys=met)
        lost = _lost(noted, note)
        if lost is not None:
            self._lose(source, lost)

    def _check(self, source: RootSource, key: str, value: bytes) -> None:
        try:
            source.named(key, value)
        except CorruptError as error:
            self._lose(source, error.detail, key)

    def _lose(self, source: RootSource, detail: str, key: str = "") -> None:
        self._found.lose(Damage(space=source.name, name=key, detail=detail))

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
                self._found.lose(Damage(space=StateRoots.name, name=key, detail=error.detail))
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


async def _heal(store: BlobStore, info: BlobInfo) -> bool:
    """Whether the blob was put anew. If it could not be, the next lap meets it again."""
    try:
        return await store.report_damage(info)
    except HoldfastError as error:
        log.warning("damage_not_recorded", digest=info.digest, code=error.code)
        return False
