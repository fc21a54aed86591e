"""Logs in memory, as `holdfast.stores.memory` has blobs and records."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.stores.journal_parts import (
    CheckedJournal,
    Waiters,
    checksum_of,
    not_the_last,
    page_up_to_damage,
)
from holdfast.stores.journal_ports import DamagedEntryError, JournalEntry
from holdfast.stores.keys import check_record_key
from holdfast.stores.memory_log import NEVER, Reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from holdfast.stores.journal_parts import Append, Waiter
    from holdfast.stores.journal_ports import JournalPage


@dataclass(slots=True)
class _Row:
    entry: JournalEntry
    checksum: int


class MemoryJournalStore(CheckedJournal, Reachable):
    """A `JournalStore` that lasts as long as the object. Entries have the time of ``clock``."""

    def __init__(self, clock: Callable[[], datetime] = lambda: NEVER) -> None:
        super().__init__()
        self._clock = clock
        self._logs: dict[str, list[_Row]] = {}
        self._last = 0
        self._waiters = Waiters()

    async def _append(self, one: Append) -> int:
        rows = await self._rows(one.log)
        behind = _place(rows, one.expected + 1)
        if behind < len(rows) and rows[behind].entry.message_id == one.message_id:
            return rows[behind].entry.sequence
        if one.expected != (rows[-1].entry.sequence if rows else 0):
            raise not_the_last(one.log)
        if rows and not one.behind_damage:
            _checked(one.log, rows[-1])
        self._last += 1
        entry = JournalEntry(
            sequence=self._last,
            previous=one.expected,
            at=self._clock(),
            message_id=one.message_id,
            value=bytes(one.value),
        )
        self._logs.setdefault(one.log, []).append(_Row(entry, one.checksum))
        self._waiters.tell(one.log, self._last)
        return self._last

    async def last(self, log: str) -> JournalEntry | None:
        """See `JournalStore.last`."""
        rows = await self._rows(log)
        return _checked(log, rows[-1]) if rows else None

    async def first_from(self, log: str, sequence: int) -> JournalEntry | None:
        """See `JournalStore.first_from`."""
        rows = await self._rows(log)
        place = _place(rows, sequence)
        return _checked(log, rows[place]) if place < len(rows) else None

    async def first_since(self, log: str, moment: datetime) -> JournalEntry | None:
        """See `JournalStore.first_since`."""
        rows = await self._rows(log)
        found = next((row for row in rows if row.entry.at >= moment), None)
        return None if found is None else _checked(log, found)

    async def _page(
        self, log: str, after: int, limit: int, max_bytes: int, *, sure: bool
    ) -> JournalPage:
        del sure  # there are no replicas
        rows = await self._rows(log)
        first = _place(rows, after + 1)
        return page_up_to_damage(
            rows[first : first + limit],
            lambda row: _checked(log, row),
            max_bytes=max_bytes,
            is_end=len(rows) <= first + limit,
        )

    async def _end(self, log: str) -> int:
        rows = await self._rows(log)
        return rows[-1].entry.sequence if rows else 0

    async def remove(self, log: str, through: int) -> None:
        """See `JournalStore.remove`."""
        rows = await self._rows(log)
        if kept := rows[_place(rows, through + 1) :]:
            self._logs[log] = list(kept)
        else:
            self._logs.pop(log, None)

    def follow(self, log: str) -> AbstractAsyncContextManager[Waiter]:
        """See `JournalStore.follow`."""
        check_record_key(log)
        return self._waiters.watch(log)

    async def now(self) -> datetime:
        """See `JournalStore.now`."""
        await self._reach()
        return self._clock()

    async def has_little_room(self) -> bool:
        """See `JournalStore.has_little_room`."""
        await self._reach()
        return False

    async def _rows(self, log: str) -> Sequence[_Row]:
        check_record_key(log)
        await self._reach()
        return self._logs.get(log, ())


def _place(rows: Sequence[_Row], sequence: int) -> int:
    """The first row at or behind ``sequence``."""
    return bisect_left(rows, sequence, key=lambda row: row.entry.sequence)


def _checked(log: str, row: _Row) -> JournalEntry:
    entry = row.entry
    if checksum_of(log, entry.previous, entry.message_id, entry.value) != row.checksum:
        raise DamagedEntryError(log, entry.sequence)
    return entry
