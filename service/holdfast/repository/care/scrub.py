"""Everything is read back, in the background, at a set rate; damage is mended or marked.

Any worker carries a lap on where another left it: the record of the place says how far it has come,
and a lease says that somebody is at work. Two at once are only wasteful. The workers that are
connected to a nats-server make laps of their own: which copies they meet depends on it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.deadline import shared_task
from holdfast.domain.names import token
from holdfast.errors import ConflictError
from holdfast.repository.care.lap import LapRun, ScrubTotals
from holdfast.repository.care.scrub_record import SCRUB, Lap, ScrubRecord, ended, is_due, taken
from holdfast.repository.ledger.lease import Carried, Lease
from holdfast.repository.ledger.ledger import Held, Ledger
from holdfast.repository.ledger.observations import Observations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime, timedelta

    from holdfast.repository.care.logs import StateLogsBack
    from holdfast.repository.collector.collector import Space
    from holdfast.repository.collector.pace import Pace
    from holdfast.sources import Sources
    from holdfast.stores.record_ports import RecordStore

LOOK_SECONDS: Final = 30.0
"""Seconds between a worker's looks for a lap to begin, or to carry on."""

LEASE_SECONDS: Final = 120.0
_LOOKS_THAT_COUNT: Final = 2

log = structlog.get_logger(__name__)


class Scrub:
    """The scrub of one worker."""

    def __init__(
        self,
        spaces: Sequence[Space],
        records: RecordStore,
        pace: Pace,
        logs: StateLogsBack,
        *,
        place: Callable[[], str],
        worker: str,
        every: timedelta,
        sources: Sources,
    ) -> None:
        """``place`` is where this worker reads at the moment; a lap begins ``every`` so often.

        ``records`` have how far the scrub has come, and the deployment's.
        """
        self.totals = ScrubTotals()
        self.every = every
        self._spaces = spaces
        self._records = records
        self._ledger = Ledger(records)
        self._pace = pace
        self._logs = logs
        self._place = place
        self._worker = worker
        self._sources = sources
        self._observed = Observations(
            sources.monotonic, max_gap_seconds=_LOOKS_THAT_COUNT * LOOK_SECONDS
        )
        self._turn = asyncio.Lock()
        self._asked: asyncio.Task[None] | None = None

    @property
    def here(self) -> str:
        """The place this worker reads now."""
        return self._place()

    async def run(self) -> None:
        """Carry on the lap that is due here, to its end, unless another worker does.

        To be called every ``LOOK_SECONDS``.
        """
        if self._turn.locked():
            return
        async with self._turn:
            held = await self._take()
            if held is None or held.record.lap is None:
                return
            carried = Carried(self._ledger, held, self._check_ours, is_patient=True)
            try:
                await self._carry(carried, held.record.lap)
            except ConflictError:
                log.info("scrub_taken_over", place=held.record.place)

    async def begin(self) -> None:
        """Have another lap begin at each place: here at once, elsewhere when a worker looks."""
        await self._here()
        for held in await self._all():
            await self._ledger.update(
                held, lambda record: msgspec.structs.replace(record, wanted=True)
            )
        if self._asked is None or self._asked.done():
            self._asked = shared_task(self.run())

    async def places(self) -> list[ScrubRecord]:
        """The scrub's record of each place."""
        return [held.record for held in await self._all()]

    async def aclose(self) -> None:
        """Stop what was asked for."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)

    async def _carry(self, carried: Carried[ScrubRecord], lap: Lap) -> None:
        run = LapRun(
            carried,
            lap,
            self._spaces,
            self._records,
            self._pace,
            self._logs,
            totals=self.totals,
            monotonic=self._sources.monotonic,
        )
        await run.run()
        ended_at = await self._now()
        await carried.renew(lambda record: ended(record, ended_at))
        self.totals.laps += 1
        log.info("scrubbed", place=carried.record.place)

    async def _take(self) -> Held[ScrubRecord] | None:
        """The lap that is due, as ours; None where there is none, or another is at work."""
        held = await self._here()
        now = await self._now()
        if not is_due(held.record, now, self.every):
            return None
        unchanged = self._observed.unchanged_seconds(held.key, held.revision)
        is_ours = held.record.lease.owner == self._worker
        if held.record.lap is not None and not is_ours and unchanged < held.record.lease.seconds:
            return None
        try:
            return await self._ledger.take(held, lambda record: taken(record, self._lease(), now))
        except ConflictError:
            return None

    async def _here(self) -> Held[ScrubRecord]:
        """The record of this place."""
        place = self._place()
        held = await self._ledger.find(SCRUB, token(place))
        if held is not None:
            return held
        record = ScrubRecord(place=place, lease=self._lease())
        return await self._ledger.make(SCRUB, token(place), lambda found: found or record)

    async def _all(self) -> list[Held[ScrubRecord]]:
        """As they are now: one that was read from a replica might be of before a lap was begun."""
        names = sorted(await self._ledger.tails(SCRUB.prefix))
        found = [await self._ledger.find(SCRUB, name) for [name] in names]
        return [held for held in found if held is not None]

    async def _now(self) -> datetime:
        return await self._spaces[0].store.now()

    def _lease(self) -> Lease:
        return Lease(owner=self._worker, seconds=LEASE_SECONDS)

    def _check_ours(self, record: ScrubRecord) -> None:
        if record.lap is None or record.lease.owner != self._worker:
            raise ConflictError("another worker carries the scrub on")
