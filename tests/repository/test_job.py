"""Jobs that show no sign of life, and those that only seem so."""

from __future__ import annotations

import pytest
from tests.repository.snapshot_records_tools import begin, pending

from holdfast.archive.ports import Progress
from holdfast.repository.ledger.lease import Carried
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.snapshots.job import QUIET_STALL_SECONDS, Job, Stillness
from holdfast.repository.snapshots.record import StoredSnapshot
from holdfast.stores.memory import MemoryRecordStore


@pytest.fixture
async def job() -> Job[StoredSnapshot]:
    """A job that has its place."""
    ledger = Ledger(MemoryRecordStore(lambda: 0.0))
    job = Job(Carried(ledger, await begin(ledger, pending("shop", 1)), lambda _record: None))
    job.is_working = True
    return job


def looks_until_stalled(stillness: Stillness, job: Job[StoredSnapshot], most: int) -> int:
    """How many looks at a job that does nothing it takes; ``most + 1`` if more than ``most``."""
    for number in range(1, most + 1):
        if stillness.is_too_long(job):
            return number
    return most + 1


def test_a_job_may_be_still_for_so_long_and_no_longer(job: Job[StoredSnapshot]) -> None:
    stillness = Stillness(20, 60)

    assert looks_until_stalled(stillness, job, 100) == 4


def test_every_sign_of_life_begins_the_time_anew(job: Job[StoredSnapshot]) -> None:
    stillness = Stillness(20, 60)

    for number in range(10):
        assert looks_until_stalled(stillness, job, 3) == 4
        if number % 2:
            job.report(Progress(phase="restore", entries=number))
        else:
            assert not job.should_stop_working()


def test_a_job_that_waits_for_a_place_may_wait(job: Job[StoredSnapshot]) -> None:
    job.is_working = False

    assert looks_until_stalled(Stillness(20, 60), job, 100) == 101


def test_removing_the_old_tree_may_take_longer(job: Job[StoredSnapshot]) -> None:
    job.report(Progress(phase="remove"))

    looks = looks_until_stalled(Stillness(60, 60), job, 10_000)

    assert looks == QUIET_STALL_SECONDS / 60 + 1
