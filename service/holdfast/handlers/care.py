"""``blob.scrub``: this worker's scrub, as a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.protocol.care import (
    SCRUB_BLOBS,
    GetScrub,
    ScrubDamage,
    ScrubLap,
    ScrubPlace,
    ScrubStatus,
)
from holdfast.protocol.times import wire_time

if TYPE_CHECKING:
    from holdfast.repository.care.scrub import Scrub
    from holdfast.repository.care.scrub_record import Lap, ScrubRecord


class CareHandlers:
    """Answers requests about how what is stored is looked after."""

    def __init__(self, scrub: Scrub) -> None:
        """``scrub`` is this worker's."""
        self._scrub = scrub

    async def scrub(self, request: GetScrub, _call: Call) -> ScrubStatus:
        """``blob.scrub``."""
        if request.start:
            await self._scrub.begin()
        return ScrubStatus(
            here=self._scrub.here,
            every_seconds=self._scrub.every.total_seconds(),
            places=[scrub_place(record) for record in await self._scrub.places()],
        )

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """Which method answers which operation."""
        return (Endpoint(SCRUB_BLOBS, self.scrub),)


def scrub_place(record: ScrubRecord) -> ScrubPlace:
    """The record as the wire has it."""
    return ScrubPlace(
        place=record.place,
        worker=record.lease.owner if record.lap is not None else "",
        wanted=record.wanted,
        lap=_lap(record.lap),
        last=_lap(record.last),
    )


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
        found=[
            ScrubDamage(space=one.space, name=one.name, detail=one.detail, healed=one.healed)
            for one in lap.told
        ],
    )
