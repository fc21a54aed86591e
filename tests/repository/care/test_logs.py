"""A scrub reads the logs of states back, whatever happens to them meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.contracts.states import worker_on

from holdfast.errors import ConflictError
from holdfast.repository.care.logs import StateLogsBack
from holdfast.repository.states.record import STATE
from holdfast.repository.states.replays import ENTRY_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.collector.conftest import Deployed
    from tests.repository.states.pool import StatesWorker

SIZE: Final = 100_000
"""Bytes of a command, of which one fits a page."""


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

    record = await deployed.stores.snapshots.get(STATE.key("s"))
    await StateLogsBack(worker_on(deployed.stores).replays).read_back(
        record.key, record.value, spend
    )
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
