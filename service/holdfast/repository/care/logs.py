"""The logs of states as a scrub reads them back: whole, command by command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.repository.states.record import STATE
from holdfast.repository.states.replays import ENTRY_BYTES
from holdfast.stores.journal_ports import MAX_PAGE_ENTRIES
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from holdfast.repository.states.record import StateRecord
    from holdfast.repository.states.replays import Replays
    from holdfast.stores.ports import Spending


class StateLogsBack:
    """Reads the log of a state whose record was met."""

    def __init__(self, replays: Replays) -> None:
        """``replays`` are those of this worker."""
        self._replays = replays

    async def read_back(self, key: str, value: bytes, spend: Spending) -> None:
        """Read the log of the record ``value`` at ``key``; ``spend`` is told of the bytes.

        Where it is trimmed meanwhile, it goes on with what is left. Of a log that is repaired or
        removed meanwhile the rest is for the next lap, and so is what is appended. Raises
        CorruptError with the index at which it is damaged, UnavailableError, and whatever ``spend``
        does.
        """
        if not key.startswith(f"{STATE.prefix}."):
            return
        record = STATE.read(Record(key=key, value=value, revision=1)).record
        if record.log:
            await self._read(record, spend)

    async def _read(self, record: StateRecord, spend: Spending) -> None:
        index, last = record.trimmed_through + 1, None
        while last is None or index <= last:
            try:
                page = await self._replays.page(
                    record.name, index, MAX_PAGE_ENTRIES, lineage=record.lineage
                )
            except NotFoundError as error:
                if error.index is None or error.index <= index:
                    return
                index = error.index
                continue
            except (ConflictError, InvalidError):
                return
            await spend(sum([entry.command.size + ENTRY_BYTES for entry in page.entries]))
            index = page.next_index
            last = page.last if last is None else last
