"""A scrub reads the logs of states back, whatever happens to them meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.contracts.states import worker_on
from tests.repository.care.scrubs import lap_of, scrub_of
from tests.repository.collector.test_collector import put

from holdfast.errors import ConflictError, UnavailableError
from holdfast.repository.care import lap as lap_module
from holdfast.repository.care import pages as pages_module
from holdfast.repository.care.logs import StateLogsBack
from holdfast.repository.states.replays import ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.collector.conftest import Deployed
    from tests.repository.states.pool import StatesWorker

    from holdfast.stores.ports import Spending

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
    pages = []

    async def spend(size: int) -> None:
        pages.append(size // SIZE)
        if beside is not None:
            await beside()

    [key] = await logs_of(deployed).keys()
    await logs_of(deployed).read_back(key, spend)
    return pages


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


async def test_who_has_lost_the_lap_stops_in_the_midst_of_a_log(deployed: Deployed) -> None:
    async def taken_over() -> None:
        raise ConflictError

    await with_log(deployed, 2)

    with pytest.raises(ConflictError):
        await read_back(deployed, beside=taken_over)


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
    """Awaits ``before`` when a log is to be read, of which it is told; ``met`` were read."""

    def __init__(self, deployed: Deployed, before: Callable[[int], Awaitable[None]]) -> None:
        super().__init__(deployed.stores.snapshots, worker_on(deployed.stores).replays)
        self.before = before
        self.met: list[str] = []

    async def read_back(self, key: str, spend: Spending) -> None:
        """See `StateLogsBack.read_back`."""
        await self.before(len(self.met))
        await super().read_back(key, spend)
        self.met.append(key)


async def test_logs_come_behind_the_blobs_and_each_is_read_once_though_workers_are_restarted(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lap_module, "_NOTED_BYTES", 1)
    await put(deployed.stores.blobs, b"x", pinned=True)
    worker = worker_on(deployed.stores)
    for number in range(5):
        await worker.append(f"s{number}", number)

    async def halt(met: int) -> None:
        if met == 2:
            raise UnavailableError

    read: list[str] = []
    for _ in range(2):
        logs = Watched(deployed, halt)
        scrub = scrub_of(deployed, logs=logs)
        with pytest.raises(UnavailableError):
            await scrub.run()
        read += logs.met
        [record] = await scrub.places()
        assert record.lap is not None
        assert record.lap.checked == 1
    logs = Watched(deployed, halt)
    await lap_of(scrub_of(deployed, logs=logs))

    assert [*read, *logs.met] == [f"st.s{number}" for number in range(5)]


async def test_each_log_is_read_once_though_more_is_saved_meanwhile_than_a_page_holds(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_module, "MAX_CHANGES", 2)
    worker = worker_on(deployed.stores)
    names = [f"s{number}" for number in range(5)]
    for name in names:
        await worker.append(name, 1)

    async def save(met: int) -> None:
        for name in names:
            await worker.save(name, b"%d" % met, 1)

    logs = Watched(deployed, save)
    lap = await lap_of(scrub_of(deployed, logs=logs))

    assert logs.met == [f"st.{name}" for name in names]
    assert lap.told == ()
