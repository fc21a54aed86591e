"""Work that takes longer than a request: it has a pending record, a lease and an end.

A job renews its record for as long as it runs, so that others see that somebody works on it, and
ends it once, as ``ok`` or as ``failure``. Those who wait for it get the record. When the record
was removed, or another worker gave the job up, it stops, and what it made stays unseen. A job
that shows no sign of life is not renewed for ever: it is given up, and others get its place.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from holdfast.archive.ports import Cancelled, Progress
from holdfast.deadline import look_at, outliving_task
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InternalError,
    OutcomeUnknownError,
    RateLimitedError,
)
from holdfast.repository.ledger.lease import RENEWALS_PER_LEASE, Carried
from holdfast.repository.snapshots.job import STALL_SECONDS, Job, Stillness
from holdfast.repository.snapshots.record import StoredT, StoredWork, failed, is_pending, renewed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Executor
    from datetime import datetime

    from holdfast.repository.ledger.ledger import Held, Ledger

PROGRESS_SECONDS: Final = 0.25
"""Seconds between two publications of a job's progress."""

MAX_WAITING: Final = 256
"""Jobs of one worker, waiting ones included."""

STOP_SECONDS: Final = 5.0
"""Seconds for a job told to stop to say how it ended."""

STOPPED: Final = "the worker stopped"
NO_PROGRESS: Final = "it made no progress"

log = structlog.get_logger(__name__)


type Work[RecordT] = Callable[[Job[RecordT]], Awaitable[RecordT]]
"""Makes what a job's record is of; the record as it is to be at the end."""


