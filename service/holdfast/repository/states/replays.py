"""Commands of a log, read: pages, and new ones as they come.

Any replica may tell commands. The end of a log is the word of a believed leader.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.blob_names import name_key
from holdfast.errors import CorruptError, InvalidError, NotFoundError
from holdfast.repository.states.groups import Group, LoggedCommand, decode_group, entries_of
from holdfast.repository.states.logs import LogPlace, beginning
from holdfast.repository.states.record import Lineage, StateRecord, check_same
from holdfast.stores.journal_ports import MAX_PAGE_ENTRIES, Growth

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from holdfast.repository.states.places import CommandPlaces
    from holdfast.repository.states.states import PresentState, StateRecords

ENTRY_BYTES: Final = 160
"""Bytes of a page for a command beside itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSlice:
    """Commands of a log, without gaps; the log had those from ``first`` to ``last`` then."""

    entries: Sequence[LoggedCommand]
    next_index: int
    first: int
    last: int
    lineage: Lineage


class Replays:
    """Reads the logs of states."""

    def __init__(self, states: StateRecords, places: CommandPlaces, *, max_bytes: int) -> None:
        """``max_bytes`` is what one message may carry of commands."""
        self._states = states
        self._places = places
        self._max_bytes = max_bytes

    async def page(
        self, name: str, index: int, limit: int, *, lineage: Lineage | None = None
    ) -> LogSlice:
        """Up to ``limit`` commands from ``index`` on, as many as fit a message, at least one.

        ``lineage`` is of the log that those before were read from. Raises ConflictError (they are
        not in the log any more), NotFoundError (no such state; below what the log has, with its
        first), InvalidError (beyond the log), CorruptError with the index at which it is damaged.
        """
        while True:
            present, span = await _look(self._states, name, index, lineage)
            try:
                return await self._page(present, span, index, limit)
            except CorruptError:
                if (await self._states.look(name)).held == present.held:
                    raise

    async def tell(
        self, name: str, index: int, limit: int, *, lineage: Lineage | None = None
    ) -> LogSlice:
        """A `page` that somebody asked for: it is counted."""
        found = await self.page(name, index, limit, lineage=lineage)
        self._states.totals.replays += 1
        return found

    async def _page(
        self, present: PresentState, span: tuple[int, int], index: int, limit: int
    ) -> LogSlice:
        record, (first, last) = present.record, span
        stop = min(last, index + limit - 1)
        entries: list[LoggedCommand] = []
        if present.end is not None and index <= last:
            place = await self._places.before(record, index, present.end.place)
            read = _Filling(index, stop, self._max_bytes)
            try:
                await self._read(record, place, read)
            except CorruptError as error:
                if not read.entries:
                    msg = f"the log is damaged at command {index}: {error.detail}"
                    raise CorruptError(msg, index=index) from error
            entries = read.entries
        next_index = entries[-1].index + 1 if entries else index
        return LogSlice(
            entries=entries,
            next_index=next_index,
            first=first,
            last=last,
            lineage=record.lineage,
        )

    async def _read(self, record: StateRecord, place: LogPlace, read: _Filling) -> None:
        """Fill ``read`` from the groups behind ``place``. Raises CorruptError at a break."""
        sure = is_full = False
        while read.next_index <= read.stop and not is_full:
            limit = min(read.stop - place.index, MAX_PAGE_ENTRIES)
            page = await self._states.logs.page(
                record, place, decode_group, limit=limit, max_bytes=max(read.left, 1), sure=sure
            )
            for sequence, group in page.groups:
                is_full = read.take(group)
                if read.next_index <= group.last:
                    break
                place = LogPlace(sequence, group.last)
            if page.is_end and sure and read.next_index <= read.stop and not is_full:
                msg = f"the log does not have command {read.next_index}: see `state repair`"
                raise CorruptError(msg, index=read.next_index)
            sure = page.is_end  # by the word of a replica that lags
        self._places.note(record, read.next_index, place)

    async def check(self, name: str, index: int, *, lineage: Lineage | None = None) -> None:
        """Whether the log can be read from ``index`` on. Raises as `page`."""
        await _look(self._states, name, index, lineage)

    @asynccontextmanager
    async def follow(
        self, name: str, index: int, *, lineage: Lineage | None = None
    ) -> AsyncIterator[Following]:
        """The commands from ``index`` on, as they come. ``lineage`` is as of `page`."""
        async with self._states.logs.journal.follow(name_key(name)) as growth:
            self._states.totals.followers += 1
            try:
                yield Following(self._states, self._places, name, index, growth, lineage=lineage)
            finally:
                self._states.totals.followers -= 1


