"""Deadlines go along with a task, and not into what outlives it."""

from __future__ import annotations

import asyncio
import math

import pytest

from holdfast.transport.deadline import deadline, outliving_task, seconds_left


async def test_without_one_there_is_as_much_time_as_is_asked_for() -> None:
    assert seconds_left(7) == 7
    assert seconds_left(math.inf) == math.inf


async def test_inside_there_is_what_is_left_and_outside_all_again() -> None:
    with deadline(5):
        assert 4 < seconds_left(7) <= 5
        assert seconds_left(1) == 1

    assert seconds_left(7) == 7


async def test_a_later_one_inside_an_earlier_one_changes_nothing() -> None:
    with deadline(1), deadline(60):
        assert seconds_left(math.inf) <= 1


async def test_once_it_is_over_nothing_is_left() -> None:
    with deadline(-1):
        assert seconds_left(10) < 0


async def test_a_task_has_the_deadline_of_whoever_made_it_and_one_that_outlives_it_none() -> None:
    async def left() -> float:
        return seconds_left(math.inf)

    with deadline(5):
        inside = asyncio.create_task(left())
        outliving = outliving_task(left())

    assert await inside <= 5
    assert await outliving == math.inf


async def test_two_tasks_have_each_their_own() -> None:
    async def left_after(seconds: float) -> float:
        with deadline(seconds):
            await asyncio.sleep(0)
            return seconds_left(math.inf)

    short, long = await asyncio.gather(left_after(1), left_after(100))

    assert short <= 1
    assert long == pytest.approx(100, abs=1)
