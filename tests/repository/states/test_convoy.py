"""Who waits for the callers of the last group, and for how long."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.repository.names.simulation import JumpingLoop
from tests.repository.states.pool import StatesPool, StatesWorker

from holdfast.repository.states import convoy as convoy_module
from holdfast.repository.states.convoy import LEAST_SECONDS, MOST_SECONDS, TIMES, Convoy
from holdfast.stores.memory_journal import MemoryJournalStore

TOOK = 2 * LEAST_SECONDS
GROUP_SECONDS = 0.005
ROUNDS = 20


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


def test_a_group_that_is_full_does_not_wait() -> None:
    convoy = Convoy()
    convoy.ended(64, TOOK)

    assert not convoy.waits(1, is_full=True)


@pytest.mark.parametrize("came_in_time", [True, False])
def test_callers_who_come_again_together_are_waited_for_again(*, came_in_time: bool) -> None:
    convoy = Convoy()
    for _ in range(3):
        assert convoy.ended(64, TOOK) is not None
        if not came_in_time:
            convoy.give_up(0)
        assert not convoy.waits(64)


class SlowJournal(MemoryJournalStore):
    """Takes ``GROUP_SECONDS`` for each group, and counts them."""

    groups = 0

    async def append(self, *args: Any, **kwargs: Any) -> int:
        """As any journal."""
        self.groups += 1
        await asyncio.sleep(GROUP_SECONDS)
        return await super().append(*args, **kwargs)


@dataclass(frozen=True)
class Load:
    """Callers who append ``count`` commands of ``size`` bytes, ``ROUNDS`` times one by one.

    Those with an odd number begin later. They come again in less time than a group takes.
    """

    callers: int
    count: int = 1
    size: int = 1

    def run(self) -> tuple[float, int]:
        """The seconds that it takes, on a clock of its own, and the number of groups."""
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            return runner.run(self._run())

    async def _run(self) -> tuple[float, int]:
        pool, clock = StatesPool(), asyncio.get_running_loop().time
        journal = SlowJournal(pool.time.clock)
        sources = replace(pool.time.sources, monotonic=clock)
        worker = StatesWorker(journal, pool.records, pool.blobs, sources)
        await worker.append("s", 0)
        begun = clock()
        await asyncio.gather(*(self._call(worker, number) for number in range(self.callers)))
        return clock() - begun, journal.groups

    async def _call(self, worker: StatesWorker, number: int) -> None:
        await asyncio.sleep(number % 2 * GROUP_SECONDS / 2)
        for _ in range(ROUNDS):
            await worker.append("s", *["x" * self.size] * self.count)
            await asyncio.sleep(GROUP_SECONDS / 2)


def test_callers_who_were_torn_in_two_come_together_again() -> None:
    seconds, groups = Load(callers=64).run()

    assert groups <= ROUNDS + 4
    assert seconds <= (ROUNDS + 4) * GROUP_SECONDS * 1.5


@pytest.mark.parametrize(
    "load",
    [
        Load(callers=2, count=1000),
        Load(callers=64, count=30),
        Load(callers=16, size=16_000),
        Load(callers=64, size=4_000),
    ],
    ids=str,
)
def test_nobody_waits_for_callers_for_whom_a_group_has_no_room(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, _ = load.run()
    monkeypatch.setattr(convoy_module, "LEAST_SECONDS", 1000.0)
    without, _ = load.run()

    assert seconds <= without + 2 * MOST_SECONDS


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
