"""``blob.scrub``, ``.doctor``, ``.usage`` and ``.collect``: how what is stored is looked after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import msgspec

from holdfast.domain.collection import Reason
from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.protocol.blobs import (
    COLLECT_BLOBS,
    CollectBlobs,
    CollectedSpace,
    CollectionReply,
    SpaceName,
)
from holdfast.protocol.care import (
    DIAGNOSE,
    GET_USAGE,
    SCRUB_STATUS,
    DoctorFinding,
    DoctorReport,
    GetDoctor,
    GetScrub,
    GetUsage,
    ScrubDamage,
    ScrubLap,
    ScrubPlace,
    ScrubStatus,
    UsageReply,
    UsageRow,
    UsageSpace,
)
from holdfast.protocol.times import wire_time
from holdfast.repository.care.owners import Grouping
from holdfast.repository.collector.report import SpaceReport, Tally

if TYPE_CHECKING:
    from holdfast.repository.care.doctor import Doctor
    from holdfast.repository.care.scrub import Scrub
    from holdfast.repository.care.scrub_record import Lap, ScrubRecord
    from holdfast.repository.care.usage import Usage, UsageReport
    from holdfast.repository.collector.collector import Collector

_SHARE: Final = 0.8
"""Of the caller's time: then it is told how far that is, and to ask again."""


class CareHandlers:
    """Answers requests about how what is stored is looked after."""

    def __init__(self, scrub: Scrub, usage: Usage, doctor: Doctor, collector: Collector) -> None:
        """This worker's."""
        self._scrub = scrub
        self._usage = usage
        self._doctor = doctor
        self._collector = collector

    async def scrub(self, request: GetScrub, _call: Call) -> ScrubStatus:
        """``blob.scrub``."""
        if request.start:
            await self._scrub.begin()
        return ScrubStatus(
            here=self._scrub.here,
            every_seconds=self._scrub.every.total_seconds(),
            places=[scrub_place(record) for record in await self._scrub.places()],
        )

    async def doctor(self, _request: GetDoctor, call: Call) -> DoctorReport:
        """``blob.doctor``. The look goes on when the caller's time is over."""
        found = await self._doctor.get(None, call.seconds_left() * _SHARE)
        if found is None:
            return DoctorReport(done=False)
        findings = msgspec.convert(found, list[DoctorFinding], from_attributes=True)
        return DoctorReport(done=True, findings=findings)

    async def usage(self, request: GetUsage, call: Call) -> UsageReply:
        """``blob.usage``. The count goes on when the caller's time is over."""
        grouping = Grouping(
            by=request.by,
            prefix=request.prefix,
            delimiter=request.delimiter,
            depth=request.depth,
        )
        report = await self._usage.get(grouping, call.seconds_left() * _SHARE)
        return UsageReply(done=False) if report is None else usage_reply(report, request.limit)

    async def collect(self, request: CollectBlobs, call: Call) -> CollectionReply:
        """``blob.collect``. A run goes on when the caller's time is over."""
        report = await self._collector.collect(
            dry_run=request.dry_run, seconds=call.seconds_left() * _SHARE
        )
        return CollectionReply(
            dry_run=report.dry_run,
            done=report.is_done,
            off=report.off,
            spaces=[] if report.off is not None else [_space(one) for one in report.spaces],
        )

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(SCRUB_STATUS, self.scrub),
            Endpoint(DIAGNOSE, self.doctor),
            Endpoint(GET_USAGE, self.usage),
            Endpoint(COLLECT_BLOBS, self.collect),
        )


def scrub_place(record: ScrubRecord) -> ScrubPlace:
    """The record as the wire has it."""
    return ScrubPlace(
        place=record.place,
        worker=record.lease.owner if record.lap is not None else "",
        wanted=record.wanted,
        lap=_lap(record.lap),
        last=_lap(record.last),
    )


def usage_reply(report: UsageReport, limit: int) -> UsageReply:
    """The report as the wire has it, with ``limit`` of its rows."""
    inventory, collection = report.inventory, report.collection
    is_told = collection.off is None and collection.is_done
    reclaimable = {one.space: _reclaimable(one) for one in collection.spaces if is_told}
    return UsageReply(
        done=True,
        measured_at=wire_time(inventory.at),
        spaces=[
            UsageSpace(
                space=cast("SpaceName", one.space),
                blobs=one.blobs,
                stored=one.bytes,
                reclaimable=reclaimable.get(one.space),
            )
            for one in inventory.spaces
        ],
        groups=inventory.groups,
        rows=msgspec.convert(inventory.rows[:limit], list[UsageRow], from_attributes=True),
    )


def _reclaimable(found: SpaceReport) -> int | None:
    """Bytes that a collection would remove; None where it would end with a failure."""
    return None if found.failure is not None else found.removed.bytes + found.orphans.bytes


def _lap(lap: Lap | None) -> ScrubLap | None:
    if lap is None:
        return None
    return ScrubLap(
        began_at=wire_time(lap.began_at),
        ended_at=wire_time(lap.ended_at) if lap.ended_at is not None else None,
        checked=lap.checked,
        bytes=lap.bytes,
        damaged=lap.damaged,
        healed=lap.healed,
        unreadable=lap.unreadable,
        found=msgspec.convert(lap.told, list[ScrubDamage], from_attributes=True),
    )


def _space(found: SpaceReport) -> CollectedSpace:
    needed, young, pinned, damaged = (
        found.kept.get(reason, Tally())
        for reason in (Reason.NEEDED, Reason.YOUNG, Reason.PINNED, Reason.DAMAGED)
    )
    return CollectedSpace(
        space=cast("SpaceName", found.space),
        removed=found.removed.blobs,
        removed_bytes=found.removed.bytes,
        repacked=found.repacked.blobs,
        repacked_bytes=found.repacked.bytes,
        needed=needed.blobs,
        needed_bytes=needed.bytes,
        young=young.blobs,
        young_bytes=young.bytes,
        pinned=pinned.blobs,
        pinned_bytes=pinned.bytes,
        damaged=damaged.blobs,
        damaged_bytes=damaged.bytes,
        refused=found.refused,
        others=found.others,
        more=found.is_cut,
        failure=found.failure,
        orphans=found.orphans.copies,
        orphan_chunks=found.orphans.chunks,
        orphan_bytes=found.orphans.bytes,
    )
