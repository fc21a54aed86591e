"""Young groups leave the journal where there is little room, and the record tells of their Op-Ids.

That is so for whoever comes between the record and the journal, for as long as they are young, and
for as long as the log has what they have appended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.names.gated import Gate
from tests.repository.states.pool import FullJournal, StatesPool, code_of, let_through

from holdfast.repository.states.op_ids import REMEMBERED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.states.pool import StatesWorker

    from holdfast.repository.states.op_ids import AppendedRun

LAST: Final = 5
TRIMMED: Final = 4
MOST_CALLS: Final = 100
"""More calls to stores than anything here needs."""


async def filled() -> tuple[StatesPool, list[AppendedRun]]:
    """A log of five young commands, of which four may go; there is little room."""
    pool = StatesPool()
    pool.journal = FullJournal(pool.time.clock)
    worker = pool.worker()
    runs = [await worker.append("s", n, op_id=f"{n} x") for n in range(1, LAST + 1)]
    for index in (2, TRIMMED, TRIMMED):
        await worker.save("s", b"x", index)
    return pool, runs


async def repeated(worker: StatesWorker, number: int) -> AppendedRun:
    return await worker.append("s", number, op_id=f"{number} x")


BESIDE_A_TRIM: Final[dict[str, Callable[[StatesWorker], Awaitable[object]]]] = {
    "append": lambda worker: repeated(worker, TRIMMED),
    "remove": lambda worker: worker.upkeep.remove("s"),
}


@pytest.mark.parametrize("beside", BESIDE_A_TRIM)
async def test_between_the_record_and_the_journal_a_trimmed_log_is_whole_and_its_op_ids_known(
    beside: str,
) -> None:
    trim_calls = other_calls = 0
    is_trimmed = False
    while not is_trimmed:
        pool, runs = await filled()
        trims, others = Gate(), Gate()
        trim = asyncio.create_task(code_of(pool.gated(trims).upkeep.trim("s", TRIMMED)))
        is_trimmed = await let_through(trims, trim, trim_calls) < trim_calls
        other = asyncio.create_task(code_of(BESIDE_A_TRIM[beside](pool.gated(others))))
        is_done = await let_through(others, other, other_calls) < other_calls

        await let_through(trims, trim, MOST_CALLS)
        await let_through(others, other, MOST_CALLS)

        assert "corrupt" not in (trim.result(), other.result())
        again = await repeated(pool.worker(), TRIMMED)
        assert (again.index, again.hlc) == (TRIMMED, runs[TRIMMED - 1].hlc)
        trim_calls, other_calls = (trim_calls + 1, 0) if is_done else (trim_calls, other_calls + 1)


async def test_op_ids_that_the_record_tells_of_are_known_for_their_two_minutes() -> None:
    pool, runs = await filled()
    await pool.worker().upkeep.trim("s", TRIMMED)

    pool.time.advance(REMEMBERED.total_seconds())
    assert await repeated(pool.worker(), 1) == runs[0]

    pool.time.advance(1)
    assert (await repeated(pool.worker(), 1)).index == LAST + 1


@pytest.mark.parametrize("end", ["remove", "repair"])
@pytest.mark.parametrize("is_damaged", [False, True])
async def test_op_ids_of_commands_that_were_trimmed_are_known_when_their_log_has_ended(
    end: str, *, is_damaged: bool
) -> None:
    pool, runs = await filled()
    worker = pool.worker()
    await worker.upkeep.trim("s", TRIMMED)
    if is_damaged:
        pool.journal._logs["s"][0].checksum ^= 1

    await (worker.upkeep.remove("s") if end == "remove" else worker.upkeep.repair("s", 3))
    for _ in range(LAST):
        await worker.append("s", "anew")

    again = await repeated(pool.worker(), TRIMMED)
    assert (again.index, again.hlc, again.lineage) == (TRIMMED, runs[TRIMMED - 1].hlc, None)
