"""Who waits for the callers of the last group, and for how long."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from tests.repository.states.pool import StatesPool

from holdfast.repository.states import convoy as convoy_module
from holdfast.repository.states.convoy import LEAST_SECONDS, MOST_SECONDS, TIMES, Convoy

TOOK = 2 * LEAST_SECONDS


def ended(convoy: Convoy, callers: int, took: float = TOOK) -> float | None:
    """A group ended at 0; how long the next one waits at most."""
    return convoy.ended(callers, -took, 0.0)


def test_a_group_waits_until_as_many_have_come_as_were_under_way() -> None:
    convoy = Convoy()

    assert ended(convoy, 64) == TIMES * TOOK
    assert [convoy.waits(callers, TOOK) for callers in (1, 63, 64)] == [True, True, False]


def test_a_group_waits_no_longer_than_a_few_times_what_the_last_one_took() -> None:
    convoy = Convoy()
    until = ended(convoy, 64)

    assert until is not None
    assert convoy.waits(1, until - 0.0001)
    assert not convoy.waits(1, until)
    assert ended(Convoy(), 64, took=5.0) == MOST_SECONDS


@pytest.mark.parametrize(("callers", "took"), [(1, TOOK), (64, LEAST_SECONDS / 2)])
def test_who_is_alone_or_behind_a_quick_group_does_not_wait(callers: int, took: float) -> None:
    convoy = Convoy()

    assert ended(convoy, callers, took) is None
    assert not convoy.waits(1, 0.0)


def test_where_callers_do_not_come_again_ever_fewer_groups_wait() -> None:
    convoy = Convoy()
    waited = []
    for _ in range(2000):
        until = ended(convoy, 64)
        waited.append(until is not None)
        convoy.waits(1, until or 0.0)

    places = [place for place, did in enumerate(waited) if did]
    gaps = [behind - place for place, behind in itertools.pairwise(places)]
    assert gaps == [17, 33, 65, 129, 257, 513]


def test_callers_who_come_again_are_waited_for_again() -> None:
    convoy = Convoy()
    for _ in range(3):
        until = ended(convoy, 64)
        assert until is not None
        convoy.waits(64, 0.0)


async def test_whom_nobody_comes_to_join_is_appended_nevertheless(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(convoy_module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(convoy_module, "TIMES", 1e6)
    worker = StatesPool().worker()
    await asyncio.gather(*(worker.append("s", number) for number in range(8)))

    runs = await asyncio.gather(worker.append("s", 8), worker.append("s", 9))

    assert [run.index for run in runs] == [9, 10]
