"""One worker's knowledge of the end of a log, and how it comes by it.

It is a hint: an append by it is refused where it is wrong. Before the first append, and after
each refusal, the log is read from a believed leader: the groups of the last two minutes, or those
behind the end that was known.

Why: docs/decisions.md, "What a worker knows of a log's end is a hint".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.domain.blob_names import name_key
from holdfast.domain.hlc import ZERO
from holdfast.errors import CorruptError, InvalidError
from holdfast.repository.states.groups import decode_head
from holdfast.repository.states.logs import before, beginning, behind_void
from holdfast.repository.states.op_ids import REMEMBERED, OpIds
from holdfast.repository.states.purging import carried_ops
from holdfast.repository.states.record import with_log
from holdfast.stores.journal_ports import DamagedEntryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.domain.hlc import Hlc
    from holdfast.repository.states.logs import LogEnd, LogPlace
    from holdfast.repository.states.record import StateRecord
    from holdfast.repository.states.states import PresentState, StateRecords
    from holdfast.stores.journal_ports import JournalEntry

_CLOSED: Final = "the log has ended"


@dataclass(slots=True, kw_only=True)
class Tail:
    """The end of a log: behind ``place`` there was nothing.

    It was so at some moment since ``since``, by the loop's clock, in that session of the journal.
    """

    record: StateRecord
    place: LogPlace
    since: float
    session: object
    hlc: Hlc = ZERO
    ops: OpIds = field(default_factory=OpIds)


class TailReader:
    """Reads the end of one log."""

    def __init__(self, states: StateRecords, name: str, *, monotonic: Callable[[], float]) -> None:
        """``monotonic`` gives seconds that only rise."""
        self._states = states
        self._name = name
        self._key = name_key(name)
        self._monotonic = monotonic

    def acknowledged(self, tail: Tail) -> None:
        """The log was told to be as long as ``tail`` says: it never is shorter again."""
        self._states.logs.ends.note(tail.record, tail.place.index)

    def is_current(self, tail: Tail) -> bool:
        """Whether the journal cannot have lost what ``tail`` knows of."""
        return tail.session is self._states.logs.journal.session

    async def read(self) -> Tail:
        """The log's end, with the Op-Ids of the last minutes.

        Raises CorruptError where the log is broken at the same place twice: groups that the record
        says are trimmed may leave the journal meanwhile, and then it begins further on.
        """
        broken: set[LogPlace] = set()
        while True:
            since = asyncio.get_running_loop().time()
            session = self._states.logs.journal.session
            present = await self._states.look(self._name)
            record = present.held.record if present.held is not None else None
            record = with_log(record, name=self._name, log="")  # if there is none: where it begins
            tail = Tail(record=record, place=beginning(record), since=since, session=session)
            await self._recall(tail)
            if present.end is not None:
                try:
                    tail.place = await self._recent(record, present.end)
                    tail.hlc = present.end.hlc or ZERO
                    await self._walk(tail)
                except CorruptError:
                    again = await self._states.look(self._name)
                    if again.held == present.held and tail.place in broken:
                        raise
                    broken.add(tail.place)
                    continue
            if await self._tells_all(record):
                return tail

    async def _tells_all(self, record: StateRecord) -> bool:
        """Whether no group was trimmed, while its Op-Ids were to be read, since it was so."""
        held = await self._states.find(self._name)
        return held is None or held.record.trimmed_ops == record.trimmed_ops

    async def caught_up(self, tail: Tail) -> Tail | None:
        """``tail`` with what others have written since; None where it is to be read anew.

        Raises CorruptError where the log does not go on behind it, and should.
        """
        if not tail.record.log:
            return None
        since, place = asyncio.get_running_loop().time(), tail.place
        try:
            await self._walk(tail)
        except CorruptError:
            if _goes_on(tail, await self._states.look(self._name)):
                raise
            return None
        if tail.place == place and not await self._is_there(place):
            return None
        tail.since = since
        return tail

    async def _is_there(self, place: LogPlace) -> bool:
        """Whether the log still goes as far as that."""
        with suppress(CorruptError):
            entry = await self._states.logs.journal.last(self._key)
            return (0 if entry is None else entry.sequence) >= place.sequence
        return False

    async def _walk(self, tail: Tail) -> None:
        """Take in the groups behind ``tail``, up to the end by the word of a believed leader."""
        while True:
            page = await self._states.logs.page(tail.record, tail.place, decode_head, sure=True)
            now = self._monotonic()
            for _, head in page.groups:
                tail.ops.note_group(head, tail.record.lineage, now)
                tail.hlc = max(tail.hlc, head.last_hlc)
                if head.closing is not None:
                    raise CorruptError(_CLOSED)
            tail.place = page.place
            if page.is_end:
                return

    async def _recall(self, tail: Tail) -> None:
        """Take in the Op-Ids of commands trimmed, removed or cut off in the last minutes.

        The record may tell of some that are of a log before this one: they are not later.
        """
        journal, record = self._states.logs.journal, tail.record
        for op in await carried_ops(journal, record):
            lineage = record.lineage if op.hlc > record.hlc else None
            tail.ops.note_carried((op,), self._monotonic(), lineage)
        sequence = max(record.lineage[1:])
        if not sequence:
            return
        with suppress(CorruptError, InvalidError):  # where that is damaged nobody knows them
            entry = await journal.first_from(self._key, sequence)
            if entry is None or entry.sequence != sequence:
                return
            closing = decode_head(entry).closing
            if closing is not None and entry.at >= await journal.now() - REMEMBERED:
                tail.ops.note_carried(closing.ops, self._monotonic())

    async def _recent(self, record: StateRecord, end: LogEnd) -> LogPlace:
        """Before the first group of the last minutes; the end of the log if there is none."""
        try:
            entry = await self._first_recent(record)
        except DamagedEntryError as damaged:
            place = behind_void(record, damaged.sequence)
            if place is None:
                raise await self._states.logs.damaged(record, damaged.sequence) from damaged
            return place
        return end.place if entry is None else before(record, entry, decode_head(entry))

    async def _first_recent(self, record: StateRecord) -> JournalEntry | None:
        """The first entry of the last minutes that is not of a log before this one."""
        journal = self._states.logs.journal
        moment = await journal.now() - REMEMBERED
        try:
            entry = await journal.first_since(self._key, moment)
        except DamagedEntryError as damaged:
            if damaged.sequence > record.start:
                raise
        else:
            if entry is None or entry.sequence > record.start:
                return entry
        return await journal.first_from(self._key, record.start + 1)


def _goes_on(tail: Tail, present: PresentState) -> bool:
    """Whether the log that ``tail`` knows should be there, and go on behind that."""
    record = present.held.record if present.held is not None else None
    if record is None or record.lineage != tail.record.lineage:
        return False
    return record.trimmed_through <= tail.place.index
