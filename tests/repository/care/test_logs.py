"""A scrub reads the logs of states back, whatever happens to them meanwhile."""

from __future__ import annotations

from contextlib import aclosing
from itertools import count
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from tests.contracts.blob_store import some_bytes
from tests.contracts.states import worker_on
from tests.repository.care.scrubs import lap_of, scrub_of
from tests.repository.collector.test_collector import put

from holdfast.errors import UnavailableError
from holdfast.repository.care import lap as lap_module
from holdfast.repository.care import pages as pages_module
from holdfast.repository.care.logs import StateLogsBack
from holdfast.repository.care.scrub import LEASE_SECONDS
from holdfast.repository.care.scrub_record import SCRUB
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.states.replays import ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.repository.collector.conftest import Deployed
    from tests.repository.states.pool import StatesWorker

SIZE: Final = 100_000
"""Bytes of a command, of which one fits a page."""


def logs_of(deployed: Deployed) -> StateLogsBack:
    """As a worker reads them that was just started."""
    return StateLogsBack(deployed.stores.snapshots, worker_on(deployed.stores).replays)


async def with_log(deployed: Deployed, commands: int) -> StatesWorker:
    """A worker that has appended so many commands to the state ``s``."""
    worker = worker_on(deployed.stores)
    for number in range(commands):
        await worker.append("s", some_bytes(SIZE, number))
    return worker


async def read_back(
    deployed: Deployed, beside: Callable[[], Awaitable[object]] | None = None
) -> list[int]:
    """How many commands each page had that was read of ``s``, with ``beside`` after each."""
    found = []
    logs = logs_of(deployed)
    [key] = await logs.keys()
    async with aclosing(logs.pages(key)) as pages:
        async for size, _ in pages:
            found.append(size // SIZE)
            if beside is not None:
                await beside()
    return found


async def test_of_a_trimmed_log_what_is_left_is_read(deployed: Deployed) -> None:
    worker = await with_log(deployed, 6)
    for index in (3, 4):
        await worker.save("s", b"%d" % index, index)
    assert sum(await read_back(deployed)) == 6

    await worker.upkeep.trim("s", 3)

    assert sum(await read_back(deployed)) == 3


async def test_of_a_log_that_is_trimmed_while_it_is_read_the_rest_is_read(
    deployed: Deployed,
) -> None:
    worker = await with_log(deployed, 8)
    for index in (6, 7):
        await worker.save("s", b"%d" % index, index)

    pages = await read_back(deployed, beside=lambda: worker.upkeep.trim("s", 6))

    assert pages == [1, 1, 1]


async def test_a_log_is_read_to_where_it_ended_though_it_grows_as_fast(deployed: Deployed) -> None:
    worker = await with_log(deployed, 3)

    pages = await read_back(deployed, beside=lambda: worker.append("s", some_bytes(SIZE, 9)))

    assert pages == [1, 1, 1]


async def test_small_commands_count_for_more_than_their_bytes(deployed: Deployed) -> None:
    """They cost as much: a lap is not to read them without a pause."""
    worker = worker_on(deployed.stores)
    await worker.append("s", *[1] * 1000)

    assert await read_back(deployed) == [1000 * (1 + ENTRY_BYTES) // SIZE]


class Watched(StateLogsBack):
    """Awaits ``beside`` after each page; ``met`` has the state of each and its last command."""

    def __init__(self, deployed: Deployed, beside: Callable[[int], Awaitable[object]]) -> None:
        super().__init__(deployed.stores.snapshots, worker_on(deployed.stores).replays)
        self.beside = beside
        self.met: list[tuple[str, int]] = []

    async def pages(self, key: str, index: int = 0) -> AsyncGenerator[tuple[int, int]]:
        """See `StateLogsBack.pages`."""
        async with aclosing(super().pages(key, index)) as pages:
            async for size, next_index in pages:
                self.met.append((key, next_index - 1))
                await self.beside(len(self.met))
                yield size, next_index


async def test_logs_come_behind_the_blobs_and_who_takes_over_goes_on_in_their_midst(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lap_module, "_NOTED_BYTES", 1)
    await put(deployed.stores.blobs, b"x", pinned=True)
    worker = await with_log(deployed, 4)
    for name in ("r", "t"):
        await worker.append(name, 1)

    async def halt(pages: int) -> None:
        if pages == 3:
            raise UnavailableError

    read = []
    for _ in range(2):
        logs = Watched(deployed, halt)
        scrub = scrub_of(deployed, logs=logs)
        with pytest.raises(UnavailableError):
            await scrub.run()
        read += logs.met[:-1]  # the last was met and not noted
        [record] = await scrub.places()
        assert record.lap is not None
        assert record.lap.checked == 1
    logs = Watched(deployed, halt)
    await lap_of(scrub_of(deployed, logs=logs))

    assert [*read, *logs.met] == [
        ("st.r", 1),
        *[("st.s", index) for index in range(1, 5)],
        ("st.t", 1),
    ]


async def test_each_log_is_read_once_though_more_is_saved_meanwhile_than_a_page_holds(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "MAX_CHANGES", 2)
    worker = worker_on(deployed.stores)
    names = [f"s{number}" for number in range(5)]
    for name in names:
        await worker.append(name, 1)

    async def save(pages: int) -> None:
        for name in names:
            await worker.save(name, b"%d" % pages, 1)

    logs = Watched(deployed, save)
    lap = await lap_of(scrub_of(deployed, logs=logs))

    assert logs.met == [(f"st.{name}", 1) for name in names]
    assert lap.told == ()


async def test_who_has_lost_the_lap_stops_in_the_midst_of_a_log(deployed: Deployed) -> None:
    await with_log(deployed, 4)
    time = count(step=LEASE_SECONDS)  # so that the lease is renewed with each page
    records = deployed.stores.records

    async def take_over(pages: int) -> None:
        if pages == 2:
            held = await Ledger(records).get(SCRUB, "here")
            lease = Lease(owner="other", seconds=LEASE_SECONDS)
            await Ledger(records).update(
                held, lambda record: msgspec.structs.replace(record, lease=lease)
            )

    logs = Watched(deployed, take_over)
    scrub = scrub_of(deployed, logs=logs, monotonic=lambda: next(time))
    await scrub.run()

    assert logs.met == [("st.s", 1), ("st.s", 2)]
    [record] = await scrub.places()
    assert record.lease.owner == "other"
    assert record.last is None
