"""Who follows a log is told each command once and in order, or that there is no going on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.states.pool import StatesPool

from holdfast.errors import ConflictError, NotFoundError
from holdfast.repository.states.purging import OP_IDS_KEPT

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


async def test_who_goes_on_at_another_worker_is_told_that_the_log_is_another(
    pool: StatesPool,
) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1, 2, 3)
    async with one.replays.follow("s", 1) as following:
        await told(following, 3)
    read = (await one.replays.page("s", 1, 3)).lineage
    await one.upkeep.remove("s")
    await one.append("s", *"abcdef")

    async with two.replays.follow("s", 4, lineage=following.lineage) as again:
        with pytest.raises(ConflictError):
            await told(again, 1)
    with pytest.raises(ConflictError):
        await two.replays.page("s", 4, 3, lineage=read)
    with pytest.raises(ConflictError):
        await two.replays.check("s", 8, lineage=read)


async def test_who_goes_on_at_another_worker_is_told_what_a_repair_took_back(
    pool: StatesPool,
) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1)
    await one.append("s", 2)
    await one.append("s", 3)
    read = (await one.replays.page("s", 1, 3)).lineage
    await one.upkeep.repair("s", 3)
    await one.append("s", *"abcdef")

    async with two.replays.follow("s", 3, lineage=read) as early:
        assert await told(early, 6) == [3, 4, 5, 6, 7, 8]
    async with two.replays.follow("s", 4, lineage=read) as late:
        with pytest.raises(ConflictError):
            await told(late, 1)
    async with two.replays.follow("s", 9, lineage=early.lineage) as following:
        await two.append("s", "g")
        assert await told(following, 1) == [9]


async def test_a_log_that_begins_behind_a_save_goes_on_from_there(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.save("s", b"x", 10)

    async with worker.replays.follow("s", 11) as following:
        assert await following.next(0, MAX_BYTES) == []
        await worker.append("s", "a")
        assert await told(following, 1) == [11]