class _Filling:
    """The commands from ``index`` to ``stop``, to what fits ``left`` bytes; one at least."""

    def __init__(self, index: int, stop: int, left: int) -> None:
        self.next_index = index
        self.left = left
        self.entries: list[LoggedCommand] = []
        self.stop = stop

    def take(self, group: Group) -> bool:
        """Those of ``group``; whether nothing more fits."""
        for entry in entries_of(group, self.next_index):
            self.left -= entry.command.size + ENTRY_BYTES
            if entry.index > self.stop or (self.left < 0 and self.entries):
                return True
            self.entries.append(entry)
            self.next_index = entry.index + 1
        return self.left <= 0


class Following:
    """A reader of a log as it grows."""

    def __init__(
        self,
        states: StateRecords,
        places: CommandPlaces,
        name: str,
        index: int,
        growth: Growth,
        *,
        lineage: Lineage | None,
    ) -> None:
        self._states = states
        self._places = places
        self._name = name
        self._growth = growth
        self._record: StateRecord | None = None
        self._place: LogPlace | None = None
        self._is_damaged = False
        self._session: object = None
        self.next_index = index
        self.lineage = lineage

    async def next(self, seconds: float, max_bytes: int) -> list[LoggedCommand]:
        """Further commands, whole groups of them; none where none come within ``seconds``.

        Raises NotFoundError where they are not there any more, ConflictError where what was told
        was taken back by a repair, CorruptError.
        """
        entries = await self._read(max_bytes, sure=False)
        if not entries and self._place is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._growth.wait(self._place.sequence)
                    entries = await self._read(max_bytes, sure=True)
        return entries

    async def _read(self, max_bytes: int, *, sure: bool) -> list[LoggedCommand]:
        record, place = await self._placed()
        try:
            page = await self._states.logs.page(
                record, place, decode_group, max_bytes=max_bytes, sure=sure
            )
            entries = [
                entry for _, group in page.groups for entry in entries_of(group, self.next_index)
            ]
        except CorruptError:
            await self._look_again(record)
            return []
        if self._is_damaged and not page.groups:
            await self._look_again(record)
            return []
        if page.groups and page.groups[-1][1].closing is not None:
            await self._look_again(record)  # it says which of them count
            return []
        self._place = page.place
        self.next_index = max(self.next_index, page.place.index + 1)
        return entries

    async def _placed(self) -> tuple[StateRecord, LogPlace]:
        """The log's record and the place read, looked up if unknown, or perhaps cut off."""
        session = self._states.logs.journal.session
        if self._session is not session:
            self._session, self._place = session, None
        while self._record is None or self._place is None:
            present, (_, last) = await _look(
                self._states, self._name, self.next_index, self.lineage
            )
            record = present.record
            self.lineage = record.lineage
            place, self._is_damaged = beginning(record), False
            if present.end is not None:
                place, self._is_damaged = present.end.place, present.end.is_damaged
                if self.next_index <= last:
                    try:
                        place = await self._places.before(record, self.next_index, place)
                    except CorruptError:
                        await self._look_again(record)
                        continue
            self._record, self._place = record, place
        return self._record, self._place

    async def _look_again(self, record: StateRecord) -> None:
        """The log is not as the record says. Raises CorruptError where nobody has changed that."""
        present = await self._states.look(self._name)
        if present.held is not None and present.held.record == record:
            msg = f"the log is damaged at command {self.next_index}: see `state repair`"
            raise CorruptError(msg, index=self.next_index)
        self._record = self._place = None


async def _look(
    states: StateRecords, name: str, index: int, lineage: Lineage | None
) -> tuple[PresentState, tuple[int, int]]:
    """A state, and the first and last command of its log, of which ``index`` may be read.

    ``lineage`` is of the log that those before were read from. Raises as `Replays.page`.
    """
    told = None if lineage is None else (lineage, index - 1)
    present = await states.look(name, to_read=True, told=told)
    check_same(lineage, present.record, index)
    return present, _span(present, index)


def _span(present: PresentState, index: int) -> tuple[int, int]:
    record, end = present.record, present.end
    if end is None:
        first = max((save.last_applied_index for save in record.saves), default=0) + 1
        last = first - 1
    else:
        first, last = record.trimmed_through + 1, end.place.index
    if index < first:
        raise NotFoundError(f"the log begins with command {first}", index=first)
    if end is not None and end.is_damaged and index > last:
        msg = f"the log is damaged at command {last}: see `state repair`"
        raise CorruptError(msg, index=last)
    if index > last + 1:
        raise InvalidError(f"the log ends with command {last}")
    return first, last
