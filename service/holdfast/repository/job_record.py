"""What a job writes of itself: renewals, what it finds, its end.

All of it is compare-and-set. A job whose record was removed or given up by another is lost: it
stops, and writes nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from holdfast.errors import ConflictError
from holdfast.repository.snapshot_record import noun_of

if TYPE_CHECKING:
    from holdfast.repository.job import Job
    from holdfast.repository.snapshot_record import StoredT
    from holdfast.repository.snapshot_records import SnapshotRecords

log = structlog.get_logger(__name__)


class JobRecords:
    """The records of jobs. Whoever calls has the job's ``turn``."""

    def __init__(self, records: SnapshotRecords) -> None:
        """Where they are."""
        self._records = records

    async def end(self, job: Job[StoredT], final: StoredT) -> None:
        """Write the end. Raises ConflictError: it is lost; and what the store raises."""
        try:
            try:
                job.held = await self._records.end(job.held, final)
            except ConflictError:
                await self._look(job)
                job.held = await self._records.end(job.held, final)
        except ConflictError as error:
            self._lose(job, error)
            raise

    async def rewrite(self, job: Job[StoredT], **changes: Any) -> None:
        """Change fields of the job's record, and renew it. Raises ConflictError: it is lost."""
        lease = msgspec.structs.replace(job.record.lease, beat=job.record.lease.beat + 1)
        progress = job.progress
        totals = msgspec.structs.replace(
            job.record.totals,
            entries=progress.entries,
            size=progress.bytes,
            added=progress.stored_bytes,
        )
        record = msgspec.structs.replace(
            job.record, **({"lease": lease, "totals": totals} | changes)
        )
        try:
            try:
                job.held = await self._records.rewrite(job.held, record)
            except ConflictError:
                await self._look(job)
                job.held = await self._records.rewrite(job.held, record)
        except ConflictError as error:
            self._lose(job, error)
            raise

    async def _look(self, job: Job[StoredT]) -> None:
        """Raises ConflictError unless the record is still ours.

        Its revision may have changed all the same, by a write of ours of which nothing was heard.
        """
        present = await self._records.reread(job.held)
        is_ours = present.record.lease.owner == job.record.lease.owner
        if present.record.state != "pending" or not is_ours:
            msg = "the record has changed"
            raise ConflictError(msg)
        job.held = present

    def _lose(self, job: Job[StoredT], cause: ConflictError) -> None:
        job.lost = ConflictError(f"the {noun_of(job.record)} was removed or given up meanwhile")
        job.lost.__cause__ = cause
        job.stop()
        log.info("job_lost", id=job.record.id)
