"""The upkeep of states: trimmed by hand or by policy, removed, repaired, listed.

Why: docs/decisions.md, "What ends a log is written into it".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from msgspec import structs

from holdfast.deadline import outliving_task
from holdfast.domain.blob_names import key_name, name_key
from holdfast.domain.hlc import ZERO
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.repository.states.groups import decode_head, encode_closing
from holdfast.repository.states.logs import LogPlace, beginning
from holdfast.repository.states.op_ids import MAX_CARRIED
from holdfast.repository.states.purging import Removable, carried_ops, removable, told_of
from holdfast.repository.states.record import (
    STATE,
    Closing,
    KeepPolicy,
    StateRecord,
    is_loadable,
    kept_saves,
    removed,
    trimmed,
    was_ended_by,
    with_saves,
)
from holdfast.repository.states.states import MISSING
from holdfast.repository.states.tail import TailReader
from holdfast.stores.journal_ports import DamagedEntryError
from holdfast.stores.record_ports import MAX_GET_MANY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.domain.hlc import Hlc
    from holdfast.repository.ledger.ledger import Held
    from holdfast.repository.states.blobs import SavedBytes
    from holdfast.repository.states.places import CommandPlaces
    from holdfast.repository.states.record import CarriedOp
    from holdfast.repository.states.states import PresentState, StateRecords
    from holdfast.sources import Sources

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Removal:
    """The record that the request ``op`` has ``seen`` and removes, and the Op-Ids of its log.

    To make room, the commands up to the sequence ``emptied_through`` were removed.
    """

    op: str
    seen: StateRecord | None = None
    ops: tuple[CarriedOp, ...] = ()
    emptied_through: int = 0

    def note(self, ops: tuple[CarriedOp, ...]) -> None:
        """The log has these, perhaps not all that it had at first."""
        self.ops = tuple(dict.fromkeys((*self.ops, *ops)))[-MAX_CARRIED:]


class Upkeep:
    """Trims, removes and repairs states."""

    def __init__(
        self, states: StateRecords, places: CommandPlaces, stored: SavedBytes, *, sources: Sources
    ) -> None:
        """``stored`` are the blobs of their saves."""
        self._states = states
        self._places = places
        self._stored = stored
        self._sources = sources
        self._trimming: dict[str, asyncio.Task[None]] = {}

    # --- trims ---

    async def trim(self, name: str, through: int) -> StateRecord:
        """Forget the commands up to and with ``through``; the record then.

        Raises NotFoundError, InvalidError (beyond the log), ConflictError with the index of the
        second newest good save, which is the most that may go.
        """
        while True:
            present = await self._states.look(name)
            try:
                return await self._trim(name, present, through)
            except CorruptError:  # or another trim was faster
                if (await self._states.look(name)).held == present.held:
                    raise

    async def _trim(self, name: str, present: PresentState, through: int) -> StateRecord:
        record = present.record
        if present.end is None:
            msg = "the state has no log"
            raise NotFoundError(msg)
        if through <= record.trimmed_through:
            through = record.trimmed_through  # what had to stay in the journal may go now
        elif through > present.index:
            msg = f"the log ends with command {present.index}"
            raise InvalidError(msg)
        else:
            await self._check_saved(record, through)
        place = present.end.place
        if through < present.index:
            place = await self._places.before(record, through + 1, place)
        gone = await self._removable(record, place.sequence)
        change = partial(trimmed, seen=record, through=through, ops=gone.ops)
        held = await self._states.update(_held(present), change)
        try:
            await self._states.logs.journal.trim(name_key(name), gone.through)
        except HoldfastError as error:  # the next trim removes them
            log.warning("log_not_trimmed", code=error.code)
        return held.record

    async def _removable(self, record: StateRecord, through: int) -> Removable:
        """What may leave the journal up to the sequence ``through``: none where it is damaged."""
        try:
            return await removable(self._states.logs.journal, record, through)
        except CorruptError as error:
            log.warning("log_not_trimmed", code=error.code)
            return Removable(0, record.trimmed_ops)

    async def _check_saved(self, record: StateRecord, through: int) -> None:
        """Raises ConflictError unless two good saves include all that is to go."""
        good: list[int] = []
        for save in record.saves:
            if await self._stored.is_good(save):
                good.append(save.last_applied_index)
            if len(good) == 2:
                break
        least = min(good) if len(good) > 1 else record.trimmed_through
        if through > least:
            msg = f"the second newest good save includes the log up to {least}"
            raise ConflictError(msg, index=least)

    def saved(self, name: str) -> None:
        """The state was saved: trim it by its policy, later, unless that is being done."""
        if name not in self._trimming:
            task = outliving_task(self._trim_by_policy(name))
            self._trimming[name] = task
            task.add_done_callback(lambda _: self._trimming.pop(name, None))

    async def _trim_by_policy(self, name: str) -> None:
        try:
            held = await self._states.find(name)
            if held is None or not held.record.policy.trim or len(held.record.saves) < 2:
                return
            through = min(save.last_applied_index for save in held.record.saves)
            await self.trim(name, through)
        except HoldfastError as error:  # the next save tries it again
            log.warning("log_not_trimmed", code=error.code)

    async def policy(self, name: str, changes: Mapping[str, Any]) -> KeepPolicy:
        """A state's retention, with those ``changes`` from now on. Raises NotFoundError."""
        held = await self._states.find(name)
        if held is None or not held.record.exists:
            raise NotFoundError(MISSING)
        if not changes:
            return held.record.policy
        at = self._sources.clock()

        def change(record: StateRecord) -> StateRecord:
            wanted = structs.replace(record.policy, **changes)
            kept = with_saves(record, kept_saves(record.saves, wanted, at))
            return structs.replace(kept, policy=wanted)

        return (await self._states.update(held, change)).record.policy

    async def aclose(self) -> None:
        """End work under way."""
        tasks = list(self._trimming.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- ends of logs ---

    async def remove(self, name: str, *, op_id: str | None = None) -> bool:
        """Remove a state; whether there was one. A repeat is answered as the first.

        Raises UnavailableError where what was to be removed was removed or repaired meanwhile;
        OutcomeUnknownError of any failure once its commands may be gone.
        """
        removal = _Removal(op_id or self._sources.new_id())
        try:
            while (was_there := await self._remove(name, removal)) is None:
                pass
        except HoldfastError as error:
            if not removal.emptied_through:
                raise
            raise OutcomeUnknownError(error.detail) from error
        return was_there

    async def _remove(self, name: str, removal: _Removal) -> bool | None:
        """As `remove`; None where it is to be tried again."""
        held, sequence, index, hlc = await self._found(name)
        if held is None:
            return False
        if was_ended_by(held.record, removal.op):
            return True
        if not held.record.exists:
            return False
        _check_not_ended(held.record, removal.seen)
        seen = removal.seen = held.record
        if not seen.log:
            await self._states.update(held, partial(_removed_without_log, seen=seen, op=removal.op))
            return None
        removal.note(await self._op_ids(seen))
        closing = Closing(
            op=removal.op,
            ops=removal.ops,
            hlc=str(hlc),
            anew=sequence < seen.closed_through,
        )
        value = encode_closing(seen, index + 1, hlc, closing)
        try:
            at = await self._write(name, value, sequence)
        except ConflictError:  # somebody appended meanwhile
            return None
        except QuotaExceededError:
            if sequence <= removal.emptied_through:
                raise
            await self._make_room(held, index, sequence, removal)
            return None
        await self._end(name, held, closing, at)
        return True

    async def _op_ids(self, record: StateRecord) -> tuple[CarriedOp, ...]:
        """Those of the last appends to a log that is to end; of a damaged one, of those trimmed."""
        reader = TailReader(self._states, record.name, monotonic=self._sources.monotonic)
        try:
            return (await reader.read()).ops.carried()
        except CorruptError:
            return (await carried_ops(self._states.logs.journal, record))[-MAX_CARRIED:]

    async def _make_room(
        self, held: Held[StateRecord], index: int, sequence: int, removal: _Removal
    ) -> None:
        """Remove the commands of a state that is to be removed, where its end does not fit.

        The record says so first, so a repair meanwhile does not count on them, and their Op-Ids
        are known though this removal goes no further.
        """
        record, journal = held.record, self._states.logs.journal
        ops = told_of(removal.ops, await journal.now())
        await self._states.update(held, partial(trimmed, seen=record, through=index, ops=ops))
        removal.emptied_through = sequence
        await journal.trim(name_key(record.name), sequence)

    async def repair(self, name: str, index: int, *, op_id: str | None = None) -> StateRecord:
        """Have the next command of a log get ``index``; commands and saves from there on are lost.

        Those before are kept, if they can be read up to there; else a save must include them.
        A repeat does nothing. Raises NotFoundError, InvalidError where neither is so, or where
        others were appended together with that one; UnavailableError where the state was removed or
        repaired meanwhile.
        """
        op = op_id or self._sources.new_id()
        seen: StateRecord | None = None
        while True:
            held, sequence, last, hlc = await self._found(name)
            if held is not None and was_ended_by(held.record, op):
                return held.record
            if held is None or not held.record.log:
                msg = "there is no log of that name"
                raise NotFoundError(msg)
            _check_not_ended(held.record, seen)
            seen = held.record
            kept = await self._kept(held.record, index - 1, sequence)
            is_anew = sequence < held.record.closed_through
            goes_on = kept is not None and not is_anew
            if kept is None or not is_loadable(held.record, index - 1, from_log=goes_on):
                _check_included(held.record, index - 1)
            closing = Closing(
                index=index - 1,
                after=kept.sequence if kept is not None and goes_on else None,
                behind=None if is_anew else (sequence, last),
                next_log=held.record.log if goes_on else self._sources.new_id(),
                op=op,
                ops=await self._op_ids(held.record),
                hlc=str(hlc),
                anew=is_anew,
            )
            value = encode_closing(held.record, last + 1, hlc, closing)
            with suppress(ConflictError):
                at = await self._write(name, value, sequence)
                record = await self._end(name, held, closing, at)
                if was_ended_by(record, op):
                    return record

    async def _found(self, name: str) -> tuple[Held[StateRecord] | None, int, int, Hlc]:
        """The record, and the last sequence, index and time of its log.

        For a damaged one they are those of the last group that can be read.
        """
        try:
            present = await self._states.look(name)
        except CorruptError:
            sequence = await self._last_sequence(name)  # first: a writer of both writes it last
            held = await self._states.find(name)
            if held is None:
                return None, sequence, 0, ZERO
            end = await self._states.logs.readable_end(held.record, sequence)
            return held, sequence, end.place.index, end.hlc or ZERO
        if present.end is None:
            return present.held, 0, 0, ZERO
        end = present.end
        return present.held, end.place.sequence, end.place.index, end.hlc or ZERO

    async def _last_sequence(self, name: str) -> int:
        try:
            entry = await self._states.logs.journal.last(name_key(name))
        except DamagedEntryError as damaged:
            return damaged.sequence
        return 0 if entry is None else entry.sequence

    async def _kept(self, record: StateRecord, index: int, sequence: int) -> LogPlace | None:
        """Behind the command ``index``; None where it cannot be read. Raises InvalidError."""
        if index == record.base and record.trimmed_through == record.base:
            return beginning(record)
        if index <= record.trimmed_through:
            return None
        try:
            place = await self._places.before(record, index, LogPlace(sequence, 2**53))
            page = await self._states.logs.page(record, place, decode_head, limit=1, sure=True)
        except CorruptError:
            return None
        if not page.groups:
            return None
        head = page.groups[0][1]
        if head.last != index:
            msg = f"commands {head.first} to {head.last} were appended together"
            raise InvalidError(msg)
        return page.place

    async def _write(self, name: str, value: bytes, expected: int) -> int:
        """Append what ends a log, once it is known what came of it. Raises ConflictError."""
        return await self._states.logs.append(
            name_key(name),
            value,
            expected=expected,
            message_id=self._sources.new_id(),
            behind_damage=True,
        )

    async def _end(
        self, name: str, held: Held[StateRecord], closing: Closing, sequence: int
    ) -> StateRecord:
        """Carry out what was written at ``sequence``, and remove what does not count any more."""
        try:
            held = await self._states.carry_out(held, closing, sequence)
        except HoldfastError as error:
            raise OutcomeUnknownError(error.detail) from error
        if held.record.start >= sequence:  # nothing before counts any more
            with suppress(HoldfastError):  # the entry itself stays: it has the Op-Ids
                await self._states.logs.journal.trim(name_key(name), sequence - 1)
        return held.record

    # --- lists ---

    async def page(
        self, prefix: str, *, after: str | None, limit: int
    ) -> tuple[Sequence[StateRecord], str | None]:
        """Up to ``limit`` states whose name starts with ``prefix``; the name to go on after."""
        names = await self._names(prefix)
        left = [name for name in names if after is None or name > after]
        found: list[StateRecord] = []
        while left and len(found) < limit:
            some, left = left[:MAX_GET_MANY], left[MAX_GET_MANY:]
            keys = [name_key(name) for name in some]
            records, unreadable = await self._states.ledger.get_many(STATE, keys)
            if unreadable:
                msg = f"the record of the state {key_name(unreadable[0])} is unreadable"
                raise CorruptError(msg)
            found += [records[key].record for key in keys if key in records]
            found = [record for record in found if record.exists]
        more = len(found) > limit or bool(left)
        found = found[:limit]
        return found, found[-1].name if found and more else None

    async def _names(self, prefix: str) -> list[str]:
        """All names that start with ``prefix`` and ever were those of a state, in order."""
        whole, slash, _ = prefix.rpartition("/")
        below = STATE.key(name_key(whole)) if slash else STATE.prefix
        keys = await self._states.keys(below)
        names = [key_name(STATE.name_at(key)) for key in keys]
        return sorted(name for name in names if name.startswith(prefix))


def _held(present: PresentState) -> Held[StateRecord]:
    if present.held is None:
        raise NotFoundError(MISSING)
    return present.held


def _check_included(record: StateRecord, index: int) -> None:
    """Raises InvalidError unless a save goes up to ``index``."""
    saved = sorted({save.last_applied_index for save in record.saves})
    if index not in saved:
        places = ", ".join(str(one + 1) for one in saved) or "no place"
        msg = f"neither log nor save leads up to command {index}: by saves it can go on at {places}"
        raise InvalidError(msg)


def _check_not_ended(record: StateRecord, seen: StateRecord | None) -> None:
    """Raises UnavailableError where that is not the state any more that was ``seen`` before."""
    if seen is not None and record.ended_by != seen.ended_by:
        msg = "the state was removed or repaired meanwhile"
        raise UnavailableError(msg)


def _removed_without_log(record: StateRecord, seen: StateRecord, op: str) -> StateRecord:
    """The record of a state without a log once it is removed; as it is if that is not as seen."""
    if record.log or record.ended_by != seen.ended_by:
        return record
    return removed(record, op, start=record.start)
