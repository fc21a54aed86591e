"""Writes of names that nobody carries on are ended, so that no name stays pending.

The index knows the announcements of all workers. A lease has passed when this worker has itself
seen the announcement for that long, by its own monotonic clock, however often others write
the name meanwhile. The lease of a streamed write is its upload's, which ends it: here only writes
are ended that no upload will end any more.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.errors import ConflictError, HoldfastError
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE, SWEEPS_THAT_COUNT
from holdfast.repository.ledger.observations import Observations
from holdfast.repository.names.record import Announcement, NameRecord, failed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Sequence

    from holdfast.repository.ledger.ledger import Held
    from holdfast.repository.names.index.table import PendingWrite
    from holdfast.repository.names.writes import NameWrites

_REASON: Final = "nobody carried the write on"
type _Announced = tuple[str, str]
"""Op and time of an announcement."""

log = structlog.get_logger(__name__)


class NameLapses:
    """Looks after the announcements of all workers."""

    def __init__(
        self,
        writes: NameWrites,
        pending: Callable[[], Awaitable[Sequence[PendingWrite]]],
        is_live_upload: Callable[[str], Awaitable[bool]],
        *,
        monotonic: Callable[[], float],
        lease_seconds: float,
    ) -> None:
        """``pending`` gives announced writes.

        ``sweep`` is called ``SWEEPS_PER_LEASE`` times in ``lease_seconds``.
        """
        self._writes = writes
        self._pending = pending
        self._is_live_upload = is_live_upload
        self._lease_seconds = lease_seconds
        gap = SWEEPS_THAT_COUNT * lease_seconds / SWEEPS_PER_LEASE
        self._observed = Observations(monotonic, max_gap_seconds=gap)

    async def sweep(self) -> int:
        """End lapsed writes; of how many names."""
        found = await self._pending()
        lapsed: dict[str, set[_Announced]] = {}
        for one in found:
            if self._observed.unchanged_seconds(_key(one), 0) >= self._lease_seconds:
                lapsed.setdefault(one.name, set()).add((one.op, one.at))
        self._observed.keep_only([_key(one) for one in found])
        return sum([await self._end(name, lapsed[name]) for name in lapsed])

    async def _end(self, name: str, lapsed: Container[_Announced]) -> bool:
        try:
            held = await self._writes.look(name)
            ops = [
                one.op
                for one in (held.record.pending if held is not None else ())
                if (one.op, one.at) in lapsed and not await self._is_streamed(one)
            ]
            if held is None or not ops:
                return False
            await self._fail(held, ops)
        except ConflictError:
            return False  # others kept writing: the next time
        except HoldfastError as error:
            log.warning("lapse_not_recorded", kind="name", code=error.code)
            return False
        log.info("lapsed", kind="name", announcements=len(ops))
        return True

    async def _is_streamed(self, one: Announcement) -> bool:
        return one.upload is not None and await self._is_live_upload(one.upload)

    async def _fail(self, held: Held[NameRecord], ops: Sequence[str]) -> None:
        """End each by a write of its own: watchers tell steps apart by their revisions."""
        step = await self._writes.step(held.record.name)
        for op in ops:
            change = partial(failed, op=op, reason=_REASON, step=step)
            held = await self._writes.update(held, change)


def _key(one: PendingWrite) -> str:
    return f"{one.at} {one.op} {one.name}"
