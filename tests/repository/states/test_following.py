"""Who follows a log is told each command once and in order, or that there is no going on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.states.pool import StatesPool

from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.states.upkeep import OP_IDS_KEPT

if TYPE_CHECKING:
    from holdfast.repository.states.replays import Following

SECONDS: Final = 10.0
MAX_BYTES: Final = 2**20


@pytest.fixture
def pool() -> StatesPool:
    return StatesPool()


async def told(following: Following, count: int) -> list[int]:
    """The indexes of the next commands, once there are ``count``."""
    found: list[int] = []
    while len(found) < count:
        found += [one.index for one in await following.next(SECONDS, MAX_BYTES)]
    return found


async def test_groups_are_told_whole_and_those_behind_the_beginning_of_one(
    pool: StatesPool,
) -> None:
    worker = pool.worker()
    await worker.append("s", 1, 2, 3)
    await worker.append("s", 4)

    async with pool.worker().replays.follow("s", 2) as following:
        assert await told(following, 3) == [2, 3, 4]
        await worker.append("s", 5, 6)
        assert await told(following, 2) == [5, 6]
        assert following.next_index == 7


async def test_a_log_that_is_trimmed_where_it_was_told_is_followed_on(pool: StatesPool) -> None:
    worker = pool.worker()
    for n in range(1, 6):
        await worker.append("s", n)

    async with worker.replays.follow("s", 1) as following:
        assert await told(following, 5) == [1, 2, 3, 4, 5]
        for index in (4, 5):
            await worker.save("s", b"x", index)
        await worker.upkeep.trim("s", 4)
        await worker.append("s", 6)
        assert await told(following, 1) == [6]


async def test_who_is_passed_by_a_trim_is_told_the_first_command_that_there_is(
    pool: StatesPool,
) -> None:
    worker = pool.worker()
    await worker.append("s", 1)

    async with worker.replays.follow("s", 1) as following:
        await told(following, 1)
        for n in range(2, 6):
            await worker.append("s", n)
        for index in (4, 5):
            await worker.save("s", b"x", index)
        pool.time.advance(2 * OP_IDS_KEPT.total_seconds())
        await worker.append("s", 6)
        await worker.upkeep.trim("s", 4)
        with pytest.raises(NotFoundError) as passed:
            await told(following, 1)

    assert passed.value.index == 5


async def test_a_removed_state_is_followed_no_more(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1)

    async with worker.replays.follow("s", 1) as following:
        await told(following, 1)
        await worker.upkeep.remove("s")
        with pytest.raises(NotFoundError):
            await told(following, 1)


async def test_another_log_of_the_name_is_not_taken_for_the_same(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1)

    async with worker.replays.follow("s", 1) as following:
        await told(following, 1)
        await worker.upkeep.remove("s")
        await worker.append("s", "a", "b", "c")
        with pytest.raises(ConflictError):
            await told(following, 1)


async def test_who_was_told_what_a_repair_took_back_is_told_so(pool: StatesPool) -> None:
    worker = pool.worker()
    for n in range(1, 6):
        await worker.append("s", n)

    async with worker.replays.follow("s", 1) as late, worker.replays.follow("s", 1) as early:
        await told(late, 5)
        assert [one.index for one in await early.next(SECONDS, 1)] == [1]
        await worker.upkeep.repair("s", 4)

        assert await told(early, 2) == [2, 3]
        await worker.append("s", "a", "b", "c")
        assert await told(early, 3) == [4, 5, 6]
        with pytest.raises(ConflictError):
            await told(late, 1)
