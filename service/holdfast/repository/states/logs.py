"""Logs as they are in the journal: which groups count, in which order, and where they end.

A group counts if it lies behind the ``start`` that the state's record says, is of that log, is not
void, and follows on the one before, by the sequence before it and by its index. One that does not
is a break, and raises CorruptError with the index that was expected and the one that was found:
nothing is passed over, and nobody appends.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from holdfast.domain.blob_names import name_key
from holdfast.domain.hlc import ZERO, parse_hlc
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.repository.states.ends import SeenEnds
from holdfast.repository.states.groups import GroupHead, decode_head
from holdfast.stores.journal_ports import PAGE_BYTES, PAGE_ENTRIES, DamagedEntryError
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.domain.hlc import Hlc
    from holdfast.repository.states.record import Closing, StateRecord, Void
    from holdfast.stores.journal_ports import JournalEntry, JournalStore

SETTLE_SECONDS: Final = 120.0
_RETRY_SECONDS: Final = 0.05
_LONGEST_RETRY_SECONDS: Final = 4.0
_BEHIND: Final = "the store does not have all that is known of the log yet"
_TRIMMED: Final = "the log was trimmed before it was known whether it has what was written"

GroupT = TypeVar("GroupT", bound=GroupHead)


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Behind the group at ``sequence``, whose last command has ``index``."""

    sequence: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """The end of a log: the last sequence, index and time, and what ends it for good, if that does.

    ``hlc`` is None where the log has no command, or ``is_damaged`` there.
    """

    place: LogPlace
    hlc: Hlc | None = None
    closing: Closing | None = None
    is_damaged: bool = False


