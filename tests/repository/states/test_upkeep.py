"""Logs are trimmed, removed and repaired, and nothing of that is undone by who comes late."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count, product
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.repository.names.gated import Gate
from tests.repository.states.pool import FullJournal, StatesPool, code_of, let_through

from holdfast.domain.digest import Digest
from holdfast.domain.hlc import Hlc
from holdfast.errors import ConflictError, CorruptError, InvalidError, NotFoundError
from holdfast.repository.states.op_ids import MAX_CARRIED, REMEMBERED
from holdfast.repository.states.purging import OP_IDS_KEPT
from holdfast.repository.states.record import KeepPolicy
from holdfast.repository.states.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.states.pool import StatesWorker


@pytest.fixture
def pool() -> StatesPool:
    return StatesPool()


async def filled(pool: StatesPool, *, groups: int = 10) -> None:
    """A log of groups of two commands, numbered from 1, with saves at 10 and 14."""
    worker = pool.worker()
    for n in range(groups):
        await worker.append("s", 2 * n + 1, 2 * n + 2)
    for index in (10, 14):
        await worker.save("s", str(index).encode(), index)


# --- trims ---


async def test_a_log_is_trimmed_to_the_second_newest_save_and_no_further(pool: StatesPool) -> None:
    await filled(pool)
    worker = pool.worker()

    with pytest.raises(ConflictError) as refused:
        await worker.upkeep.trim("s", 11)
    assert refused.value.index == 10
    pool.time.advance(OP_IDS_KEPT.total_seconds() + 1)
    record = await worker.upkeep.trim("s", 10)

    assert record.trimmed_through == 10
    assert await worker.replay("s", 11) == list(range(11, 21))
    assert len((await pool.journal.read("s", 0)).entries) == 5


async def test_a_repeat_of_what_was_trimmed_is_answered_as_the_first(pool: StatesPool) -> None:
    one = pool.worker()
    first = await one.append("s", 1, op_id="op x")
    for number in range(2, 21):
        await one.append("s", number)
    for index in (10, 14):
        await one.save("s", b"x", index)

    await one.upkeep.trim("s", 10)

    assert await pool.worker().append("s", 1, op_id="op x") == first
    assert await pool.worker().replay("s", 11) == list(range(11, 21))


async def test_an_op_id_is_remembered_for_its_two_minutes_also_where_there_is_little_room(
    pool: StatesPool,
) -> None:
    pool.journal = FullJournal(pool.time.clock)
    worker = pool.worker()
    first = await worker.append("s", 1, op_id="op x")
    await worker.append("s", 2, 3)
    for index in (1, 2):
        await worker.save("s", b"x", index)

    pool.time.advance(REMEMBERED.total_seconds())
    await worker.upkeep.trim("s", 1)
    assert await pool.worker().append("s", 1, op_id="op x") == first

    pool.time.advance(1)
    await worker.save("s", b"x", 3)
    await worker.upkeep.trim("s", 2)
    assert len((await pool.journal.read("s", 0)).entries) == 1


async def test_where_there_is_little_room_a_trim_makes_some_at_once(pool: StatesPool) -> None:
    pool.journal = FullJournal(pool.time.clock)
    worker = pool.worker()
    runs = [await worker.append("s", n, op_id=f"{n} x") for n in range(1, 11)]
    for index in (8, 9):
        await worker.save("s", b"x", index)

    await worker.upkeep.trim("s", 4)
    await worker.upkeep.trim("s", 8)

    assert len((await pool.journal.read("s", 0)).entries) == 2
    assert [await pool.worker().append("s", n, op_id=f"{n} x") for n in range(1, 11)] == runs


async def test_a_group_whose_op_ids_the_record_cannot_hold_stays_while_it_is_young(
    pool: StatesPool,
) -> None:
    pool.journal = FullJournal(pool.time.clock)
    worker = pool.worker()
    last = MAX_CARRIED + 9
    runs = [await worker.append("s", n, op_id=f"{n} x") for n in range(1, last + 1)]
    for _ in range(2):
        await worker.save("s", b"x", last)

    await worker.upkeep.trim("s", last)
    assert len((await pool.journal.read("s", 0)).entries) == 9
    assert await pool.worker().append("s", last, op_id=f"{last} x") == runs[-1]
    assert await pool.worker().append("s", 1, op_id="1 x") == runs[0]

    pool.time.advance(REMEMBERED.total_seconds() + 1)
    record = await worker.upkeep.trim("s", last)
    assert (len((await pool.journal.read("s", 0)).entries), record.trimmed_ops) == (1, ())


async def test_op_ids_of_groups_that_a_repair_gave_up_are_not_told_of(pool: StatesPool) -> None:
    pool.journal = FullJournal(pool.time.clock)
    worker = pool.worker()
    for n in (1, 2, 3):
        await worker.append("s", n, op_id=f"{n} x")
    await worker.upkeep.repair("s", 3)
    for n in (4, 5):
        await worker.append("s", n, op_id=f"{n} x")
    for _ in range(2):
        await worker.save("s", b"x", 4)
    await worker.upkeep.trim("s", 4)

    told = await pool.worker().append("s", 5, op_id="5 x")
    assert told.index == 4
    assert await pool.worker().replay("s", 5) == []


@pytest.mark.parametrize(("next_one", "left"), [(10, 5), (9, 6)], ids=["further", "a repeat"])
async def test_what_was_trimmed_young_goes_with_the_next_trim(
    pool: StatesPool, next_one: int, left: int
) -> None:
    await filled(pool)
    worker = pool.worker()
    await worker.upkeep.trim("s", 9)
    assert len((await pool.journal.read("s", 0)).entries) == 10

    pool.time.advance(OP_IDS_KEPT.total_seconds() + 1)
    await worker.upkeep.trim("s", next_one)

    assert len((await pool.journal.read("s", 0)).entries) == left


async def test_a_trim_within_a_group_hides_the_beginning_of_it(pool: StatesPool) -> None:
    await filled(pool)
    worker = pool.worker()

    await worker.upkeep.trim("s", 5)

    assert await worker.replay("s", 6) == list(range(6, 21))
    with pytest.raises(NotFoundError) as below:
        await worker.replay("s", 5)
    assert below.value.index == 6


async def test_a_damaged_save_does_not_count_for_a_trim(pool: StatesPool) -> None:
    await filled(pool)
    worker = pool.worker()
    newest = (await worker.latest("s")).save
    pool.blobs._blobs[Digest(newest.digest)].data = b"??"

    assert await code_of(worker.upkeep.trim("s", 10)) == "conflict"


async def test_a_trim_may_be_repeated_and_never_goes_back(pool: StatesPool) -> None:
    await filled(pool)
    worker = pool.worker()
    await worker.upkeep.trim("s", 8)

    assert (await worker.upkeep.trim("s", 3)).trimmed_through == 8
    with pytest.raises(InvalidError):
        await worker.upkeep.trim("s", 21)


async def test_a_trim_that_another_overtakes_at_any_moment_is_done_all_the_same() -> None:
    for step in count():
        pool, gate = StatesPool(), Gate()
        await filled(pool)
        trimming = asyncio.create_task(pool.gated(gate).upkeep.trim("s", 5))
        made = await let_through(gate, trimming, step)

        await pool.worker().upkeep.trim("s", 10)
        await let_through(gate, trimming, 1000)

        assert (await trimming).trimmed_through in {5, 10}
        assert await pool.worker().replay("s", 11) == list(range(11, 21))
        if made < step:
            break
    assert step > 5


async def test_who_reads_and_is_overtaken_by_a_trim_at_any_moment_is_told_where_to_go_on() -> None:
    async def follow(worker: StatesWorker) -> int:
        async with worker.replays.follow("s", 5) as following:
            while not (told := await following.next(10, 1000)):
                pass
            return told[0].index

    async def read(worker: StatesWorker) -> int:
        return (await worker.replays.page("s", 5, 1)).entries[0].index

    for reads, step in product((follow, read), range(20)):
        pool, gate = StatesPool(), Gate()
        await filled(pool)
        reading = asyncio.create_task(reads(pool.gated(gate)))
        await let_through(gate, reading, step)

        await pool.worker().upkeep.trim("s", 10)
        await let_through(gate, reading, 1000)

        [found] = await asyncio.gather(reading, return_exceptions=True)
        assert found == 5 or (isinstance(found, NotFoundError) and found.index == 11)


async def test_a_log_goes_on_after_it_was_trimmed(pool: StatesPool) -> None:
    await filled(pool)
    one, two = pool.worker(), pool.worker()
    await one.append("s", 21)
    for index in (20, 21):
        await two.save("s", b"x", index)

    await two.upkeep.trim("s", 20)

    assert (await one.append("s", 22)).index == 22
    assert (await two.append("s", 23)).index == 23
    assert (await pool.worker().append("s", 24)).index == 24
    assert await one.replay("s", 21) == [21, 22, 23, 24]


async def test_a_worker_that_was_passed_by_a_trim_goes_on_at_the_end(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1)
    for n in range(2, 10):
        await two.append("s", n)
    for index in (8, 9):
        await two.save("s", b"x", index)
    await two.upkeep.trim("s", 8)

    assert (await one.append("s", 10)).index == 10


async def test_a_log_is_trimmed_by_its_policy_once_it_is_saved(pool: StatesPool) -> None:
    await filled(pool)
    worker = pool.worker()
    await worker.upkeep.policy("s", {"keep": 2, "trim": True})

    await worker.save("s", b"18", 18)
    worker.upkeep.saved("s")
    await asyncio.gather(*worker.upkeep._trimming.values())

    with pytest.raises(NotFoundError) as below:
        await worker.replay("s", 1)
    assert below.value.index == 15


async def test_a_policy_that_two_change_at_any_moment_has_what_each_of_them_changed() -> None:
    for step in count():
        pool, gate = StatesPool(), Gate()
        worker = pool.worker()
        await worker.append("s", 1)
        changing = asyncio.create_task(pool.gated(gate).upkeep.policy("s", {"keep": 5}))
        made = await let_through(gate, changing, step)

        await worker.upkeep.policy("s", {"trim": True})
        await let_through(gate, changing, 1000)

        assert (await changing).keep == 5
        assert await worker.upkeep.policy("s", {}) == KeepPolicy(keep=5, trim=True)
        if made < step:
            break
    assert step > 2


async def test_a_state_without_saves_is_not_trimmed(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1, 2)

    assert await code_of(worker.upkeep.trim("s", 1)) == "conflict"
    assert await code_of(worker.upkeep.trim("none", 1)) == "not_found"


# --- removals ---


async def test_a_removed_state_is_not_there_and_a_new_one_knows_nothing_of_it(
    pool: StatesPool,
) -> None:
    await filled(pool)
    worker, other = pool.worker(), pool.worker()
    await other.append("s", 21)

    assert await worker.upkeep.remove("s", op_id="op")

    assert await code_of(other.latest("s")) == "not_found"
    assert await code_of(other.replay("s")) == "not_found"
    assert not await other.upkeep.remove("s")
    assert await other.upkeep.remove("s", op_id="op")
    assert (await other.append("s", "new")).index == 1
    assert await worker.replay("s") == ["new"]


async def test_what_was_appended_before_cannot_be_expected_of_a_new_log(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1)
    await two.upkeep.remove("s")

    assert await code_of(one.append("s", 2, expected=1)) == "not_found"
    assert (await one.append("s", 2, expected=0)).index == 1


async def test_a_state_that_was_only_saved_is_removed(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.save("s", b"x", 7)

    assert await worker.upkeep.remove("s")
    assert (await worker.append("s", 1)).index == 1


@pytest.mark.parametrize("has_log", [True, False])
async def test_a_repeated_removal_does_not_remove_what_was_begun_since(
    pool: StatesPool, *, has_log: bool
) -> None:
    async def begin(worker: StatesWorker, text: str) -> None:
        if has_log:
            await worker.append("s", text)
        else:
            await worker.save("s", text.encode(), 1)

    one, two = pool.worker(), pool.worker()
    await begin(one, "old")
    assert await one.upkeep.remove("s", op_id="op x")
    await begin(two, "new")

    assert await two.upkeep.remove("s", op_id="op x")

    if has_log:
        assert await two.replay("s") == ["new"]
    else:
        assert (await two.latest("s")).data == b"new"


@pytest.mark.parametrize("has_log", [True, False])
async def test_a_removal_that_is_held_up_at_any_moment_removes_only_what_it_has_seen(
    *, has_log: bool
) -> None:
    for op, step in product(("op x", "other y"), range(2, 8)):
        pool, gate = StatesPool(), Gate()
        worker = pool.worker()
        if has_log:
            await worker.append("s", "old")
        else:
            await worker.save("s", b"old", 1)
        removing = asyncio.create_task(pool.gated(gate).upkeep.remove("s", op_id="op x"))
        await let_through(gate, removing, step)

        await worker.upkeep.remove("s", op_id=op)
        await worker.save("s", b"new", 1)
        await let_through(gate, removing, 1000)

        await asyncio.gather(removing, return_exceptions=True)
        assert (await worker.latest("s")).data == b"new"


@pytest.mark.parametrize("end", [Upkeep.remove, partial(Upkeep.repair, index=2)])
async def test_a_repeated_append_of_what_was_removed_or_cut_off_is_answered_as_the_first(
    pool: StatesPool, end: Callable[..., Awaitable[object]]
) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1)
    first = await one.append("s", "x", op_id="op x")
    for _ in range(2):
        await end(one.upkeep, name="s")
        before = await pool.worker().states.find("s")
        for worker in (one, two, pool.worker()):
            again = await worker.append("s", "x", op_id="op x")
            assert msgspec.structs.replace(again, lineage=first.lineage) == first
        assert await pool.worker().states.find("s") == before
        await two.append("s", "new")

    pool.time.advance(REMEMBERED.total_seconds() + 1)
    assert (await pool.worker().append("s", "x", op_id="op x")).hlc != first.hlc


async def test_a_repeat_is_not_made_in_the_log_that_came_after(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    first = await one.append("s", 1, op_id="op x")
    await two.upkeep.remove("s")
    await two.append("s", 2)

    assert await one.append("s", 1, op_id="op x") == first
    assert await two.replay("s") == [2]
    assert (await one.append("s", 3)).index == 2


# --- repairs ---


async def test_a_log_that_has_lost_its_end_is_corrupt_until_it_is_repaired(
    pool: StatesPool,
) -> None:
    await filled(pool)
    del pool.journal._logs["s"][5:]
    worker = pool.worker()

    for work in (worker.append("s", 1), worker.replay("s"), worker.save("s", b"x", 10)):
        assert await code_of(work) == "corrupt"
    assert (await worker.latest("s")).data == b"14"
    await worker.upkeep.repair("s", 15)

    assert (await worker.append("s", "on")).index == 15
    assert await worker.replay("s", 15) == ["on"]
    assert await code_of(worker.replay("s", 10)) == "not_found"


async def test_what_is_before_a_damage_is_kept(pool: StatesPool) -> None:
    await filled(pool)
    one, two = pool.worker(), pool.worker()
    await one.append("s", 21)
    del pool.journal._logs["s"][6]
    await one.append("s", 22)
    assert await code_of(two.replay("s")) == "corrupt"

    await two.upkeep.repair("s", 13)

    assert await one.replay("s") == list(range(1, 13))
    assert (await one.append("s", "on")).index == 13
    assert (await two.append("s", "and on")).index == 14
    assert await two.replay("s") == [*range(1, 13), "on", "and on"]
    assert (await two.latest("s")).data == b"10"


async def test_a_log_is_repaired_only_between_commands_that_were_not_appended_together(
    pool: StatesPool,
) -> None:
    await filled(pool)

    with pytest.raises(InvalidError, match="11 to 12"):
        await pool.worker().upkeep.repair("s", 12)


async def test_a_damaged_command_is_told_with_its_index_and_what_is_before_is_read(
    pool: StatesPool,
) -> None:
    await filled(pool)
    row = pool.journal._logs["s"][4]
    row.checksum ^= 1
    worker = pool.worker()

    page = await worker.replays.page("s", 1, 100)

    assert (page.next_index, page.last) == (9, 20)
    with pytest.raises(CorruptError):
        await worker.replays.page("s", 9, 100)


async def test_what_is_before_a_damaged_end_is_read_and_the_damage_told_with_its_index(
    pool: StatesPool,
) -> None:
    await filled(pool)
    pool.journal._logs["s"][-1].checksum ^= 1
    worker = pool.worker()

    page = await worker.replays.page("s", 1, 100)
    assert [entry.index for entry in page.entries] == list(range(1, 19))
    assert page.last == page.next_index == 19
    async with worker.replays.follow("s", 17) as following:
        assert [one.index for one in await following.next(10, 1000)] == [17, 18]
        with pytest.raises(CorruptError, match="command 19"):
            await following.next(10, 1000)

    for index in (19, 20, 21):
        with pytest.raises(CorruptError, match="command 19"):
            await worker.replays.page("s", index, 100)
    with pytest.raises(CorruptError, match="command 19"):
        await worker.append("s", 1)
    with pytest.raises(CorruptError, match="command 19"):
        await worker.save("s", b"x", 18)


async def test_a_log_whose_last_command_is_damaged_is_repaired(pool: StatesPool) -> None:
    await filled(pool)
    pool.journal._logs["s"][-1].checksum ^= 1
    worker = pool.worker()
    assert await code_of(worker.append("s", 1)) == "corrupt"

    await worker.upkeep.repair("s", 19)

    assert (await worker.append("s", "on")).index == 19
    assert await worker.replay("s") == [*range(1, 19), "on"]


@pytest.mark.parametrize("gap", [0, 5, 200])
async def test_what_is_on_either_side_of_a_damaged_group_is_found(
    pool: StatesPool, gap: int
) -> None:
    worker = pool.worker()
    for number in range(1, 21):
        await worker.append("s", number)
        if number == 10:
            for other in range(gap):
                await worker.append("other", other)
    for damaged in (12, 13):
        pool.journal._logs["s"][damaged - 1].checksum ^= 1

    for index in (*range(1, 12), *range(14, 21)):
        page = await pool.worker().replays.page("s", index, 1)
        assert [entry.index for entry in page.entries] == [index]
    for index in (12, 13):
        with pytest.raises(CorruptError, match=f"command {index}"):
            await pool.worker().replays.page("s", index, 1)


@pytest.mark.parametrize("damaged", [11, 12])
async def test_what_is_before_a_damage_is_kept_though_a_save_goes_up_to_there(
    pool: StatesPool, damaged: int
) -> None:
    worker = pool.worker()
    for number in range(1, 11):
        await worker.append("s", number)
    await worker.save("s", b"10", 10)
    for other in range(200):
        await worker.append("other", other)
    for number in range(11, damaged + 1):
        await worker.append("s", number)
    pool.journal._logs["s"][damaged - 1].checksum ^= 1

    await pool.worker().upkeep.repair("s", damaged)

    assert (await worker.append("s", "on")).index == damaged
    assert await worker.replay("s") == [*range(1, damaged), "on"]


async def test_a_log_goes_on_only_where_commands_or_a_save_lead(pool: StatesPool) -> None:
    await filled(pool)
    worker = pool.worker()
    with pytest.raises(InvalidError, match="at 11, 15"):
        await worker.upkeep.repair("s", 30)
    del pool.journal._logs["s"][2:]

    with pytest.raises(InvalidError):
        await worker.upkeep.repair("s", 20)
    await worker.upkeep.repair("s", 11)

    assert (await worker.append("s", "on")).index == 11
    assert (await worker.latest("s")).data == b"10"


async def test_a_damaged_log_that_went_on_from_a_save_is_removed(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.save("s", b"elsewhere", 500)
    await worker.append("s", 1)
    pool.journal._logs["s"][-1].checksum ^= 1

    assert await worker.upkeep.remove("s")
    assert (await worker.append("s", "new")).index == 1


async def test_a_damaged_log_is_removed_with_its_state(pool: StatesPool) -> None:
    await filled(pool)
    pool.journal._logs["s"][-1].checksum ^= 1
    worker = pool.worker()

    assert await worker.upkeep.remove("s")
    assert (await worker.append("s", "new")).index == 1


@pytest.mark.parametrize("index", [1, 6])
async def test_a_log_whose_journal_was_lost_and_made_anew_is_repaired(
    pool: StatesPool, index: int
) -> None:
    worker = await with_journal_made_anew(pool)

    await worker.upkeep.repair("s", index)

    assert (await worker.append("s", "on")).index == index
    assert (await worker.append("s", "and on")).index == index + 1
    assert await pool.worker().replay("s", index) == ["on", "and on"]


async def test_a_log_whose_journal_was_lost_and_made_anew_is_removed(pool: StatesPool) -> None:
    worker = await with_journal_made_anew(pool)

    assert await worker.upkeep.remove("s")

    assert (await worker.append("s", "new")).index == 1
    assert await pool.worker().replay("s") == ["new"]


async def with_journal_made_anew(pool: StatesPool) -> StatesWorker:
    """One that sees a state that was saved at 5, behind one that was removed, without its log."""
    worker = pool.worker()
    await worker.append("s", 1)
    await worker.upkeep.remove("s")
    for number in range(1, 6):
        await worker.append("s", number)
    await worker.save("s", b"5", 5)
    pool.journal._logs.clear()
    pool.journal._last = 0
    return pool.worker()


async def test_a_repeated_repair_gives_up_nothing_that_was_appended_since(
    pool: StatesPool,
) -> None:
    await filled(pool)
    one, two = pool.worker(), pool.worker()
    first = await one.upkeep.repair("s", 13, op_id="op x")
    await two.append("s", "new")

    again = await two.upkeep.repair("s", 13, op_id="op x")

    assert again == first
    assert await two.replay("s", 13) == ["new"]


# --- times ---


async def test_times_rise_over_removals_and_repairs(pool: StatesPool) -> None:
    async def remove(_: StatesWorker) -> None:
        await pool.worker().upkeep.remove("s")

    async def repair_behind(_: StatesWorker) -> None:
        await pool.worker().upkeep.repair("s", 2)

    async def repair_behind_damaged(_: StatesWorker) -> None:
        pool.journal._logs["s"][-1].checksum ^= 1
        await pool.worker().upkeep.repair("s", 3)

    async def repair_from_save(worker: StatesWorker) -> None:
        await worker.save("s", b"1", 1)
        del pool.journal._logs["s"][0]
        await pool.worker().upkeep.repair("s", 2)

    for end in (remove, repair_behind, repair_behind_damaged, repair_from_save):
        pool = StatesPool()
        worker = pool.worker()
        ahead = Hlc(int((pool.time.clock().timestamp() + 50) * 1000), 0)
        await worker.append("s", 1, hlc=str(ahead))
        before = await worker.append("s", 2)
        await worker.append("s", 3)
        await end(worker)

        assert (await pool.worker().append("s", "on")).hlc > before.hlc, end.__name__


# --- lists ---


async def test_states_are_listed_by_prefix_in_pages(pool: StatesPool) -> None:
    worker = pool.worker()
    for name in ("a", "a/1", "a/2", "ab", "b", "é"):
        await worker.append(name, 1)
    await worker.append("gone", 1)
    await worker.upkeep.remove("gone")

    async def names(prefix: str) -> list[str]:
        found: list[str] = []
        after = None
        while True:
            rows, after = await worker.upkeep.page(prefix, after=after, limit=2)
            found += [row.name for row in rows]
            if after is None:
                return found

    assert await names("") == ["a", "a/1", "a/2", "ab", "b", "é"]
    assert await names("a") == ["a", "a/1", "a/2", "ab"]
    assert await names("a/") == ["a/1", "a/2"]
    assert await names("c") == []
