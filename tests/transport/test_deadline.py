"""Deadlines go along with a task, and not into what outlives it."""

from __future__ import annotations

import asyncio
import gc
import math
from functools import partial
from typing import Any

import pytest

from holdfast.deadline import TimeLimit, Timers, deadline, outliving_task, seconds_left, shared_task
from holdfast.errors import UnavailableError


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


async def test_shared_work_that_fails_when_nobody_waits_any_more_is_no_unhandled_failure() -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))

    async def fail() -> None:
        raise UnavailableError

    for begin in (shared_task, outliving_task):
        await asyncio.wait([begin(fail())])
        gc.collect()

    assert len(unhandled) == 1  # of the work that was not shared


async def test_two_tasks_have_each_their_own() -> None:
    async def left_after(seconds: float) -> float:
        with deadline(seconds):
            await asyncio.sleep(0)
            return seconds_left(math.inf)

    short, long = await asyncio.gather(left_after(1), left_after(100))

    assert short <= 1
    assert long == pytest.approx(100, abs=1)


# Many waits, one timer


async def test_each_of_many_timers_is_called_in_its_time_but_for_those_that_are_stopped() -> None:
    timers = Timers()
    loop = asyncio.get_running_loop()
    now = loop.time()
    called: dict[int, float] = {}
    ended = asyncio.Event()

    def expire(number: int) -> None:
        called[number] = loop.time()
        if number == 9:
            ended.set()

    for number in (5, 9, 1, 7, 3):
        timers.start(number, now + number / 100, partial(expire, number))
    timers.start(4, now + 0.04, partial(expire, 4))
    timers.stop(4)
    timers.stop(4)
    await ended.wait()

    assert sorted(called) == [1, 3, 5, 7, 9]  # those that are late together, in any order
    assert all(at >= now + number / 100 for number, at in called.items())


async def test_a_timer_may_start_others_and_stop_them() -> None:
    timers = Timers()
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    called: list[str] = []

    def again() -> None:
        timers.stop("neighbour")
        timers.start("again", loop.time(), ended.set)

    timers.start("first", loop.time() + 0.01, again)
    timers.start("neighbour", loop.time(), partial(called.append, "neighbour"))
    timers._due["neighbour"] = timers._due["first"][0], timers._due["neighbour"][1]
    timers.start("behind", loop.time() + 0.01, partial(called.append, "behind"))

    await asyncio.wait_for(ended.wait(), 10)

    assert called == ["behind"]


async def limited(timers: Timers, seconds: float, entered: asyncio.Event) -> None:
    """Wait for ever, but for a limit."""
    with TimeLimit(timers, seconds, told=seconds):
        entered.set()
        await asyncio.Event().wait()


async def test_a_time_limit_ends_what_is_done_inside_with_a_time_out() -> None:
    timers = Timers()

    with pytest.raises(TimeoutError):
        await limited(timers, 0.01, asyncio.Event())

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert timers._due == {}


async def test_a_time_limit_tells_of_an_earlier_end_than_its_own() -> None:
    with TimeLimit(Timers(), 60, told=5):
        assert 4 < seconds_left(60) <= 5
    assert seconds_left(60) == 60


async def test_who_is_cancelled_within_a_time_limit_is_cancelled_not_timed_out() -> None:
    timers = Timers()
    entered = asyncio.Event()
    task = asyncio.create_task(limited(timers, 60, entered))
    await entered.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert timers._due == {}


async def test_who_is_cancelled_in_the_moment_when_the_time_is_up_is_cancelled() -> None:
    timers = Timers()
    entered = asyncio.Event()
    task = asyncio.create_task(limited(timers, 60, entered))
    await entered.wait()
    for _ in range(2):
        ((_, expire),) = timers._due.values()
        expire()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_gives_up_inside_a_time_limit_is_heard_however_late_the_loop_is() -> None:
    """A loop that was blocked finds that all are over at the same time."""
    timers = Timers()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()
    timers.start("inside", loop.time(), lambda: answer.set_exception(UnavailableError()))

    with pytest.raises(UnavailableError), TimeLimit(timers, 0, told=0):
        await answer