class Jobs:
    """The jobs of one worker: ``max_jobs`` at a time, the others wait with their records pending.

    ``announce`` is told of progress, at most four times a second and once at the end.
    """

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        *,
        max_jobs: int,
        clock: Callable[[], datetime],
        announce: Callable[[StoredWork, Progress], None],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """``executor`` runs blocking work; it has more than ``max_jobs`` threads.

        A job that shows no sign of life for ``stall_seconds`` is stopped; a thread of it that
        does not even hear that stays behind.
        """
        self._ledger = ledger
        self._executor = executor
        self._places = asyncio.Semaphore(max_jobs)
        self._clock = clock
        self._announce = announce
        self._stall_seconds = stall_seconds
        self._jobs: dict[str, Job[Any]] = {}
        self._beginnings: set[asyncio.Task[Any]] = set()
        self._draining = False

    @property
    def active(self) -> int:
        """The number of jobs, waiting ones included."""
        return len(self._jobs)

    def check_room(self) -> None:
        """Raises RateLimitedError when there are as many jobs as may wait."""
        if len(self._jobs) + len(self._beginnings) >= MAX_WAITING:
            raise RateLimitedError("too many archives and restores wait for this worker")

    def has(self, key: str) -> bool:
        """Whether a job of this worker makes what the record at ``key`` is of."""
        return key in self._jobs

    async def begin[T](self, beginning: Coroutine[Any, Any, T]) -> T:
        """The result of what writes a record and starts its job.

        It goes on when who asked for it goes away: no record is left without its job. It keeps the
        request's deadline, so that without a quorum it can be said that nothing was begun. Raises
        RateLimitedError as `check_room`, of which others may have made use meanwhile.
        """
        try:
            self.check_room()
        except RateLimitedError:
            beginning.close()
            raise
        task = asyncio.create_task(beginning)
        self._beginnings.add(task)
        task.add_done_callback(self._beginnings.discard)
        task.add_done_callback(look_at)  # told to who asked, who may be gone
        return await asyncio.shield(task)

    async def do(
        self,
        begin: Callable[[], Awaitable[tuple[Held[StoredT], bool]]],
        work: Work[StoredT],
        *,
        owner: str,
        wait_seconds: float,
    ) -> StoredT:
        """Do ``work``; the record at its end, or after ``wait_seconds`` as it is then.

        ``begin`` gives the pending record, and whether it is there from an earlier request: that
        is taken up where the answer to its beginning was lost, and only told otherwise. ``owner``
        is this worker. Raises as `begin` and `wait`.
        """

        async def begin_or_take_up() -> Held[StoredT] | Job[StoredT]:
            held, is_repeated = await begin()
            if not is_repeated:
                return self.start(held, work)
            is_ours = held.is_live and held.record.lease.owner == owner
            if not is_ours or self.has(held.key):
                return held
            try:
                return self.start(await self._ledger.take(held, renewed), work)
            except ConflictError:  # it went on meanwhile
                return await self._ledger.reread(held)

        begun = await self.begin(begin_or_take_up())
        return await self.wait(begun, wait_seconds) if isinstance(begun, Job) else begun.record

    def start(self, held: Held[StoredT], work: Work[StoredT]) -> Job[StoredT]:
        """Begin ``work``, which gives the record as it is at the end; returns at once.

        Nothing is begun while a job makes the same: it is that.
        """
        present: Job[StoredT] | None = self._jobs.get(held.key)
        if present is not None:
            return present
        check_ours = partial(_check_owner, held.record.lease.owner)
        job = Job(Carried(self._ledger, held, check_ours, is_patient=True))
        self._jobs[held.key] = job
        if self._draining:
            job.stop()
        job.task = outliving_task(self._run(job, work))
        job.task.add_done_callback(lambda _: self._forget(job))  # it may never have begun
        return job

    def _forget(self, job: Job[Any]) -> None:
        key = job.carried.held.key
        if self._jobs.get(key) is job:
            del self._jobs[key]

    async def wait(self, job: Job[StoredT], seconds: float) -> StoredT:
        """The record at the end, or after ``seconds`` as it is then.

        Raises ConflictError when the record was removed or given up meanwhile.
        """
        if job.task is not None:
            await asyncio.wait([job.task], timeout=max(seconds, 0))
        if job.lost is not None:
            raise job.lost
        return job.record

    async def in_thread[T](self, function: Callable[[], T]) -> T:
        """The result of a function that blocks, which must end when the job is told to stop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, function)

    async def rewrite(self, job: Job[StoredT], **changes: Any) -> None:
        """Change fields of the job's record.

        Raises ConflictError when it is not ours any more, Cancelled when the job is to stop.
        """
        async with job.turn:
            if job.lost is not None:
                raise job.lost
            if job.should_stop() or not is_pending(job.record):
                raise Cancelled
            await self._write(job, lambda record: _at(record, job.progress, **changes))

    def cancel(self, key: str) -> None:
        """Stop this worker's job for the record at ``key``, which was removed."""
        if key in self._jobs:
            self._jobs[key].stop()

    async def drain(self, seconds: float) -> None:
        """Let jobs end for ``seconds``; those still running then are stopped and end as failure."""
        tasks = self._tasks()
        self._draining = True
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for job in list(self._jobs.values()):
            job.stop()
        tasks = self._tasks()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)

    def _tasks(self) -> list[asyncio.Task[Any]]:
        jobs = [job.task for job in self._jobs.values() if job.task is not None]
        return [*self._beginnings, *jobs]

    async def aclose(self) -> None:
        """Drop running jobs. Their records stay pending, for others to give up."""
        self._draining = True
        tasks = self._tasks()
        for job in self._jobs.values():
            job.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- one job ---

    async def _run(self, job: Job[StoredT], work: Work[StoredT]) -> None:
        renewing = asyncio.create_task(self._renew(job))
        publishing = asyncio.create_task(self._publish(job))
        try:
            try:
                final = await self._outcome(job, work)
                async with job.turn:  # a renewal that is under way must tell its revision
                    renewing.cancel()
            finally:
                # Who drops the job waits for none: it may take as long as the store is away.
                renewing.cancel()
                publishing.cancel()
                await asyncio.gather(renewing, publishing, return_exceptions=True)
            await self._end(job, final)
        finally:
            self._forget(job)

    async def _outcome(self, job: Job[StoredT], work: Work[StoredT]) -> StoredT:
        """The record as it is to be in the end."""
        try:
            await self._wait_place(job)
            job.is_working = True
            try:
                return await self._unless_stalled(job, work)
            finally:
                self._places.release()
        except Cancelled:
            return self._failure(job, "unavailable", STOPPED)
        except HoldfastError as error:
            return self._failure(job, error.code, error.detail)
        except Exception:
            log.exception("job_failed", id=job.record.id)
            return self._failure(job, InternalError.code, InternalError.title)

    async def _unless_stalled(self, job: Job[StoredT], work: Work[StoredT]) -> StoredT:
        """The result of ``work``. Raises OutcomeUnknownError when it shows no sign of life."""
        working = asyncio.ensure_future(work(job))
        stalled = asyncio.create_task(job.stalled.wait())
        try:
            await asyncio.wait([working, stalled], return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                log.warning("job_stalled", id=job.record.id, phase=job.progress.phase)
                job.stop()
                await asyncio.wait([working], timeout=STOP_SECONDS)
            if job.stalled.is_set() and (not working.done() or working.exception()):
                raise OutcomeUnknownError(NO_PROGRESS)
            return working.result()
        finally:
            stalled.cancel()
            working.cancel()
            await asyncio.gather(working, stalled, return_exceptions=True)

    async def _wait_place(self, job: Job[StoredT]) -> None:
        """Raises Cancelled when told to stop while waiting."""
        place = asyncio.create_task(self._places.acquire())
        stopped = asyncio.create_task(job.wait_stopped())
        try:
            await asyncio.wait([place, stopped], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            place.cancel()
            raise
        finally:
            stopped.cancel()
        if job.should_stop():
            place.cancel()
            with suppress(asyncio.CancelledError):
                await place
                self._places.release()
            raise Cancelled
        await place

    async def _end(self, job: Job[StoredT], final: StoredT) -> None:
        """Write the end. In no case is a record left that says more than is known."""
        if job.lost is not None:
            return
        try:
            async with job.turn:
                await self._write(job, lambda _: final)
        except ConflictError:
            return
        except HoldfastError as error:
            # Still pending: the sweep of pending records gives it up.
            log.warning("job_end_not_recorded", id=job.record.id, code=error.code)
            return
        log.info(
            "job_ended", id=job.record.id, state=job.record.state, code=job.record.code or "ok"
        )
        self._announce(job.record, job.progress)

    async def _renew(self, job: Job[StoredT]) -> None:
        """Change the record a few times in each lease, until the job is still for too long."""
        interval_seconds = job.record.lease.seconds / RENEWALS_PER_LEASE
        stillness = Stillness(interval_seconds, self._stall_seconds)
        while True:
            await asyncio.sleep(interval_seconds)
            if stillness.is_too_long(job):
                job.stalled.set()
                return
            try:
                async with job.turn:
                    if job.lost is None:
                        await self._write(job, lambda record: _at(record, job.progress))
            except HoldfastError as error:
                if job.lost is None:
                    log.warning("job_not_renewed", id=job.record.id, code=error.code)

    async def _write(self, job: Job[StoredT], change: Callable[[StoredT], StoredT]) -> None:
        """Change the job's record. Raises ConflictError: it is lost, and writes nothing more."""
        try:
            await job.carried.renew(change)
        except ConflictError as error:
            noun = job.carried.held.kind.noun
            job.lost = ConflictError(f"the {noun} was removed or given up meanwhile")
            job.lost.__cause__ = error
            job.stop()
            log.info("job_lost", id=job.record.id)
            raise

    async def _publish(self, job: Job[StoredT]) -> None:
        told: Progress | None = None
        while True:
            if job.progress != told:
                told = job.progress
                self._announce(job.record, told)
            await asyncio.sleep(PROGRESS_SECONDS)

    def _failure(self, job: Job[StoredT], code: str, reason: str) -> StoredT:
        return failed(job.record, code, reason, self._clock())


def _at(record: StoredT, progress: Progress, **changes: Any) -> StoredT:
    """``record`` with ``changes``, at ``progress``."""
    totals = msgspec.structs.replace(
        record.totals,
        entries=progress.entries,
        size=progress.bytes,
        added=progress.stored_bytes,
    )
    return msgspec.structs.replace(record, **({"totals": totals} | changes))


def _check_owner(owner: str, record: StoredWork) -> None:
    if record.lease.owner != owner:
        raise ConflictError("the record is another worker's")
