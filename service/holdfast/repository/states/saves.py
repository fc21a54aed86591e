"""Saves of states: made, looked up, listed.

A save is a blob and an entry of the state's record. The blob is put first, then the record names
it, then it is touched: a collector that did not see the record cannot remove it any more. Where it
was removed before, it is put anew, or the entry is taken back, before anybody is told of it.

Why: docs/decisions.md, "A save is an entry of the record, and touched once it is one".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.domain.blob_names import check_state_name
from holdfast.domain.canonical import canonical
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import (
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
)
from holdfast.repository.states.record import (
    SaveEntry,
    StateRecord,
    check_same,
    save_of,
    saved,
    without_save,
)
from holdfast.repository.states.states import MISSING, PresentState, StateRecords

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.repository.states.blobs import SavedBytes
    from holdfast.repository.states.record import Lineage, SaveForm
    from holdfast.sources import Sources

NO_SAVE: Final = "there is no such save"
_LARGE_BYTES: Final = 16 * 1024
"""A larger state is made canonical in a thread."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSave:
    """A save to make: ``data``, or a blob that is there by its ``digest``.

    ``lineage`` is that of the log whose commands it includes.
    """

    last_applied_index: int
    lineage: Lineage | None = None
    last_applied_hlc: str = ""
    kind: SaveForm = "json"
    data: bytes | None = None
    digest: Digest | None = None
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A save, with its bytes if it is JSON, unless they are more than was asked for.

    ``fell_back`` are the numbers of those that were to be had rather, and are damaged. The log was
    of ``lineage`` when the save was looked up.
    """

    save: SaveEntry
    lineage: Lineage
    data: bytes | None = None
    fell_back: Sequence[int] = ()


class StateSaves:
    """The saves of all states."""

    def __init__(
        self, states: StateRecords, stored: SavedBytes, *, sources: Sources, max_bytes: int
    ) -> None:
        """``max_bytes`` is what one message may carry of a state."""
        self._states = states
        self._stored = stored
        self._sources = sources
        self._max_bytes = max_bytes

    async def save(self, name: str, new: NewSave, *, op_id: str | None = None) -> SaveEntry:
        """Save a state. A repeat with the same ``op_id`` is answered as the first.

        Raises InvalidError (the log has no such command; the blob is no canonical JSON),
        NotFoundError (no such blob), CorruptError (it is damaged), ConflictError (older than the
        newest, with the index of that; or the log is not the one of its lineage any more),
        UnavailableError, OutcomeUnknownError.
        """
        check_state_name(name)
        present = await self._states.look(name)
        if present.held is not None and (made := save_of(present.held.record, op_id)) is not None:
            if made in present.held.record.saves:  # and its maker may have died
                await self._settle(name, made, new, is_repeat=True)
            return made
        record = present.held.record if present.held is not None else StateRecord(name=name)
        check_same(new.lineage, record, new.last_applied_index + 1)
        check_index(present, new.last_applied_index)
        digest, size = await self._stored_as(new)
        entry = _entry(new, digest, size, present, op_id or self._sources.new_id())
        made = await self._record(entry, record, force=new.force)
        await self._settle(name, made, new)
        self._states.totals.saves += 1
        return made

    async def _stored_as(self, new: NewSave) -> tuple[Digest, int]:
        if new.data is None:
            if new.digest is None:
                raise InvalidError("give a state, or the digest of a blob")
            return new.digest, await self._size(new.digest, new.kind)
        digest = digest_of(new.data)
        await self._stored.put(digest, new.data, new.kind)
        return digest, len(new.data)

    async def _size(self, digest: Digest, kind: SaveForm) -> int:
        """The bytes of a blob that is to be a save.

        Raises InvalidError where answers would carry it as JSON, and it is not canonical.
        """
        size = await self._stored.size(digest)
        if kind == "json" and size <= self._max_bytes:
            data = await self._stored.read(digest, size)
            if data is not None and data != await canonical_form(data):
                raise InvalidError("the blob is JSON, but not written as RFC 8785 has it")
        return size

    async def _record(self, entry: SaveEntry, compared: StateRecord, *, force: bool) -> SaveEntry:
        name, at = compared.name, self._sources.clock()
        change = partial(saved, name=name, save=entry, lineage=compared.lineage, force=force, at=at)
        held = await self._states.change(name, change)
        made = save_of(held.record, entry.op)
        if made is None:
            raise OutcomeUnknownError("so much was saved since that nobody knows what came of it")
        return made

    async def _settle(
        self, name: str, made: SaveEntry, new: NewSave, *, is_repeat: bool = False
    ) -> None:
        """See to it that the blob of a save that is recorded is there.

        Once others may have been told of the save, a damaged blob is no reason to take it back.
        """
        digest = Digest(made.digest)
        try:
            if await self._stored.touch(digest):
                return
            if new.data is not None and digest_of(new.data) == digest:
                await self._stored.put(digest, new.data, new.kind)
                return
            if is_repeat and await self._stored.is_there(digest):
                return
            await self._states.change(name, partial(without_save, number=made.number))
        except HoldfastError as error:
            raise OutcomeUnknownError(error.detail) from error
        raise NotFoundError("the blob was removed while the state was saved")

    # --- reads ---

    async def latest(self, name: str, *, unless: str | None = None) -> Loaded:
        """The newest save that can be read; without its bytes where its hash is ``unless``.

        Raises NotFoundError, CorruptError where none can be read.
        """
        record = await self._record_of(name)
        if record.saves and record.saves[0].digest == unless:
            return Loaded(save=record.saves[0], lineage=record.lineage)
        return await self._first_readable(record, record.saves)

    async def at(
        self,
        name: str,
        *,
        index: int | None = None,
        time: datetime | None = None,
        digest: str | None = None,
    ) -> Loaded:
        """The save that includes most up to ``index``, the last one until ``time``, or of a hash.

        Raises InvalidError unless it is one of the three, and what `latest` does.
        """
        if sum(one is not None for one in (index, time, digest)) != 1:
            raise InvalidError("ask for a save by an index, a time or a hash")
        record = await self._record_of(name)
        saves: Iterable[SaveEntry] = record.saves
        if index is not None:
            found = [save for save in saves if save.last_applied_index <= index]
            found.sort(key=lambda save: save.last_applied_index, reverse=True)
        elif time is not None:
            found = [save for save in saves if datetime.fromisoformat(save.at) <= time]
        else:
            found = [save for save in saves if save.digest == digest][:1]
        return await self._first_readable(record, found)

    async def page(
        self, name: str, *, below: int | None, limit: int
    ) -> tuple[Sequence[SaveEntry], bool]:
        """Up to ``limit`` saves numbered ``below`` that, newest first; and whether more follow."""
        saves = (await self._record_of(name)).saves
        found = [save for save in saves if below is None or save.number < below]
        return found[:limit], len(found) > limit

    async def _record_of(self, name: str) -> StateRecord:
        held = await self._states.find(name)
        if held is None or not held.record.exists:
            raise NotFoundError(MISSING)
        return held.record

    async def _first_readable(self, record: StateRecord, saves: Iterable[SaveEntry]) -> Loaded:
        fell_back: list[int] = []
        for save in saves:
            at_most = self._max_bytes if save.kind == "json" else 0
            try:
                data = await self._stored.fetch(save, at_most)
            except (NotFoundError, CorruptError):
                log.warning("save_damaged", number=save.number, digest=save.digest)
                fell_back.append(save.number)
            else:
                known = data if save.kind == "json" else None
                return Loaded(save=save, lineage=record.lineage, data=known, fell_back=fell_back)
        if fell_back:
            raise CorruptError("no save of the state can be read")
        raise NotFoundError(NO_SAVE)


async def canonical_form(text: bytes) -> bytes:
    """The JSON ``text`` as RFC 8785 writes it. Raises InvalidError, as `canonical`."""
    if len(text) > _LARGE_BYTES:
        return await asyncio.to_thread(canonical, text)
    return canonical(text)


def check_index(present: PresentState, index: int) -> None:
    """Raises InvalidError where the log does not have the command ``index``, if there is a log."""
    if present.end is None or present.held is None:
        return
    trimmed = present.held.record.trimmed_through
    if not trimmed <= index <= present.index:
        msg = f"the log has the commands {trimmed + 1} to {present.index}, and not {index}"
        raise InvalidError(msg)


def _entry(new: NewSave, digest: Digest, size: int, present: PresentState, op: str) -> SaveEntry:
    end = present.end
    is_end = end is not None and end.place.index == new.last_applied_index
    return SaveEntry(
        number=0,
        digest=digest,
        size=size,
        kind=new.kind,
        last_applied_index=new.last_applied_index,
        last_applied_hlc=new.last_applied_hlc,
        at="",
        sequence=end.place.sequence if end is not None and is_end else 0,
        op=op,
    )
