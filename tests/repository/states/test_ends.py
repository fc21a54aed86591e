"""A log that ends before commands that were acknowledged is damaged, whoever may have seen them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, override

import msgspec
import pytest
from tests.repository.names.simulation import JumpingLoop
from tests.repository.states.pool import StatesPool, code_of

from holdfast.domain.blob_names import name_key
from holdfast.errors import CorruptError, InvalidError, UnavailableError
from holdfast.repository.states import ends
from holdfast.repository.states.record import STATE, StateRecord
from holdfast.stores.memory import MemoryRecordStore
from holdfast.stores.memory_journal import MemoryJournalStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import datetime

    from tests.repository.states.pool import StatesWorker

    from holdfast.stores.record_ports import Record


class RestartedJournal(MemoryJournalStore):
    """One whose server a test restarts, with less than it had."""

    starts = 0

    @property
    def session(self) -> object:
        """See `JournalStore.session`."""
        return self.starts

    def restart(self, *, kept: int) -> None:
        """Come back with so many entries of the log ``s``."""
        del self._logs["s"][kept:]
        self._last = self._logs["s"][-1].entry.sequence if kept else 0
        self.starts += 1


@pytest.fixture
def journal(pool: StatesPool) -> RestartedJournal:
    pool.journal = journal = RestartedJournal(pool.time.clock)
    return journal


@pytest.fixture
def pool() -> StatesPool:
    return StatesPool()


async def filled(worker: StatesWorker, count: int = 6) -> None:
    for number in range(1, count + 1):
        await worker.append("s", number)


@pytest.mark.parametrize("has_read", [True, False])
async def test_a_worker_that_saw_more_of_a_log_says_so_at_once_and_everybody_a_minute_later(
    pool: StatesPool, journal: RestartedJournal, *, has_read: bool
) -> None:
    witness = pool.worker()
    await filled(witness)
    if has_read:
        witness = pool.worker()
        await witness.replay("s")

    journal.restart(kept=3)

    for asked in (witness.append("s", "x"), witness.save("s", b"x", 2), witness.replay("s", 4)):
        with pytest.raises(CorruptError, match="damaged at command 4"):
            await asked
    await witness.states.write_ends_down()
    assert await code_of(pool.worker().append("s", "x")) == "corrupt"


async def test_who_appended_before_the_loss_does_not_go_on_where_the_log_ends_now(
    pool: StatesPool, journal: RestartedJournal
) -> None:
    one, two = pool.worker(), pool.worker()
    await filled(one, 3)
    await filled(two, 3)
    await two.states.write_ends_down()

    journal.restart(kept=3)

    assert await code_of(one.append("s", "x")) == "corrupt"
    assert await code_of(two.append("s", "x")) == "corrupt"


async def test_who_follows_a_log_that_has_lost_what_he_was_told_is_told_so(
    pool: StatesPool, journal: RestartedJournal
) -> None:
    worker = pool.worker()
    await filled(worker, 3)
    async with pool.worker().replays.follow("s", 1) as following:
        assert len(await following.next(10, 1000)) == 3

        journal.restart(kept=1)

        with pytest.raises(CorruptError):
            await following.next(10, 1000)


async def test_who_has_read_commands_that_are_not_there_is_told_so(
    pool: StatesPool, journal: RestartedJournal
) -> None:
    run = await pool.worker().append("s", *range(1, 4))
    await pool.worker().append("s", 4)

    journal.restart(kept=1)

    worker, told = pool.worker(), "ends with command 3, and 4 was said .* lost its end"
    with pytest.raises(InvalidError, match=told):
        await worker.replays.page("s", 5, 10, lineage=run.lineage)
    with pytest.raises(InvalidError, match=told):
        await worker.replays.check("s", 5, lineage=run.lineage)
    async with worker.replays.follow("s", 5, lineage=run.lineage) as following:
        with pytest.raises(InvalidError, match=told):
            await following.next(10, 1000)
    assert await code_of(worker.replay("s", 5)) == "invalid"


class LaggingJournal(RestartedJournal):
    """One whose leader may not have all of the log ``s`` yet, for ten seconds."""

    catch_up_seconds = 10.0

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock)
        self._late: list[Any] = []

    def lag(self, *, kept: int) -> None:
        """Tell so many entries alone."""
        self._late = self._logs["s"][kept:]
        del self._logs["s"][kept:]

    def catch_up(self) -> None:
        """Tell all of them."""
        self._logs["s"] += self._late


class LaggingPool(StatesPool):
    """Workers on a journal that lags when a test likes."""

    journal: LaggingJournal

    def __init__(self) -> None:
        super().__init__()
        self.journal = LaggingJournal(self.time.clock)


type Lagging = Callable[[LaggingPool, StatesWorker], Coroutine[None, None, None]]


def lagging(test: Lagging) -> Callable[[], None]:
    """A test with a worker that has filled the log, in which waiting takes no time."""

    async def run() -> None:
        pool = LaggingPool()
        worker = pool.worker()
        await filled(worker)
        await test(pool, worker)

    def run_jumping() -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(run())

    return run_jumping


@lagging
async def test_a_log_is_damaged_once_its_servers_have_had_the_time_to_bring_back_its_end(
    pool: LaggingPool, worker: StatesWorker
) -> None:
    pool.journal.lag(kept=4)
    assert await code_of(worker.append("s", "x")) == "unavailable"
    assert await code_of(worker.replay("s")) == "unavailable"
    pool.journal.catch_up()
    assert len(await worker.replay("s")) == 6

    pool.journal.lag(kept=4)
    await asyncio.sleep(60)
    assert await code_of(worker.append("s", "x")) == "unavailable"
    await asyncio.sleep(9)
    assert await code_of(worker.append("s", "x")) == "unavailable"
    await asyncio.sleep(2)
    assert await code_of(worker.append("s", "x")) == "corrupt"
    for _ in range(20):
        await asyncio.sleep(60)
        assert await code_of(worker.append("s", "x")) == "corrupt"


@lagging
async def test_a_lag_is_no_part_of_one_hours_before_or_before_the_connection_was_broken(
    pool: LaggingPool, worker: StatesWorker
) -> None:
    for seconds, restarts in ((3600, 0), (60, 1)):
        pool.journal.lag(kept=4)
        assert await code_of(worker.append("s", "x")) == "unavailable"
        pool.journal.catch_up()
        await asyncio.sleep(seconds)
        pool.journal.starts += restarts
        pool.journal.lag(kept=4)
        assert await code_of(worker.append("s", "x")) == "unavailable"
        pool.journal.catch_up()
        assert len(await worker.replay("s")) == 6


@lagging
async def test_who_knows_more_of_a_log_than_the_others_is_told_of_the_loss_though_they_read_it(
    pool: LaggingPool, worker: StatesWorker
) -> None:
    lineage = (await worker.append("s", 7)).lineage
    pool.journal.lag(kept=4)
    other = pool.worker()

    codes = []
    for _ in range(3):
        codes.append(await code_of(other.replays.page("s", 8, 10, lineage=lineage)))
        assert len(await other.replay("s")) == 4
        await asyncio.sleep(6)

    assert codes == ["unavailable", "unavailable", "invalid"]


@lagging
async def test_who_was_told_wrongly_how_far_a_log_goes_makes_it_damaged_for_nobody(
    pool: LaggingPool, worker: StatesWorker
) -> None:
    lineage = (await worker.append("s", 7)).lineage
    codes = []
    for _ in range(3):
        codes.append(await code_of(worker.replays.page("s", 100, 10, lineage=lineage)))
        await asyncio.sleep(6)
    assert codes == ["unavailable", "unavailable", "invalid"]
    assert len(await worker.replay("s")) == 7

    pool.journal.lag(kept=4)

    assert await code_of(worker.replay("s")) == "unavailable"
    await asyncio.sleep(11)
    assert await code_of(worker.replays.page("s", 100, 10, lineage=lineage)) == "corrupt"


def test_a_look_that_an_append_overtakes_does_not_make_less_known() -> None:
    seen, record = ends.SeenEnds(), StateRecord(name="s", log="L")

    for index in (2, 3, 2):
        seen.note(record, index)
    assert seen.of(record) == 3

    another = msgspec.structs.replace(record, log="M")
    seen.note(another, 1)
    assert (seen.of(another), seen.of(record)) == (1, 0)


async def test_what_a_repair_gave_up_is_missed_by_nobody(
    pool: StatesPool, journal: RestartedJournal
) -> None:
    one, two = pool.worker(), pool.worker()
    await filled(one)
    await one.states.write_ends_down()
    await two.replay("s")
    journal.restart(kept=4)

    await two.upkeep.repair("s", 3)

    for worker in (one, two, pool.worker()):
        await worker.states.write_ends_down()
        assert await worker.replay("s") == [1, 2]
    assert (await one.append("s", "on")).index == 3
    assert await two.replay("s") == [1, 2, "on"]


async def test_commands_are_found_behind_a_repair_though_sequences_came_again(
    pool: StatesPool, journal: RestartedJournal
) -> None:
    worker = pool.worker()
    await filled(worker)
    await worker.replays.page("s", 1, 5)  # where the sixth lies is remembered

    journal.restart(kept=2)
    await worker.upkeep.repair("s", 3)
    for number in range(3, 9):
        await pool.worker().append("s", f"new {number}")

    page = await worker.replays.page("s", 6, 1)
    assert [one.command.data for one in page.entries] == [b'"new 6"']


async def test_of_more_logs_than_are_remembered_those_unused_for_longest_are_forgotten(
    pool: StatesPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "MAX_REMEMBERED", 2)
    worker = pool.worker()
    for name in ("a", "b", "a", "c"):
        await worker.append(name, 1)

    assert [name for name, _ in worker.states.logs.ends.all()] == ["a", "c"]
    await worker.states.write_ends_down()

    assert worker.states.logs.ends.all() == []
    assert await reached_by(worker, "a", "b", "c") == [2, 0, 1]


class PartialRecords(MemoryRecordStore):
    """One of which a record may be out of reach."""

    lost = ""

    @override
    async def get(self, key: str, *, sure: bool = False) -> Record:
        """See `RecordStore.get`."""
        if key == self.lost:
            raise UnavailableError
        return await super().get(key, sure=sure)


async def test_one_record_out_of_reach_does_not_keep_others_from_knowing_how_far_logs_went(
    pool: StatesPool,
) -> None:
    pool.records = records = PartialRecords(pool.time.monotonic)
    worker = pool.worker()
    for name in ("a", "b", "c"):
        await worker.append(name, 1)
    records.lost = STATE.key(name_key("a"))

    assert await code_of(worker.states.write_ends_down()) == "unavailable"

    assert await reached_by(worker, "b", "c") == [1, 1]
    records.lost = ""
    await worker.states.write_ends_down()
    assert await reached_by(worker, "a") == [1]


async def reached_by(worker: StatesWorker, *names: str) -> list[int]:
    """How far the records of the logs say that they went."""
    records = [await worker.states.find(name) for name in names]
    return [held.record.reached for held in records if held is not None]
