"""States as any worker sees them: the record of one, and where its log ends, both at one moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.domain.blob_names import check_state_name, name_key
from holdfast.errors import CorruptError, HoldfastError, InvalidError, NotFoundError
from holdfast.repository.ledger.ledger import Held, Ledger
from holdfast.repository.states.logs import DamagedLogError
from holdfast.repository.states.record import (
    STATE,
    StateRecord,
    closed,
    finders_beside,
    reached,
    with_log,
)
from holdfast.repository.states.totals import StateTotals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.repository.states.ends import SeenEnd
    from holdfast.repository.states.logs import LogEnd, StateLogs
    from holdfast.repository.states.record import Closing
    from holdfast.sources import Sources
    from holdfast.stores.record_ports import Change, RecordStore

MISSING: Final = "there is no state of that name"
_REST: Final = 3.0
"""Between two ends that are written down, as a multiple of what a write takes."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentState:
    """A state as it is: its record, if there ever was one; the end of its log, if it has one."""

    held: Held[StateRecord] | None
    end: LogEnd | None

    @property
    def record(self) -> StateRecord:
        """Its record. Raises NotFoundError where there is no state."""
        if self.held is None or not self.held.record.exists:
            raise NotFoundError(MISSING)
        return self.held.record

    @property
    def index(self) -> int:
        """The index of its last command; 0 where it has no log."""
        return 0 if self.end is None else self.end.place.index


class StateRecords:
    """The records of states, and the ends of their logs."""

    def __init__(self, records: RecordStore, logs: StateLogs, *, sources: Sources) -> None:
        """``records`` are those of the states, ``logs`` theirs."""
        self.logs = logs
        self.totals = StateTotals()
        self.ledger = Ledger(records)
        self._records = records
        self._sources = sources

    async def find(self, name: str) -> Held[StateRecord] | None:
        """The record of ``name``, or None where there never was one. Raises InvalidError."""
        check_state_name(name)
        return await self.ledger.find(STATE, name_key(name))

    async def look(
        self, name: str, *, to_read: bool = False, told: SeenEnd | None = None
    ) -> PresentState:
        """The state as a believed leader knows it.

        A closing of its log is carried out before. ``told`` is what somebody says to have read of a
        log. Raises CorruptError where the log is not what is known of it, but not of a damaged end
        ``to_read`` what is before (see `DamagedLogError`); InvalidError where it ends before what
        was ``told`` alone.
        """
        held = await self.find(name)
        while True:
            try:
                end = await self._end(name, held, told)
            except (CorruptError, InvalidError) as error:
                again = await self.find(name)
                if _revision(again) == _revision(held):
                    if to_read and isinstance(error, DamagedLogError) and _has_log(held):
                        return PresentState(held=held, end=error.end)
                    raise
                held = again
                continue
            if held is None or end is None or end.closing is None:
                return PresentState(held=held, end=end)
            held = await self.carry_out(held, end.closing, end.place.sequence)

    async def _end(
        self, name: str, held: Held[StateRecord] | None, told: SeenEnd | None
    ) -> LogEnd | None:
        """None where the state has no log: then there are no groups either."""
        record = held.record if held is not None else StateRecord(name=name)
        lineage, index = told or ("", 0)
        end = await self.logs.end(record, told=index if lineage == record.lineage else 0)
        return end if record.log else None

    async def carry_out(
        self, held: Held[StateRecord], closing: Closing, sequence: int
    ) -> Held[StateRecord]:
        """Have the record say what was written at ``sequence`` of its log to end that."""
        of_log = held.record.log
        return await self.update(held, lambda record: closed(record, of_log, closing, sequence))

    async def begin_log(self, name: str) -> Held[StateRecord]:
        """The record with a log, where there was none with a new one."""
        return await self.change(name, partial(with_log, name=name, log=self._sources.new_id()))

    async def write_ends_down(self) -> None:
        """Have the records say how far their logs are known to go.

        Between two there is a rest, so that appends go on beside it. Raises UnavailableError and
        the like where some could not be written: those are tried again.
        """
        failure: HoldfastError | None = None
        loop = asyncio.get_running_loop()
        for name, seen in self.logs.ends.all():
            began = loop.time()
            try:
                await self._write_end_down(name, seen)
            except CorruptError:  # those who read the records tell of it
                log.warning("end_not_written_down", name=name)
            except HoldfastError as error:
                failure = error
                continue
            self.logs.ends.forget(name, seen)
            await asyncio.sleep(_REST * (loop.time() - began))
        if failure is not None:
            raise failure

    async def _write_end_down(self, name: str, seen: SeenEnd) -> None:
        lineage, index = seen
        held = await self.find(name)
        if held is not None:
            await self.update(held, partial(reached, lineage=lineage, index=index))

    async def change(
        self, name: str, change: Callable[[StateRecord | None], StateRecord]
    ) -> Held[StateRecord]:
        """The record as ``change`` makes it, whether there is one or not. As `Ledger.update`."""
        held = await self.find(name)
        if held is None:
            return await self.ledger.make(STATE, name_key(name), change, beside=_finders)
        return await self.update(held, change)

    async def update(
        self, held: Held[StateRecord], change: Callable[[StateRecord], StateRecord]
    ) -> Held[StateRecord]:
        """As `Ledger.update`, with the finders from blobs to the states that have them."""
        return await self.ledger.update(held, change, beside=_finders)

    async def keys(self, prefix: str) -> list[str]:
        """The keys below the tokens of ``prefix``, which are those of states."""
        return await self._records.list_keys(prefix)


async def _finders(before: Held[StateRecord] | None, after: Held[StateRecord]) -> Sequence[Change]:
    return finders_beside(None if before is None else before.record, after.record)


def _has_log(held: Held[StateRecord] | None) -> bool:
    return held is not None and bool(held.record.log)


def _revision(held: Held[StateRecord] | None) -> int:
    return 0 if held is None else held.revision
