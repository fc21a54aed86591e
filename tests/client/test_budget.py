"""How many bytes are on their way at once."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.client.budget import ByteBudget


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_is_taken_than_there_is_and_the_rest_waits_in_order() -> None:
    budget = ByteBudget(10)
    taken: list[int] = []

    async def take(size: int) -> None:
        taken.append(await budget.take(size))

    tasks = [asyncio.create_task(take(size)) for size in (6, 4, 5, 1)]
    await settle()
    assert taken == [6, 4]
    budget.give_back(4)
    await settle()
    assert taken == [6, 4], "the small one does not pass the large one"
    budget.give_back(6)
    await settle()

    assert taken == [6, 4, 5, 1]
    await asyncio.gather(*tasks)


async def test_who_wants_more_than_there_is_gets_all_of_it() -> None:
    budget = ByteBudget(10)

    assert await budget.take(1000) == 10
    budget.give_back(10)
    assert await budget.take(10) == 10


@pytest.mark.parametrize("granted", [False, True], ids=["before its turn", "at its turn"])
async def test_who_is_cancelled_takes_nothing_and_holds_nobody_up(granted: bool) -> None:
    budget = ByteBudget(10)
    await budget.take(10)
    large = asyncio.create_task(budget.take(9))
    small = asyncio.create_task(budget.take(5))
    await settle()

    if granted:
        budget.give_back(10)
        large.cancel()
    else:
        budget.give_back(5)
        large.cancel()
    await settle()

    assert large.cancelled()
    assert await asyncio.wait_for(small, 30) == 5
    if granted:
        assert await asyncio.wait_for(budget.take(5), 10) == 5
