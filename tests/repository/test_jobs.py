"""Jobs: so many at a time, renewed while they run, ended once, stopped when the worker stops."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.repository.pool import Time
from tests.repository.snapshot_records_tools import begin, pending, pending_keys, read

from holdfast.archive.ports import Cancelled, Progress
from holdfast.errors import ConflictError, CorruptError, RateLimitedError
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.snapshots import running as jobs_module
from holdfast.repository.snapshots.job import STALL_SECONDS, Job
from holdfast.repository.snapshots.record import StoredSnapshot, StoredWork, renewed
from holdfast.repository.snapshots.running import MAX_WAITING, NO_PROGRESS, STOPPED, Jobs
from holdfast.stores.memory import MemoryRecordStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Bench:
    """Jobs, two at a time, and what they tell."""

    def __init__(
        self,
        executor: ThreadPoolExecutor,
        store: MemoryRecordStore | None = None,
        *,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self.time = Time()
        self.executor = executor
        self.records = Ledger(store or MemoryRecordStore(self.time.monotonic))
        self.told: list[tuple[str, str]] = []
        self.jobs = Jobs(
            self.records,
            executor,
            max_jobs=2,
            clock=self.time.clock,
            announce=self._tell,
            stall_seconds=stall_seconds,
        )

    def _tell(self, record: StoredWork, progress: Progress) -> None:
        self.told.append((record.state, progress.phase))

    async def start(
        self,
        work: Callable[[Job[StoredSnapshot]], Awaitable[StoredSnapshot]],
        *,
        lease_seconds: float = 60,
    ) -> Job[StoredSnapshot]:
        """A job that does ``work``."""
        record = pending("shop", 1)
        lease = Lease(owner="w1", seconds=lease_seconds)
        held = await begin(self.records, msgspec.structs.replace(record, lease=lease))
        return self.jobs.start(held, work)


class Steps:
    """Work that waits for the test."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def work(self, job: Job[StoredSnapshot]) -> StoredSnapshot:
        """Wait to be let go, or to be stopped."""
        self.begun += 1
        waits = [
            asyncio.create_task(self.may_end.wait()),
            asyncio.create_task(job.wait_stopped()),
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if job.should_stop():
            raise Cancelled
        return msgspec.structs.replace(job.record, state="ok")


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ThreadPoolExecutor(2) as executor:
        yield Bench(executor)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_so_many_run_and_the_others_wait_with_their_records_pending(bench: Bench) -> None:
    steps = Steps()
    jobs = [await bench.start(steps.work) for _ in range(4)]
    await settle()

    assert steps.begun == 2
    assert len(await pending_keys(bench.records)) == 4
    steps.may_end.set()
    records = [await bench.jobs.wait(job, 30) for job in jobs]

    assert {record.state for record in records} == {"ok"}
    assert steps.begun == 4
    assert bench.jobs.active == 0
    assert await pending_keys(bench.records) == []


async def test_a_job_that_waits_is_renewed_like_one_that_runs(bench: Bench) -> None:
    steps = Steps()
    jobs = [await bench.start(steps.work, lease_seconds=0.03) for _ in range(3)]

    async with asyncio.timeout(30):
        while min(job.record.lease.beat for job in jobs) < 3:  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.001)

    assert steps.begun == 2
    steps.may_end.set()
    for job in jobs:
        assert (await bench.jobs.wait(job, 30)).state == "ok"


async def test_who_waits_too_short_gets_the_record_as_it_is(bench: Bench) -> None:
    steps = Steps()
    job = await bench.start(steps.work)

    assert (await bench.jobs.wait(job, 0)).state == "pending"

    steps.may_end.set()
    assert (await bench.jobs.wait(job, 30)).state == "ok"


async def test_a_failure_is_recorded_with_its_code_and_a_bug_without_its_inside(
    bench: Bench,
) -> None:
    async def damaged(job: Job[StoredSnapshot]) -> StoredSnapshot:
        raise CorruptError("pack 7 is damaged")

    async def bug(job: Job[StoredSnapshot]) -> StoredSnapshot:
        raise ValueError("the secret")

    first = await bench.jobs.wait(await bench.start(damaged), 30)
    second = await bench.jobs.wait(await bench.start(bug), 30)

    assert (first.state, first.code, first.reason) == ("failure", "corrupt", "pack 7 is damaged")
    assert (second.state, second.code) == ("failure", "internal")
    assert "secret" not in (second.reason or "")
    assert bench.told[-1] == ("failure", "waiting")


@pytest.mark.fault("R04")
async def test_a_drain_waits_and_then_stops_what_runs_and_what_waits(bench: Bench) -> None:
    steps = Steps()
    jobs = [await bench.start(steps.work) for _ in range(3)]
    await settle()

    await bench.jobs.drain(0)

    for job in jobs:
        record = await bench.jobs.wait(job, 0)
        assert (record.state, record.code, record.reason) == ("failure", "unavailable", STOPPED)
    assert steps.begun == 2
    late = await bench.start(steps.work)
    assert (await bench.jobs.wait(late, 30)).reason == STOPPED


