"""Pending records that nobody works on any more become failures.

Every worker looks; none needs to be told that another died. A lease has passed when this worker
has itself seen the record unchanged for that long, by its own monotonic clock. What this worker is
itself at work on it never gives up: it would know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import structlog

from holdfast.errors import ConflictError, HoldfastError, OutcomeUnknownError
from holdfast.repository.observations import Observations
from holdfast.repository.snapshot_record import record_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from holdfast.repository.snapshot_record import Stored, StoredT
    from holdfast.repository.snapshot_records import Held, SnapshotRecords

WORKER_STOPPED = "its worker stopped"
CLIENT_STOPPED = "the client stopped"

SWEEPS_THAT_COUNT = 2
"""Between two looks at a record, so many intervals of sweeps count as time that it was seen."""

log = structlog.get_logger(__name__)


class Lapses:
    """Looks after the pending records of all workers."""

    def __init__(
        self,
        records: SnapshotRecords,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        sweep_seconds: float,
        is_active: Callable[[Stored], bool],
    ) -> None:
        """``monotonic`` gives seconds that only rise; ``sweep`` is called every ``sweep_seconds``.

        ``is_active`` says of a record whether a job of this worker makes it.
        """
        self._records = records
        self._clock = clock
        self._is_active = is_active
        self._observed = Observations(monotonic, max_gap_seconds=SWEEPS_THAT_COUNT * sweep_seconds)

    async def sweep(self) -> int:
        """Give up what has lapsed; how many. To be called a few times in each lease."""
        snapshots = await self._records.pending_snapshots()
        restores = await self._records.pending_restores()
        given_up = 0
        for snapshot in self._lapsed(snapshots):
            given_up += await self._give_up(snapshot)
        for restore in self._lapsed(restores):
            given_up += await self._give_up(restore)
        keys = [record_key(held.record) for held in snapshots]
        self._observed.keep_only([*keys, *(record_key(held.record) for held in restores)])
        return given_up

    def _lapsed(self, pending: list[Held[StoredT]]) -> list[Held[StoredT]]:
        """Those of ``pending`` that this worker has seen unchanged for their lease."""
        return [
            held
            for held in pending
            if self._observed.unchanged_seconds(record_key(held.record), held.revision)
            >= held.record.lease.seconds
            and not self._is_active(held.record)
        ]

    async def _give_up(self, held: Held[StoredT]) -> bool:
        failed = msgspec.structs.replace(
            held.record,
            state="failure",
            code=OutcomeUnknownError.code,
            reason=WORKER_STOPPED if held.record.lease.owner else CLIENT_STOPPED,
            finished_at=self._clock().isoformat(),
        )
        try:
            await self._records.end(held, failed)
        except ConflictError:
            return False  # it is alive, or another worker was quicker
        except HoldfastError as error:
            log.warning("lapse_not_recorded", id=failed.id, code=error.code)
            return False
        log.info("lapsed", id=failed.id, reason=failed.reason)
        return True
