"""Everything that is wrong with a deployment, gathered as findings.

The slow readings (users of missing blobs, a collection's dry run) are made once for all who ask
within a minute, in bounded memory. Damage is told from the laps of the scrub.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.domain import findings
from holdfast.domain.findings import Finding, StreamCount
from holdfast.errors import HoldfastError
from holdfast.repository.care.runs import LONGEST_SECONDS, Runs
from holdfast.repository.care.scrub_record import ONE_PLACE
from holdfast.repository.collector.collector import why_off
from holdfast.stores.deployment import read_deployment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from holdfast.domain.store_state import StoreState
    from holdfast.repository.care.inventory import Inventory, InventoryReport
    from holdfast.repository.care.scrub import Scrub
    from holdfast.repository.care.scrub_record import Lap, ScrubRecord
    from holdfast.repository.collector.collector import Collector
    from holdfast.repository.collector.report import CollectionReport, SpaceReport
    from holdfast.sources import Sources
    from holdfast.stores.record_ports import RecordStore

_error: Final = partial(Finding, severity="error")
_warning: Final = partial(Finding, severity="warning")
_note: Final = partial(Finding, severity="note")
_TOLD: Final = 10
"""Lost blobs that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Readings of the deployment beside its contents.

    ``clocks`` says of nodes how far their clocks are off, given how far this worker's is;
    ``troubles`` says of apps why their policies failed in this worker's last run.
    """

    store: Callable[[], Awaitable[StoreState]]
    counts: Callable[[], Awaitable[Sequence[StreamCount]]]
    clocks: Callable[[timedelta], Mapping[str, timedelta]]
    troubles: Callable[[], Mapping[str, str]]


class Doctor(Runs[None, list[Finding]]):
    """Looks at a deployment for one worker. Raises UnavailableError."""

    def __init__(
        self,
        inventory: Inventory,
        collector: Collector,
        records: RecordStore,
        scrub: Scrub,
        surroundings: Surroundings,
        *,
        sources: Sources,
    ) -> None:
        """``collector`` says what a run would meet; ``records`` have the deployment's.

        ``sources`` has this worker's clock.
        """
        super().__init__(self._findings, monotonic=sources.monotonic)
        self._inventory = inventory
        self._collector = collector
        self._records = records
        self._scrub = scrub
        self._around = surroundings
        self._clock = sources.clock

    async def _findings(self, _: None) -> list[Finding]:
        """The worst first."""
        state = await self._around.store()
        now = await self._collector.spaces[0].store.now()
        found = [
            *findings.of_store(state),
            *findings.of_replicas(await self._around.counts()),
            *findings.of_clocks(self._around.clocks(self._clock() - now)),
            *_of_policies(self._around.troubles()),
            *_of_scrub(await self._scrub.places(), state, now, self._scrub.every),
            *await self._of_collection(now),
            *await self._of_inventory(),
        ]
        return sorted(found, key=lambda one: ("error", "warning", "note").index(one.severity))

    async def _of_collection(self, now: datetime) -> list[Finding]:
        off = why_off(await read_deployment(self._records), now)
        if off is not None:
            return [
                _warning(
                    kind="collection_off",
                    text=f"nothing is collected: {off}",
                    advice="until then deleted space does not come back",
                )
            ]
        report = await self._collector.collect(dry_run=True, seconds=LONGEST_SECONDS)
        return list(_of_dry_run(report))

    async def _of_inventory(self) -> list[Finding]:
        try:
            report = await self._inventory.take(None)
        except (HoldfastError, OSError, sqlite3.Error) as error:
            return [
                _warning(
                    kind="unread",
                    text=f"the stored blobs could not be gone through: {error}",
                    advice="see whether the store can be reached, then ask again",
                )
            ]
        return list(_of_report(report))


def _of_policies(troubles: Mapping[str, str]) -> Iterator[Finding]:
    for app, why in sorted(troubles.items()):
        yield _warning(
            kind="policy",
            text=f"the policy of {app} was not carried out: {why}",
            advice=f"`holdfast snapshot prune {app} --dry-run` shows what it would do",
        )


def _of_dry_run(report: CollectionReport) -> Iterator[Finding]:
    for space in report.spaces:
        yield from _of_orphans(space)
        if space.failure is not None:
            is_loss = "records were lost" in space.failure
            yield _error(
                kind="records_lost" if is_loss else "collection",
                text=f"nothing is collected in {space.space}: {space.failure}",
                advice=(
                    "bring the records back from a copy of the server's files, or `holdfast admin"
                    " accept-loss`: blobs that only they needed go then"
                    if is_loss
                    else "anything unreadable has to be mended or deleted first"
                ),
            )


def _of_orphans(space: SpaceReport) -> Iterator[Finding]:
    if space.orphans.chunks:
        yield _note(
            kind="orphans",
            text=(
                f"{space.space} has {space.orphans.chunks} chunks that no record names, of"
                f" {space.orphans.bytes} bytes at the most"
            ),
            advice="writers left them that were killed; the next collection removes them",
        )


def _of_report(report: InventoryReport) -> Iterator[Finding]:
    for lost in report.lost[:_TOLD]:
        how = "lacks a part of what is needed" if lost.in_part else "is missing or damaged"
        yield _error(
            kind="lost_reference",
            text=f"{lost.user} needs {lost.digest} of {lost.space}, which {how}",
            advice="put the bytes again from a good copy, or delete what needs them",
        )
    if len(report.lost) > _TOLD:
        yield _error(
            kind="lost_reference",
            text=f"{len(report.lost)} blobs or more that are needed are missing or damaged",
            advice="the first few are told one by one",
        )
    for space in report.spaces:
        if space.tombstones is not None:
            yield from findings.of_tombstones(space.space, space.tombstones)
    for store in report.records:
        yield from findings.of_tombstones(store.store, store.tombstones)
        if store.unreadable is not None:
            yield _error(
                kind="unreadable_record",
                text=f"a record of {store.store} cannot be read: {store.unreadable}",
                advice="delete what it is of, by its name or key, and make it again",
            )
        if store.stale:
            yield _warning(
                kind="stale",
                text=f"{store.stale} of {store.store} are under way and should have been ended",
                advice="see whether workers run: each ends what nobody carries on",
            )


def _of_scrub(
    places: Sequence[ScrubRecord], state: StoreState, now: datetime, every: timedelta
) -> Iterator[Finding]:
    known = {place.place for place in places}
    peers = {peer.name for bucket in state.buckets for peer in bucket.peers}
    if len(peers) == 1 and peers.isdisjoint(known) and ONE_PLACE in known:
        peers = {ONE_PLACE}  # the only server has no name but one that it makes up at each start
    for missing in sorted(peers - known):
        yield _note(
            kind="scrub_behind",
            text=f"nothing was read back from {missing} yet",
            advice=(
                "a worker that is connected to it begins within a minute; connect one if none is:"
                " which copies are met depends on the server"
            ),
        )
    for place in places:
        if not peers or place.place in peers:
            yield from _of_place(place, now, every)


def _of_place(place: ScrubRecord, now: datetime, every: timedelta) -> Iterator[Finding]:
    began_at = place.last.began_at if place.last is not None else None
    if place.lap is not None:
        began_at = place.lap.began_at
    if began_at is not None and now - began_at > findings.LAPS_BEHIND * every:
        yield _warning(
            kind="scrub_behind",
            text=f"the last lap at {place.place} began at {began_at.isoformat()}",
            advice="see whether workers run there; raise scrub_bytes_per_second or scrub_days",
        )
    for lap in (place.lap, place.last):
        if lap is not None:
            yield from _of_lap(place.place, lap)
            return


def _of_lap(place: str, lap: Lap) -> Iterator[Finding]:
    if lap.damaged > lap.healed:
        yield _error(
            kind="damage",
            text=f"{lap.damaged - lap.healed} blobs cannot be read back from {place}",
            advice="`holdfast scrub` tells which: put them again from a good copy",
        )
    if lap.healed:
        yield _warning(
            kind="healed",
            text=f"{lap.healed} blobs read from {place} were damaged, and put anew",
            advice="one server has lost something: look at the disks, and for replicas that differ",
        )
    if lap.unreadable:
        yield _error(
            kind="unreadable_record",
            text=f"records read from {place} are unreadable or lost, {lap.unreadable} times",
            advice="`holdfast scrub` tells which",
        )
