"""Appends to one log: whole, in order, each once, and only where they were expected."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.repository.names.gated import Gate
from tests.repository.states.pool import MAX_BYTES, StatesPool, StatesWorker, code_of, codes_of

from holdfast.deadline import deadline
from holdfast.domain.hlc import MAX_DRIFT, later, parse_hlc
from holdfast.domain.limits import MAX_COMMANDS
from holdfast.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from holdfast.repository.states.op_ids import REMEMBERED


@pytest.fixture
def pool() -> StatesPool:
    return StatesPool()


async def test_commands_come_back_in_the_order_in_which_they_were_appended(
    pool: StatesPool,
) -> None:
    worker = pool.worker()

    first = await worker.append("s", {"add": 1})
    others = await worker.append("s", "two", None, [3])

    assert (first.index, others.index, others.count) == (1, 2, 3)
    assert await pool.worker().replay("s") == [{"add": 1}, "two", None, [3]]


async def test_bytes_and_json_stand_in_one_log(pool: StatesPool) -> None:
    worker = pool.worker()

    await worker.append("s", b"\xff\x00", {"a": 1}, b"")

    assert await worker.replay("s") == [b"\xff\x00", {"a": 1}, b""]


async def test_what_comes_at_once_is_one_group_in_the_order_of_its_arrival(
    pool: StatesPool,
) -> None:
    worker = pool.worker()
    await worker.append("s", 0)

    runs = await asyncio.gather(*(worker.append("s", n) for n in range(1, 65)))

    assert [run.index for run in runs] == list(range(2, 66))
    assert await worker.replay("s") == list(range(65))
    page = await pool.journal.read("s", 0)
    assert len(page.entries) == 2


async def test_a_group_has_no_more_commands_than_may_be(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 0)

    await asyncio.gather(*(worker.append("s", *range(400)) for _ in range(6)))

    page = await pool.journal.read("s", 0)
    assert len(page.entries) == 1 + 3
    assert len(await worker.replay("s")) == 2401


async def test_workers_that_append_to_one_log_lose_nothing(pool: StatesPool) -> None:
    workers = [pool.worker() for _ in range(3)]

    runs = await asyncio.gather(
        *(worker.append("s", [n, m]) for n, worker in enumerate(workers) for m in range(50))
    )

    assert sorted(run.index for run in runs) == list(range(1, 151))
    found = await workers[0].replay("s")
    assert sorted(map(str, found)) == sorted(str([n, m]) for n in range(3) for m in range(50))


async def test_logs_of_different_names_know_nothing_of_each_other(pool: StatesPool) -> None:
    worker = pool.worker()

    for name in ("a", "a/b", "a//b", ".", "é" * 256):
        assert (await worker.append(name, name)).index == 1
        assert await worker.replay(name) == [name]


@pytest.mark.parametrize("count", [0, MAX_COMMANDS + 1])
async def test_no_commands_and_too_many_are_invalid(pool: StatesPool, count: int) -> None:
    with pytest.raises(InvalidError):
        await pool.worker().append("s", *range(count))


async def test_what_does_not_fit_a_message_is_too_large(pool: StatesPool) -> None:
    with pytest.raises(TooLargeError):
        await pool.worker().append("s", "x" * MAX_BYTES)
    with pytest.raises(TooLargeError):
        await pool.worker().append("s", b"x" * (MAX_BYTES * 3 // 4))


# --- fences ---


async def test_an_append_is_made_only_behind_the_command_that_it_expects(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1, 2, expected=0)

    assert (await two.append("s", 3, expected=2)).index == 3
    with pytest.raises(ConflictError) as lost:
        await one.append("s", 4, expected=2)

    assert lost.value.index == 3
    assert await one.replay("s") == [1, 2, 3]


async def test_of_those_that_expect_the_same_one_is_made(pool: StatesPool) -> None:
    workers = [pool.worker() for _ in range(3)]
    await workers[0].append("s", 0)

    codes = await asyncio.gather(
        *(code_of(worker.append("s", 1, expected=1)) for worker in workers for _ in range(4))
    )

    assert sorted(codes) == ["conflict"] * 11 + ["ok"]
    assert len(await workers[0].replay("s")) == 2


async def test_a_log_that_is_not_there_is_found_missing_only_by_who_expects_one(
    pool: StatesPool,
) -> None:
    worker = pool.worker()

    with pytest.raises(NotFoundError):
        await worker.append("s", 1, expected=1)
    assert (await worker.append("s", 1, expected=0)).index == 1
    with pytest.raises(ConflictError):
        await worker.append("s", 1, expected=0)


async def test_a_conflict_is_not_told_by_what_a_worker_remembers(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    await one.append("s", 1)
    await two.append("s", 2)

    # One still believes that the log ends with the first command.
    assert (await one.append("s", 3, expected=2)).index == 3


async def test_what_is_behind_a_refused_one_in_the_same_group_is_judged_by_itself(
    pool: StatesPool,
) -> None:
    worker = pool.worker()
    await worker.append("s", 0)

    codes = await codes_of(
        code_of(worker.append("s", 1, expected=1)),
        code_of(worker.append("s", 2, expected=2)),
        code_of(worker.append("s", 3, expected=2)),
        code_of(worker.append("s", 4)),
    )

    assert codes == ["ok", "ok", "conflict", "ok"]
    assert await worker.replay("s") == [0, 1, 2, 4]


# --- Op-Ids ---


async def test_a_repeat_is_answered_as_the_first_on_any_worker(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    first = await one.append("s", 1, 2, op_id="op x")
    await one.append("s", 3, op_id="other x")

    assert await one.append("s", 1, 2, op_id="op x") == first
    assert await two.append("s", 1, 2, op_id="op x") == first
    assert await pool.worker().append("s", 1, 2, op_id="op x", expected=0) == first
    assert await two.replay("s") == [1, 2, 3]


async def test_repeats_that_wait_together_share_one_answer(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()

    runs = await asyncio.gather(
        *(worker.append("s", 1, op_id="op x") for worker in (one, two) for _ in range(5))
    )

    assert len(set(runs)) == 1
    assert await one.replay("s") == [1]


async def test_a_repeat_is_waited_for_as_long_as_its_own_caller_does(pool: StatesPool) -> None:
    gate = Gate()
    worker = pool.gated(gate)
    with deadline(0):
        first = asyncio.create_task(worker.append("s", 1, op_id="op x"))
        await asyncio.sleep(0)

    again = asyncio.create_task(worker.append("s", 1, op_id="op x"))
    while not again.done():
        if gate.held:
            gate.let_go()
        await asyncio.sleep(0)

    assert again.result() == first.result()


async def test_an_op_id_of_another_request_is_a_conflict(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1, op_id="op x")

    with pytest.raises(ConflictError):
        await worker.append("s", 2, op_id="op y")
    assert await worker.replay("s") == [1]


async def test_an_op_id_is_forgotten_after_two_minutes(pool: StatesPool) -> None:
    worker = pool.worker()
    await worker.append("s", 1, op_id="op x")

    pool.time.advance(REMEMBERED.total_seconds() + 1)

    assert (await pool.worker().append("s", 1, op_id="op x")).index == 2


async def test_the_one_who_lost_its_answer_finds_it_in_the_log(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    await asyncio.gather(one.append("s", 1, op_id="op x"), two.append("s", 2))

    codes = await codes_of(code_of(two.append("s", 1, op_id="op x")), code_of(one.append("s", 3)))

    assert codes == ["ok", "ok"]
    assert sorted(map(str, await one.replay("s"))) == ["1", "2", "3"]


async def test_a_group_that_may_have_been_trimmed_is_not_appended_a_second_time(
    pool: StatesPool,
) -> None:
    gate = Gate()
    one, two = pool.gated(gate), pool.worker()
    await two.append("s", 1)
    appending = asyncio.create_task(code_of(one.append("s", "x")))
    while len((await pool.journal.read("s", 0)).entries) < 2:
        await asyncio.sleep(0)
        if gate.held:
            gate.let_go(is_heard=False)
    await two.append("s", 3)
    await pool.journal.trim("s", 2)

    while not appending.done():
        await asyncio.sleep(0.001)
        if gate.held:
            gate.let_go()

    assert await appending == "outcome_unknown"
    assert (await two.append("s", 4)).index == 4


# --- clocks ---


async def test_times_of_a_log_rise_with_its_commands(pool: StatesPool) -> None:
    one, two = pool.worker(), pool.worker()
    for worker in (one, two, one, two):
        await worker.append("s", 1, 2, 3)
        pool.time.advance(-1)

    entries = (await one.replays.page("s", 1, 100)).entries

    times = [entry.hlc for entry in entries]
    assert times == sorted(set(times))
    assert [str(time) for time in times] == sorted(str(time) for time in times)


async def test_a_command_is_later_than_what_its_caller_had_seen(pool: StatesPool) -> None:
    seen = later(pool.time.clock() + MAX_DRIFT / 2)

    run = await pool.worker().append("s", 1, hlc=str(seen))

    assert run.hlc > seen
    assert (await pool.worker().append("s", 2)).hlc > run.hlc


async def test_a_time_from_the_far_future_is_invalid(pool: StatesPool) -> None:
    ahead = later(pool.time.clock() + 2 * MAX_DRIFT)

    with pytest.raises(InvalidError, match=r"T.*T"):
        await pool.worker().append("s", 1, hlc=str(ahead))
    assert await code_of(pool.worker().append("s", 1, expected=1)) == "not_found"


@pytest.mark.parametrize("has_appended", [False, True], ids=["for the first time", "before"])
async def test_a_repeat_is_answered_as_the_first_by_a_worker_whose_clock_is_behind(
    pool: StatesPool, *, has_appended: bool
) -> None:
    sources = pool.time.sources
    slow = replace(sources, clock=lambda: pool.time.clock() - timedelta(seconds=5))
    two = StatesWorker(pool.journal, pool.records, pool.blobs, slow)
    if has_appended:
        await two.append("s", 1)
    ahead = str(later(pool.time.clock() + MAX_DRIFT - timedelta(seconds=1)))
    first = await pool.worker().append("s", "x", hlc=ahead, op_id="op x")

    assert await two.append("s", "x", hlc=ahead, op_id="op x") == first
    assert await code_of(two.append("s", "x", hlc=ahead, op_id="other x")) == "invalid"


@pytest.mark.parametrize("expected", [None, 0, 10])
async def test_a_log_begins_behind_what_was_saved_without_one(
    expected: int | None, pool: StatesPool
) -> None:
    worker = pool.worker()
    await worker.save("s", b"x", 10)

    for other in (9, 11):
        assert await code_of(worker.append("s", 1, expected=other)) == "not_found"
    assert (await worker.append("s", 1, expected=expected)).index == 11


async def test_the_times_of_a_log_are_gone_on_with_however_far_ahead(pool: StatesPool) -> None:
    first = await pool.worker().append("s", 1)
    pool.time.advance(-3600)

    run = await pool.worker().append("s", 2)

    assert run.hlc > first.hlc
    assert parse_hlc(str(run.hlc)) == run.hlc


async def test_a_worker_whose_clock_is_wrong_appends_nothing(pool: StatesPool) -> None:
    wrong = StatesPool()
    wrong.journal, wrong.records = pool.journal, pool.records
    wrong.time.advance(2 * MAX_DRIFT.total_seconds())

    with pytest.raises(UnavailableError, match="clock"):
        await wrong.worker().append("s", 1)
    assert (await pool.worker().append("s", 1)).index == 1


# --- damage ---


async def test_nobody_appends_behind_a_damaged_command_but_who_ends_the_log(
    pool: StatesPool,
) -> None:
    worker = pool.worker()
    for number in (1, 2, 3):
        await worker.append("s", number)
    pool.journal._logs["s"][-1].checksum ^= 1

    for _ in range(2):
        assert await code_of(worker.append("s", 4)) == "corrupt"
    assert await worker.upkeep.remove("s")

    assert (await worker.append("s", "new")).index == 1


async def test_a_log_that_has_lost_its_end_is_corrupt_for_a_worker_that_wrote_it(
    pool: StatesPool,
) -> None:
    worker, other = pool.worker(), pool.worker()
    await worker.append("s", 1)
    await worker.append("s", 2)
    pool.journal._logs["s"].pop()

    await other.append("s", "in its place")

    with pytest.raises(CorruptError):
        await worker.append("s", 3, expected=9)
