"""A state is removed where its journal takes no more, while others append, or nobody is there."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.names.gated import Gate
from tests.repository.states.pool import StatesPool, StatesWorker, code_of, let_through

from holdfast.errors import QuotaExceededError
from holdfast.stores.memory_journal import MemoryJournalStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COMMANDS: Final = 5


class LimitedJournal(MemoryJournalStore):
    """One with room for so many entries."""

    limit: int = COMMANDS

    async def append(
        self,
        log: str,
        value: bytes,
        *,
        expected: int,
        message_id: str,
        behind_damage: bool = False,
    ) -> int:
        """See `JournalStore.append`."""
        if sum(map(len, self._logs.values())) >= self.limit:
            raise QuotaExceededError
        return await super().append(
            log, value, expected=expected, message_id=message_id, behind_damage=behind_damage
        )


async def filled() -> tuple[StatesPool, LimitedJournal]:
    """A log whose commands take all the room that there is."""
    pool = StatesPool()
    pool.journal = journal = LimitedJournal(pool.time.clock)
    for number in range(1, COMMANDS + 1):
        await pool.worker().append("s", number, op_id=f"op{number} x")
    return pool, journal


async def append(pool: StatesPool) -> None:
    await pool.worker().append("s", "acknowledged")


async def fill(pool: StatesPool) -> None:
    while True:
        await pool.worker().append("other", "x")


async def leave(pool: StatesPool) -> None:
    pool.journal.reachable = False


@pytest.mark.parametrize(
    ("meanwhile", "expected"),
    [
        (append, {"ok"}),
        (fill, {"ok", "outcome_unknown"}),
        (leave, {"ok", "outcome_unknown", "unavailable"}),
    ],
)
async def test_a_removal_that_may_have_removed_commands_is_not_told_to_be_surely_not_made(
    meanwhile: Callable[[StatesPool], Awaitable[None]], expected: set[str]
) -> None:
    told = set()
    for step in count():
        gate = Gate()
        pool, journal = await filled()
        removing = asyncio.create_task(code_of(pool.gated(gate).upkeep.remove("s", op_id="op x")))
        calls = await let_through(gate, removing, step)

        await code_of(meanwhile(pool))
        await let_through(gate, removing, 1000)

        told.add(removing.result())
        journal.reachable, journal.limit = True, 2 * COMMANDS
        await check_told(pool.worker(), removing.result())
        if calls < step:
            break

    assert told == expected


async def check_told(worker: StatesWorker, code: str) -> None:
    """What is there is as the removal was told, and its repeat removes what it has not.

    What was appended before a removal is not appended anew.
    """
    whole = list(range(1, COMMANDS + 1))
    if code == "ok":
        again = await worker.append("s", 1, op_id="op1 x")
        assert (again.index, again.lineage) == (1, None)
        assert await code_of(worker.replay("s", 2)) in ("not_found", "ok")  # or it was begun anew
        return
    if code != "outcome_unknown":
        assert (await worker.replay("s"))[:COMMANDS] == whole
    assert await worker.upkeep.remove("s", op_id="op x")
    assert await code_of(worker.replay("s")) == "not_found"


async def begun_anew() -> tuple[StatesPool, LimitedJournal]:
    """A log behind one that was removed, with commands that take all the room that there is."""
    pool = StatesPool()
    pool.journal = journal = LimitedJournal(pool.time.clock)
    worker = pool.worker()
    await worker.append("s", "old", op_id="old x")
    await worker.upkeep.remove("s")
    for number in range(1, COMMANDS):
        await worker.append("s", number, op_id=f"op{number} x")
    return pool, journal


async def test_a_removal_that_ends_at_any_moment_forgets_no_op_id() -> None:
    for step in count(1):
        gate = Gate()
        pool, journal = await begun_anew()
        removing = asyncio.create_task(code_of(pool.gated(gate).upkeep.remove("s")))
        calls = await let_through(gate, removing, step)
        removing.cancel()
        await asyncio.gather(removing, return_exceptions=True)

        journal.limit = 2 * COMMANDS
        old = await pool.worker().append("s", "old", op_id="old x")
        assert (old.index, old.lineage) == (1, None)
        for number in range(1, COMMANDS):
            again = await pool.worker().append("s", number, op_id=f"op{number} x")
            assert again.index == number
        if calls < step:
            break
