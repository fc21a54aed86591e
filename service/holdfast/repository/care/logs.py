"""The logs of states as a scrub reads them back: whole, command by command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import ConflictError, CorruptError, InvalidError, NotFoundError
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.states.record import STATE
from holdfast.repository.states.replays import ENTRY_BYTES, Replays
from holdfast.stores.journal_ports import MAX_PAGE_ENTRIES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from holdfast.stores.record_ports import RecordStore


class StateLogsBack:
    """Reads the logs of states."""

    def __init__(self, records: RecordStore, replays: Replays) -> None:
        """``records`` are those of states, ``replays`` those of this worker."""
        self._records = records
        self._ledger = Ledger(records)
        self._replays = replays

    async def keys(self) -> Sequence[str]:
        """The keys of the records of all states ever made, in order. Raises UnavailableError."""
        return await self._records.list_keys(STATE.prefix)

    async def pages(self, key: str, index: int = 0) -> AsyncGenerator[tuple[int, int]]:
        """Read the log of the state whose record is at ``key``, from the command ``index`` on.

        After each page comes what it weighs, in bytes, and the command to go on with. Where the log
        is trimmed meanwhile, what is left is read. If it is repaired or removed meanwhile the rest
        is for the next lap, and so is what is appended. A record that cannot be read is passed
        over: it is told where records are read. Raises CorruptError with the index at which the
        log is damaged, UnavailableError.
        """
        try:
            record = (await self._ledger.get(STATE, STATE.name_at(key))).record
        except (NotFoundError, CorruptError):
            return
        index, last, lineage = max(index, record.trimmed_through + 1), None, None
        while record.log and (last is None or index <= last):
            try:
                page = await self._replays.page(
                    record.name, index, MAX_PAGE_ENTRIES, lineage=lineage
                )
            except NotFoundError as error:
                if error.index is None or error.index <= index:
                    return
                index = error.index
                continue
            except (ConflictError, InvalidError):
                return
            index, lineage = page.next_index, page.lineage
            last = page.last if last is None else last
            yield sum([entry.command.size + ENTRY_BYTES for entry in page.entries]), index