class DamagedLogError(CorruptError):
    """The log cannot be read to its end, or has lost it.

    ``end`` is for readers of the commands before: there the log ends with the first one that
    cannot be read.
    """

    def __init__(self, record: StateRecord, readable: LogPlace, sequence: int) -> None:
        """Behind ``readable`` nothing can be read, up to and with what is at ``sequence``."""
        index = max(readable.index, record.trimmed_through) + 1
        super().__init__(f"the log is damaged at command {index}: see `state repair`", index=index)
        self.end = LogEnd(place=LogPlace(sequence, index), is_damaged=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPage(Generic[GroupT]):
    """Groups that count, one behind the other, with their sequences; ``place`` is behind them.

    ``is_end`` as of `JournalPage`.
    """

    groups: Sequence[tuple[int, GroupT]]
    place: LogPlace
    is_end: bool


def beginning(record: StateRecord) -> LogPlace:
    """Before the first group of the log."""
    return LogPlace(record.start, record.base)


def before(record: StateRecord, entry: JournalEntry, group: GroupHead) -> LogPlace:
    """Before a group that was met without the one before it. Raises CorruptError."""
    place = behind_void(record, entry.sequence)
    if place is not None:
        return place
    placed(record, entry.sequence, group)
    return LogPlace(entry.previous, group.first - 1)


def behind_void(record: StateRecord, sequence: int) -> LogPlace | None:
    """Behind the groups that do not count and have the one at ``sequence``; None if it counts."""
    for void in record.voids:
        if void.after < sequence <= void.through:
            return LogPlace(void.through, void.index)
    return None


def placed(record: StateRecord, sequence: int, group: GroupHead) -> LogPlace:
    """Behind a group that was met without the one before it. Raises CorruptError."""
    if group.log != record.log or sequence <= record.start or group.first <= record.base:
        raise _break(group.first, record.base + 1)
    return LogPlace(sequence, group.last)


class StateLogs:
    """Reads logs from the journal, and writes them."""

    def __init__(self, journal: JournalStore) -> None:
        """``journal`` has all states' groups."""
        self.journal = journal
        self.ends = SeenEnds()

    async def append(
        self,
        key: str,
        value: bytes,
        *,
        expected: int,
        message_id: str,
        behind_damage: bool = False,
    ) -> int:
        """The sequence of the entry ``value`` of the log at ``key``, once it is known.

        It is sent until then. As of `JournalStore.append`, but that a ConflictError is certain:
        another was first, and this one is not in the log. Raises OutcomeUnknownError where nobody
        can tell.
        """
        backoff = Backoff(_RETRY_SECONDS, _LONGEST_RETRY_SECONDS, within_seconds=SETTLE_SECONDS)
        is_known = True
        while True:
            try:
                return await self.journal.append(
                    key,
                    value,
                    expected=expected,
                    message_id=message_id,
                    behind_damage=behind_damage,
                )
            except ConflictError as error:
                if is_known or await self._is_anothers(key, expected):
                    raise
                raise OutcomeUnknownError(_TRIMMED) from error
            except HoldfastError as error:
                is_known = is_known and not isinstance(error, OutcomeUnknownError)
                if is_known:
                    raise
                if not await backoff.wait():
                    raise OutcomeUnknownError(error.detail) from error

    async def _is_anothers(self, key: str, expected: int) -> bool:
        """Whether the entry behind ``expected`` surely is that of another append."""
        try:
            entry = await self.journal.first_from(key, expected + 1)
        except HoldfastError:
            return False
        return entry is not None and entry.previous == expected

    async def end(self, record: StateRecord, *, told: int = 0) -> LogEnd:
        """The log's end, by the word of a believed leader.

        ``told`` is a command that somebody says it has had. Raises CorruptError: DamagedLogError
        where a log that there should be ends before what is known of it, or the last group is
        damaged; InvalidError where it ends before ``told`` alone; UnavailableError where what it
        lacks may yet come.
        """
        known = max(record.known_index, self.ends.of(record))  # before the journal is asked
        try:
            entry = await self.journal.last(name_key(record.name))
        except DamagedEntryError as damaged:
            raise await self.damaged(record, damaged.sequence) from damaged
        found = _end(record, entry)
        if not record.log or found.closing is not None:
            return found
        self.ends.goes_to(record, found.place.index)
        if found.place.index < known:
            self._wait_for(record, known)
            raise DamagedLogError(record, found.place, found.place.sequence)
        if found.place.index > known:
            self.ends.note(record, found.place.index)
        if found.place.index < told:
            self._wait_for(record, told)
            raise _less_than_told(found.place, told)
        return found

    def _wait_for(self, record: StateRecord, index: int) -> None:
        """Raises UnavailableError while the command ``index``, which the log lacks, may come."""
        now = asyncio.get_running_loop().time()
        session = self.journal.session
        seconds = self.ends.behind_seconds(record, index, session=session, now=now)
        if seconds < self.journal.catch_up_seconds:
            raise UnavailableError(_BEHIND)

    async def damaged(self, record: StateRecord, sequence: int) -> DamagedLogError:
        """The failure of a log whose group at ``sequence`` is damaged."""
        readable = await self.readable_end(record, sequence)
        return DamagedLogError(record, readable.place, sequence)

    async def readable_end(self, record: StateRecord, through: int) -> LogEnd:
        """The last group up to the sequence ``through`` that can be read, found by halves."""
        low, high = record.closed_through, through
        found = _at_beginning(record)
        while low < high:
            middle = (low + high) // 2
            readable = await self.first_readable(record, middle + 1, high)
            if readable is None:
                high = middle
                continue
            entry, head = readable
            low = entry.sequence
            if head.log == record.log and head.closing is None:
                place = LogPlace(entry.sequence, head.last)
                found = LogEnd(place=place, hlc=max(head.last_hlc, found.hlc or ZERO))
        return found

    async def first_readable(
        self, record: StateRecord, sequence: int, through: int
    ) -> tuple[JournalEntry, GroupHead] | None:
        """The first group at or behind ``sequence`` that can be read; None up to ``through``."""
        while True:
            try:
                entry = await self.journal.first_from(name_key(record.name), sequence)
            except DamagedEntryError as damaged:
                sequence = damaged.sequence + 1
            else:
                if entry is None or entry.sequence > through:
                    return None
                with suppress(CorruptError):
                    return entry, decode_head(entry)
                sequence = entry.sequence + 1
            if sequence > through:
                return None

    async def page(
        self,
        record: StateRecord,
        place: LogPlace,
        decode: Callable[[JournalEntry], GroupT],
        *,
        limit: int = PAGE_ENTRIES,
        max_bytes: int = PAGE_BYTES,
        sure: bool = False,
    ) -> GroupPage[GroupT]:
        """The groups behind ``place``, up to a break. Raises CorruptError if that comes first."""
        place, void = _beyond(record, place)
        key = name_key(record.name)
        try:
            page = await self.journal.read(
                key, place.sequence, limit=limit, max_bytes=max_bytes, sure=sure
            )
        except CorruptError as error:
            raise _unreadable(place.index + 1) from error
        groups: list[tuple[int, GroupT]] = []
        for entry in page.entries:
            if void is not None and entry.sequence > void.after:
                if not groups:
                    msg = f"the log is broken behind command {place.index}: see `state repair`"
                    raise CorruptError(msg, index=place.index + 1)
                return GroupPage(groups=groups, place=place, is_end=False)
            try:
                group = decode(entry)
                place = _next(record, place, entry, group)
            except CorruptError as error:
                if groups:
                    return GroupPage(groups=groups, place=place, is_end=False)
                if error.index is None:
                    raise _unreadable(place.index + 1) from error
                raise
            groups.append((entry.sequence, group))
        return GroupPage(groups=groups, place=place, is_end=page.is_end)


def _end(record: StateRecord, entry: JournalEntry | None) -> LogEnd:
    sequence = 0 if entry is None else entry.sequence
    if entry is None or sequence == record.start:
        if sequence != record.start:
            msg = "the log has lost all its commands: see `state repair`"
            raise CorruptError(msg, index=record.trimmed_through + 1)
        return _at_beginning(record)
    if not record.log:
        msg = "there is a log of that name which its record does not know: see `state repair`"
        raise CorruptError(msg)
    void = record.voids[-1] if record.voids else None
    if void is not None and entry.sequence <= void.through:
        return _at_beginning(record)
    head = decode_head(entry)
    place = placed(record, entry.sequence, head)
    hlc = head.last_hlc
    return LogEnd(place=place, hlc=hlc, closing=head.closing)


def _at_beginning(record: StateRecord) -> LogEnd:
    """The log's end if there is nothing behind what the record knows."""
    hlc = parse_hlc(record.hlc) if record.hlc else None
    if not record.voids:
        return LogEnd(place=beginning(record), hlc=hlc)
    void = record.voids[-1]
    return LogEnd(place=LogPlace(void.through, void.index), hlc=hlc)


def _beyond(record: StateRecord, place: LogPlace) -> tuple[LogPlace, Void | None]:
    """``place``, or behind the void that begins or lies there; and the next void."""
    for void in record.voids:
        if void.after <= place.sequence < void.through:
            place = LogPlace(void.through, void.index)
        elif place.sequence < void.after:
            return place, void
    return place, None


def _next(record: StateRecord, place: LogPlace, entry: JournalEntry, group: GroupHead) -> LogPlace:
    if group.log != record.log or group.first != place.index + 1:
        raise _break(group.first, place.index + 1)
    if entry.previous != place.sequence:
        msg = f"the log is broken before command {group.first}: see `state repair`"
        raise CorruptError(msg, index=group.first)
    return LogPlace(entry.sequence, group.last)


def _less_than_told(place: LogPlace, told: int) -> InvalidError:
    return InvalidError(
        f"the log ends with command {place.index}, and {told} was said to have been read: if it "
        "was, the log has lost its end"
    )


def _unreadable(index: int) -> CorruptError:
    msg = f"command {index} of the log cannot be read: see `state repair`"
    return CorruptError(msg, index=index)


def _break(found: int, expected: int) -> CorruptError:
    msg = f"the log has command {found} where {expected} should be: see `state repair`"
    return CorruptError(msg, index=expected)