async def test_a_drain_lets_end_what_ends_in_time(bench: Bench) -> None:
    steps = Steps()
    job = await bench.start(steps.work)
    draining = asyncio.create_task(bench.jobs.drain(30))
    await settle()
    steps.may_end.set()

    await draining

    assert (await bench.jobs.wait(job, 0)).state == "ok"


async def test_a_job_whose_record_is_removed_stops_and_does_not_bring_it_back(
    bench: Bench,
) -> None:
    steps = Steps()
    job = await bench.start(steps.work, lease_seconds=0.03)
    await bench.records.remove(job.carried.held)  # which is renewed all the while

    with pytest.raises(ConflictError):
        await bench.jobs.wait(job, 30)

    assert job.should_stop()
    assert await bench.records.tails("s") == []


@pytest.mark.fault("P05")
async def test_a_renewal_of_which_nothing_was_heard_does_not_lose_the_job(bench: Bench) -> None:
    steps = Steps()
    job = await bench.start(steps.work)
    await bench.records.update(job.carried.held, renewed)
    steps.may_end.set()

    record = await bench.jobs.wait(job, 30)

    assert record.state == "ok"
    assert (await read(bench.records, record.key)).record == record


@pytest.mark.fault("I15")
async def test_there_is_a_limit_to_how_many_wait(bench: Bench) -> None:
    steps = Steps()
    for _ in range(MAX_WAITING):
        bench.jobs.check_room()
        await bench.start(steps.work)

    with pytest.raises(RateLimitedError):
        bench.jobs.check_room()

    await bench.jobs.aclose()
    assert bench.jobs.active == 0


class Unreachable(MemoryRecordStore):
    """A store whose changes, once it is away, are never answered."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        super().__init__(monotonic)
        self.is_away = False
        self.is_asked = asyncio.Event()

    async def put(self, key: str, value: bytes, **expectations: Any) -> int:
        if self.is_away:
            self.is_asked.set()
            await asyncio.Event().wait()
        return await super().put(key, value, **expectations)


async def test_whoever_drops_jobs_does_not_wait_for_a_renewal_that_the_store_does_not_answer(
    bench: Bench,
) -> None:
    store = Unreachable(bench.time.monotonic)
    bench = Bench(bench.executor, store)
    await bench.start(Steps().work, lease_seconds=0.03)
    store.is_away = True
    await store.is_asked.wait()

    async with asyncio.timeout(20):
        await bench.jobs.aclose()

    assert bench.jobs.active == 0


async def test_of_jobs_begun_at_once_no_more_begin_than_may_wait(bench: Bench) -> None:
    steps = Steps()

    async def beginning(number: int) -> Job[StoredSnapshot]:
        held = await begin(bench.records, pending("shop", number))
        return bench.jobs.start(held, steps.work)

    begun = await asyncio.gather(
        *(bench.jobs.begin(beginning(number)) for number in range(MAX_WAITING + 20)),
        return_exceptions=True,
    )

    assert bench.jobs.active == MAX_WAITING
    assert sum(isinstance(each, RateLimitedError) for each in begun) == 20
    await bench.jobs.aclose()


@pytest.mark.fault("P19")
async def test_a_job_that_hangs_becomes_a_failure_and_another_gets_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs_module, "STOP_SECONDS", 0.02)
    wakes, steps = threading.Event(), Steps()
    steps.may_end.set()

    with ThreadPoolExecutor(2) as executor:
        bench = Bench(executor, stall_seconds=0.1)

        async def hang(job: Job[StoredSnapshot]) -> StoredSnapshot:
            await bench.jobs.in_thread(lambda: wakes.wait(60))
            await bench.jobs.rewrite(job)
            return msgspec.structs.replace(job.record, state="ok")

        hanging = [await bench.start(hang, lease_seconds=0.06) for _ in range(2)]
        try:
            other = await bench.jobs.wait(await bench.start(steps.work), 30)
            ended = [await bench.jobs.wait(job, 30) for job in hanging]
        finally:
            wakes.set()

    assert other.state == "ok"
    for record in ended:
        found = (record.state, record.code, record.reason)
        assert found == ("failure", "outcome_unknown", NO_PROGRESS)
        assert (await read(bench.records, record.key)).record == record
    assert bench.jobs.active == 0


async def test_a_job_that_was_stopped_cannot_be_written_by_who_wakes_up_in_it(
    bench: Bench,
) -> None:
    steps = Steps()
    job = await bench.start(steps.work)
    await settle()
    job.stop()

    with pytest.raises(Cancelled):
        await bench.jobs.rewrite(job)
    await bench.jobs.wait(job, 30)
    with pytest.raises(Cancelled):
        await bench.jobs.rewrite(job)

    assert (await read(bench.records, job.record.key)).record.reason == STOPPED


async def test_one_record_has_one_job(bench: Bench) -> None:
    steps = Steps()
    job = await bench.start(steps.work)

    assert bench.jobs.start(job.carried.held, steps.work) is job

    steps.may_end.set()
    assert (await bench.jobs.wait(job, 30)).state == "ok"
    assert steps.begun == 1
