"""A damaged group is told with the index of its command, and no more once it does not count."""

from __future__ import annotations

import pytest
from tests.repository.states.pool import FullJournal, StatesPool

from holdfast.errors import CorruptError, UnavailableError
from holdfast.repository.states.op_ids import REMEMBERED
from holdfast.stores.memory_journal import MemoryJournalStore

LAST = 4


class KeepingJournal(MemoryJournalStore):
    """One whose trims fail."""

    async def trim(self, log: str, through: int) -> None:
        """See `JournalStore.trim`."""
        del log, through
        raise UnavailableError


async def filled(pool: StatesPool, *, old: int = 0) -> None:
    """A log of four commands, the first ``old`` of which are older than two minutes."""
    for index in range(1, LAST + 1):
        await pool.worker().append("s", index)
        if index == old:
            pool.time.advance(REMEMBERED.total_seconds() + 1)


def damage(pool: StatesPool, place: int) -> None:
    pool.journal._logs["s"][place].checksum ^= 1


@pytest.mark.parametrize("old", [0, 1])
@pytest.mark.parametrize("index", range(2, LAST + 1))
async def test_an_append_to_a_log_with_a_damaged_young_command_is_told_its_index(
    index: int, old: int
) -> None:
    pool = StatesPool()
    await filled(pool, old=old)
    damage(pool, index - 1)

    with pytest.raises(CorruptError) as told:
        await pool.worker().append("s", "x")

    assert told.value.index == index


async def test_the_damaged_first_command_of_a_trimmed_log_is_told_with_its_index() -> None:
    pool = StatesPool()
    pool.journal = FullJournal(pool.time.clock)
    await filled(pool)
    for _ in range(2):
        await pool.worker().save("s", b"x", 2)
    await pool.worker().upkeep.trim("s", 2)
    damage(pool, 0)

    with pytest.raises(CorruptError) as told:
        await pool.worker().append("s", "x")

    assert told.value.index == 3


async def test_a_damaged_young_command_that_a_repair_gave_up_is_in_nobodys_way() -> None:
    pool = StatesPool()
    await filled(pool, old=1)
    damage(pool, 1)
    await pool.worker().upkeep.repair("s", 2)

    assert (await pool.worker().append("s", "on")).index == 2
    assert await pool.worker().replay("s") == [1, "on"]


async def test_a_damaged_young_command_of_a_state_that_was_removed_is_in_nobodys_way() -> None:
    pool = StatesPool()
    pool.journal = KeepingJournal(pool.time.clock)
    await filled(pool)
    damage(pool, 0)
    await pool.worker().upkeep.remove("s")

    assert (await pool.worker().append("s", "anew")).index == 1
    assert await pool.worker().replay("s") == ["anew"]
