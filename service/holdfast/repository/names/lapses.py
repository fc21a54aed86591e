"""Writes of names that nobody carries on are ended, so that no name stays pending.

Which names have announcements the index knows, of all workers' names. A lease has passed when this
worker has itself seen the record unchanged for that long, by its own monotonic clock. The lease of
a streamed write is its upload's, which ends it: here only what no upload will end any more is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from holdfast.errors import ConflictError, HoldfastError
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE, SWEEPS_THAT_COUNT
from holdfast.repository.ledger.observations import Observations
from holdfast.repository.names.record import failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.repository.ledger.ledger import Held
    from holdfast.repository.names.index.table import PendingName
    from holdfast.repository.names.record import NameRecord
    from holdfast.repository.names.writes import NameWrites

_REASON: Final = "nobody carried the write on"
log = structlog.get_logger(__name__)


class NameLapses:
    """Looks after the announcements of all workers."""

    def __init__(
        self,
        writes: NameWrites,
        pending: Callable[[], Awaitable[Sequence[PendingName]]],
        is_live_upload: Callable[[str], Awaitable[bool]],
        *,
        monotonic: Callable[[], float],
        lease_seconds: float,
    ) -> None:
        """``pending`` gives the names that have announcements.

        ``sweep`` is called ``SWEEPS_PER_LEASE`` times in ``lease_seconds``.
        """
        self._writes = writes
        self._pending = pending
        self._is_live_upload = is_live_upload
        self._lease_seconds = lease_seconds
        gap = SWEEPS_THAT_COUNT * lease_seconds / SWEEPS_PER_LEASE
        self._observed = Observations(monotonic, max_gap_seconds=gap)

    async def sweep(self) -> int:
        """End what has lapsed; of how many names."""
        found = await self._pending()
        ended = 0
        for one in found:
            unchanged = self._observed.unchanged_seconds(one.name, one.revision)
            if unchanged >= self._lease_seconds:
                ended += await self._end(one)
        self._observed.keep_only([one.name for one in found])
        return ended

    async def _end(self, one: PendingName) -> bool:
        try:
            held = await self._writes.look(one.name)
            if held is None or held.revision != one.revision:
                return False  # the index has not heard of it yet
            ops = [
                announced.op
                for announced in held.record.pending
                if announced.upload is None or not await self._is_live_upload(announced.upload)
            ]
            if not ops:
                return False
            await self._take(held, ops)
        except ConflictError:
            return False  # it is alive, or another worker was quicker
        except HoldfastError as error:
            log.warning("lapse_not_recorded", kind="name", code=error.code)
            return False
        log.info("lapsed", kind="name", announcements=len(ops))
        return True

    async def _take(self, held: Held[NameRecord], ops: Sequence[str]) -> None:
        step = await self._writes.step(held.record.name)

        def change(record: NameRecord) -> NameRecord:
            for op in ops:
                record = failed(record, op, _REASON, step)
            return record

        await self._writes.ledger.take(held, change)
