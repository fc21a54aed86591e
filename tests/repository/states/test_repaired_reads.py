"""A log with a repair in it is read while groups of it are gone: whoever reads it is answered."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.repository.names.gated import Gate
from tests.repository.states.pool import MAX_BYTES, StatesPool, code_of, let_through

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.states.pool import StatesWorker

LAST: Final = 4
SECONDS: Final = 60.0
MOST_CALLS: Final = 200
"""More calls to stores than anything here needs."""


async def follow(worker: StatesWorker) -> None:
    async with worker.replays.follow("s", 1) as following:
        while following.next_index <= LAST:
            await following.next(SECONDS, MAX_BYTES)


READS: Final[dict[str, Callable[[StatesWorker], Awaitable[Any]]]] = {
    "append": lambda worker: worker.append("s", "x"),
    "replay": lambda worker: worker.replay("s"),
    "repair": lambda worker: worker.upkeep.repair("s", 2),
    "follow": follow,
}


async def repaired() -> StatesPool:
    """The log ``s``: three commands, a repair in place of the fourth, and a command behind it."""
    pool = StatesPool()
    worker = pool.worker()
    for number in range(1, LAST + 1):
        await worker.append("s", number)
    await worker.upkeep.repair("s", LAST)
    await worker.append("s", "behind")
    return pool


@pytest.mark.parametrize("read", READS)
async def test_who_reads_a_log_that_is_removed_at_any_moment_is_answered(read: str) -> None:
    for step in count():
        pool, gate = await repaired(), Gate()
        reading = asyncio.create_task(code_of(READS[read](pool.gated(gate))))
        calls = await let_through(gate, reading, step)

        await pool.worker().upkeep.remove("s")
        await let_through(gate, reading, MOST_CALLS)

        assert reading.done(), f"after {step} calls"
        assert reading.result() in ("ok", "not_found", "invalid")  # there is no such place
        if calls < step:
            break


@pytest.mark.parametrize("read", ["append", "replay", "follow"])
async def test_who_reads_a_log_that_lacks_the_group_before_a_repair_is_told_so(read: str) -> None:
    pool, gate = await repaired(), Gate()
    del pool.journal._logs["s"][2]

    reading = asyncio.create_task(code_of(READS[read](pool.gated(gate))))
    await let_through(gate, reading, MOST_CALLS)

    assert reading.done()
    assert reading.result() == "corrupt"
