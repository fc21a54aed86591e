"""Who waits for the callers of the last group, and for how long."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace

import pytest
from tests.repository.states.pool import StatesPool, StatesWorker

from holdfast.repository.states import convoy as convoy_module
from holdfast.repository.states.convoy import LEAST_SECONDS, MOST_SECONDS, TIMES, Convoy

TOOK = 2 * LEAST_SECONDS


def test_a_group_waits_until_as_many_have_come_as_were_under_way() -> None:
    convoy = Convoy()

    assert convoy.ended(64, TOOK) == TIMES * TOOK
    assert [convoy.waits(callers) for callers in (0, 1, 63, 64)] == [True, True, True, False]
    assert not convoy.waits(1)


def test_a_group_does_not_wait_any_more_once_that_is_given_up() -> None:
    convoy = Convoy()
    convoy.ended(64, TOOK)
    convoy.give_up(1)

    assert not convoy.waits(1)
    assert Convoy().ended(64, 5.0) == MOST_SECONDS


@pytest.mark.parametrize(("callers", "seconds"), [(1, TOOK), (64, LEAST_SECONDS / 2)])
def test_who_is_alone_or_behind_a_quick_group_does_not_wait(callers: int, seconds: float) -> None:
    convoy = Convoy()

    assert convoy.ended(callers, seconds) is None
    assert not convoy.waits(1)


def test_where_callers_do_not_come_again_ever_fewer_groups_wait() -> None:
    convoy = Convoy()
    waited = []
    for _ in range(2000):
        waited.append(convoy.ended(64, TOOK) is not None)
        convoy.give_up(1)

    places = [place for place, did in enumerate(waited) if did]
    gaps = [behind - place for place, behind in itertools.pairwise(places)]
    assert gaps == [17, 33, 65, 129, 257, 513]


@pytest.mark.parametrize("came_in_time", [True, False])
def test_callers_who_come_again_together_are_waited_for_again(*, came_in_time: bool) -> None:
    convoy = Convoy()
    for _ in range(3):
        assert convoy.ended(64, TOOK) is not None
        if not came_in_time:
            convoy.give_up(0)
        assert not convoy.waits(64)


async def test_whom_nobody_comes_to_join_is_appended_nevertheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convoy_module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(convoy_module, "TIMES", 1e6)
    pool = StatesPool()
    sources = replace(pool.time.sources, monotonic=time.monotonic)
    worker = StatesWorker(pool.journal, pool.records, pool.blobs, sources)
    await asyncio.gather(*(worker.append("s", number) for number in range(8)))

    runs = await asyncio.gather(worker.append("s", 8), worker.append("s", 9))

    assert [run.index for run in runs] == [9, 10]
