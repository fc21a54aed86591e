"""Scrubs of the workers of a deployment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.contracts.states import worker_on

from holdfast.bootstrap.sources import SOURCES
from holdfast.repository.care.logs import StateLogsBack
from holdfast.repository.care.scrub import Scrub
from holdfast.repository.collector.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.repository.collector.conftest import Deployed

    from holdfast.repository.care.scrub_record import Lap
    from holdfast.repository.collector.collector import Space


def scrub_of(
    deployed: Deployed,
    worker: str = "w",
    *,
    place: str = "here",
    every: timedelta = timedelta(0),
    monotonic: Callable[[], float] = SOURCES.monotonic,
    spaces: Sequence[Space] | None = None,
    logs: StateLogsBack | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Scrub:
    """That of one worker, which hurries; it awaits ``sleep`` after each page and piece."""
    records = deployed.stores.records
    return Scrub(
        spaces or deployed.collector().spaces,
        records,
        Pace(1e12, monotonic=monotonic, sleep=sleep),
        logs or StateLogsBack(deployed.stores.snapshots, worker_on(deployed.stores).replays),
        place=lambda: place,
        worker=worker,
        every=every,
        sources=replace(SOURCES, monotonic=monotonic),
    )


async def lap_of(scrub: Scrub) -> Lap:
    """Take a whole lap; its findings."""
    await scrub.run()
    [record] = [one for one in await scrub.places() if one.place == scrub.here]
    assert record.last is not None
    return record.last
