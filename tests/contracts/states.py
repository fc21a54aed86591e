"""The promises of states on every kind of store: one class of tests that each of them runs.

A subclass gives the fixture ``workers``, which makes workers that share fresh stores.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.repository.states.pool import StatesWorker, code_of, codes_of

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, CorruptError, NotFoundError
from holdfast.repository.states.keeping import StateRoots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.bootstrap.stores import Stores

    MakeWorker = Callable[[], StatesWorker]


def worker_on(stores: Stores) -> StatesWorker:
    """A worker of the same process as others, which knows nothing of them."""
    return StatesWorker(stores.states, stores.snapshots, stores.blobs, SOURCES)


async def fill(worker: StatesWorker) -> None:
    """Append six commands to the log ``s``, and have its record say how far that goes."""
    for number in range(1, 7):
        await worker.append("s", marked(number))
    await worker.states.write_ends_down()


def marked(number: int) -> str:
    """A command that can be found among the bytes of a store."""
    return f"command number {number}" * 4


@contextmanager
def is_damaged_at(index: int) -> Iterator[None]:
    """It is told that the command ``index`` of the log cannot be read."""
    with pytest.raises(CorruptError, match=f"damaged at command {index}") as raised:
        yield
    assert raised.value.index == index


async def check_that_the_end_is_lost(workers: MakeWorker) -> None:
    """Of what `fill` has appended the fifth command and the one behind it are not there any more.

    That is told to everybody, until somebody says from where to go on.
    """
    worker = workers()
    page = await worker.replays.page("s", 1, 100)
    assert [one.index for one in page.entries] == [1, 2, 3, 4]
    for index in (5, 6, 7, 8):
        with is_damaged_at(5):
            await worker.replays.page("s", index, 100)
    async with worker.replays.follow("s", 4) as following:
        assert [one.index for one in await following.next(10, 1000)] == [4]
        with is_damaged_at(5):
            await following.next(10, 1000)
    for change in (
        lambda: worker.append("s", "x"),
        lambda: worker.append("s", "x", expected=4),
        lambda: worker.save("s", b"x", 3),
        lambda: worker.upkeep.trim("s", 1),
    ):
        with is_damaged_at(5):
            await change()

    await workers().upkeep.repair("s", 5)

    assert (await worker.append("s", "on")).index == 5
    assert await workers().replay("s") == [*map(marked, range(1, 5)), "on"]


class StatesContract:
    """To be inherited by the tests of a kind of store."""

    async def test_commands_come_back_in_their_order_after_a_restart(
        self, workers: MakeWorker
    ) -> None:
        worker = workers()
        await worker.append("s", 1, {"a": [None, "é"]}, b"\xff")
        await worker.append("s", 2)

        assert await workers().replay("s") == [1, {"a": [None, "é"]}, b"\xff", 2]
        assert (await workers().append("s", 3)).index == 5

    async def test_workers_that_append_at_once_lose_nothing(self, workers: MakeWorker) -> None:
        several = [workers() for _ in range(3)]

        runs = await asyncio.gather(
            *(worker.append("s", [n, m]) for n, worker in enumerate(several) for m in range(20))
        )

        assert sorted(run.index for run in runs) == list(range(1, 61))
        log = await workers().replay("s")
        found = sorted(tuple(command) for command in log if isinstance(command, list))
        assert found == [(n, m) for n in range(3) for m in range(20)]

    async def test_a_repeat_is_answered_as_the_first_on_any_worker_and_after_a_restart(
        self, workers: MakeWorker
    ) -> None:
        worker, other = workers(), workers()
        await other.append("s", 0)
        first = await worker.append("s", 1, op_id="op x")

        assert await other.append("s", 1, op_id="op x") == first
        assert await workers().append("s", 1, op_id="op x") == first
        assert await other.replay("s") == [0, 1]

    async def test_of_those_that_expect_the_same_one_is_made(self, workers: MakeWorker) -> None:
        several = [workers() for _ in range(3)]

        codes = await codes_of(*(code_of(w.append("s", 1, expected=0)) for w in several))

        assert sorted(codes) == ["conflict", "conflict", "ok"]
        with pytest.raises(ConflictError) as lost:
            await several[0].append("s", 2, expected=7)
        assert lost.value.index == 1

    async def test_states_are_saved_loaded_and_found_again(self, workers: MakeWorker) -> None:
        worker = workers()
        await worker.append("s", *range(1, 31))
        for index in (10, 20, 30):
            await worker.save("s", b"%d" % index, index)

        loaded = await workers().latest("s")
        assert (loaded.data, loaded.save.last_applied_index) == (b"30", 30)
        assert (await worker.saves.at("s", index=29)).data == b"20"
        with pytest.raises(ConflictError):
            await workers().save("s", b"old", 20)

    async def test_a_log_is_trimmed_and_read_from_there(self, workers: MakeWorker) -> None:
        worker = workers()
        for n in range(1, 41):
            await worker.append("s", n)
        for index in (20, 30):
            await worker.save("s", b"%d" % index, index)

        await workers().upkeep.trim("s", 20)

        for first in (21, 22, 33, 40):
            assert await workers().replay("s", first) == list(range(first, 41))
        with pytest.raises(NotFoundError) as below:
            await worker.replay("s", 20)
        assert below.value.index == 21
        assert (await worker.append("s", 41)).index == 41

    async def test_a_removed_state_is_gone_and_a_new_one_begins_anew(
        self, workers: MakeWorker
    ) -> None:
        worker, other = workers(), workers()
        await worker.append("s", 1, 2)
        await worker.save("s", b"2", 2)
        await other.append("s", 3)

        assert await other.upkeep.remove("s")

        assert await code_of(worker.latest("s")) == "not_found"
        assert (await worker.append("s", "new")).index == 1
        assert await other.replay("s") == ["new"]

    async def test_a_log_goes_on_where_it_is_repaired(self, workers: MakeWorker) -> None:
        worker, other = workers(), workers()
        for n in range(1, 6):
            await worker.append("s", n)

        await other.upkeep.repair("s", 4)

        assert (await worker.append("s", "on")).index == 4
        assert await other.replay("s") == [1, 2, 3, "on"]

    async def test_who_follows_is_told_what_others_append(self, workers: MakeWorker) -> None:
        worker, other = workers(), workers()
        await worker.append("s", 1)

        async with other.replays.follow("s", 1) as following:
            told: list[int] = []
            for n in range(2, 5):
                while len(told) < n - 1:
                    told += [one.index for one in await following.next(10, 2**20)]
                await worker.append("s", n)
            while len(told) < 4:
                told += [one.index for one in await following.next(10, 2**20)]

        assert told == [1, 2, 3, 4]

    async def test_states_are_listed_by_their_names(self, workers: MakeWorker) -> None:
        worker = workers()
        for name in ("a/1", "a/2", "b"):
            await worker.append(name, 1)

        rows, after = await workers().upkeep.page("a/", after=None, limit=1)
        rest, end = await workers().upkeep.page("a/", after=after, limit=10)

        assert [row.name for row in (*rows, *rest)] == ["a/1", "a/2"]
        assert end is None

    async def test_what_saves_have_is_found_by_the_collector(
        self, workers: MakeWorker, stores: Stores
    ) -> None:
        await workers().save("s", b"1", 0)

        page = await stores.snapshots.changes(0)
        roots = StateRoots(stores.snapshots)
        named = [digest for one in page.changes for digest in roots.named(one)]
        assert named == [digest_of(b"1")]
