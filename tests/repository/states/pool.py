"""States on stores in memory: workers that share them, and time that a test moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from tests.repository.names.gated import GatedRecordStore
from tests.repository.pool import DoomedBlobStore, Time

from holdfast.errors import HoldfastError
from holdfast.repository.states.appending import Appender
from holdfast.repository.states.blobs import SavedBytes
from holdfast.repository.states.groups import Command
from holdfast.repository.states.logs import StateLogs
from holdfast.repository.states.places import CommandPlaces
from holdfast.repository.states.replays import Replays
from holdfast.repository.states.saves import NewSave, StateSaves
from holdfast.repository.states.skew import ClockSkew
from holdfast.repository.states.states import StateRecords
from holdfast.repository.states.upkeep import Upkeep
from holdfast.stores.journal_ports import PAGE_BYTES, PAGE_ENTRIES
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.memory_journal import MemoryJournalStore

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from tests.repository.names.gated import Gate

    from holdfast.repository.states.op_ids import AppendedRun
    from holdfast.repository.states.record import Lineage, SaveEntry
    from holdfast.repository.states.saves import Loaded
    from holdfast.sources import Sources
    from holdfast.stores.journal_ports import Growth, JournalEntry, JournalPage, JournalStore
    from holdfast.stores.ports import BlobStore
    from holdfast.stores.record_ports import RecordStore

T = TypeVar("T")
MAX_BYTES: Final = 256 * 1024


class StatesWorker:
    """One worker's states."""

    def __init__(
        self,
        journal: JournalStore,
        records: RecordStore,
        blobs: BlobStore,
        sources: Sources,
        *,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        logs = StateLogs(journal)
        self.states = StateRecords(records, logs, sources=sources)
        places = CommandPlaces(logs)
        stored = SavedBytes(blobs, sources)
        self.appender = Appender(
            self.states, ClockSkew(journal, sources=sources), sources=sources, max_bytes=max_bytes
        )
        self.saves = StateSaves(self.states, stored, sources=sources, max_bytes=max_bytes)
        self.replays = Replays(self.states, places, max_bytes=max_bytes)
        self.upkeep = Upkeep(self.states, places, stored, sources=sources)

    async def append(
        self,
        name: str,
        *commands: object,
        expected: int | None = None,
        lineage: Lineage | None = None,
        hlc: str | None = None,
        op_id: str | None = None,
    ) -> AppendedRun:
        """Append ``commands``, of which those that are bytes stay so."""
        written = [
            Command(command, is_json=False)
            if isinstance(command, bytes)
            else Command(msgspec.json.encode(command))
            for command in commands
        ]
        return await self.appender.append(
            name, written, expected=expected, lineage=lineage, hlc=hlc, op_id=op_id
        )

    async def replay(self, name: str, index: int = 1) -> list[object]:
        """All commands from ``index`` on, whose indexes follow on each other."""
        found: list[object] = []
        while True:
            page = await self.replays.page(name, index, 1000)
            assert [one.index for one in page.entries] == list(range(index, page.next_index))
            for one in page.entries:
                data = one.command.data
                found.append(msgspec.json.decode(data) if one.command.is_json else data)
            index = page.next_index
            if index > page.last:
                return found

    async def save(
        self,
        name: str,
        state: bytes,
        index: int,
        *,
        lineage: Lineage | None = None,
        force: bool = False,
        op_id: str | None = None,
    ) -> SaveEntry:
        """Save a state that is JSON."""
        new = NewSave(last_applied_index=index, lineage=lineage, data=state, force=force)
        return await self.saves.save(name, new, op_id=op_id)

    async def latest(self, name: str) -> Loaded:
        """See `StateSaves.latest`."""
        return await self.saves.latest(name)


class FullJournal(MemoryJournalStore):
    """One that has no room to spare."""

    async def has_little_room(self) -> bool:
        """See `JournalStore.has_little_room`."""
        return True


class StatesPool:
    """Stores in memory, and the workers on them."""

    def __init__(self) -> None:
        self.time = Time()
        self.blobs = MemoryBlobStore(self.time.clock)
        self.records = MemoryRecordStore(self.time.monotonic)
        self.journal = MemoryJournalStore(self.time.clock)

    def worker(self) -> StatesWorker:
        """A worker that sees the stores as they are."""
        return StatesWorker(self.journal, self.records, self.blobs, self.time.sources)

    def gated(self, gate: Gate) -> StatesWorker:
        """A worker whose calls to the stores wait for ``gate``."""
        return StatesWorker(
            GatedJournal(self.journal, gate),
            GatedRecordStore(self.records, gate),
            DoomedBlobStore(self.blobs, gate),
            self.time.sources,
        )


class GatedJournal:
    """The journal, as a worker behind a gate sees it."""

    catch_up_seconds = 0.0

    def __init__(self, inner: JournalStore, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    @property
    def session(self) -> object:
        """See `JournalStore.session`."""
        return self._inner.session

    async def append(
        self,
        log: str,
        value: bytes,
        *,
        expected: int,
        message_id: str,
        behind_damage: bool = False,
    ) -> int:
        """See `JournalStore.append`."""
        return await self._gate.write(
            lambda: self._inner.append(
                log,
                value,
                expected=expected,
                message_id=message_id,
                behind_damage=behind_damage,
            )
        )

    async def last(self, log: str) -> JournalEntry | None:
        """See `JournalStore.last`."""
        return await self._gate.run(lambda: self._inner.last(log))

    async def first_from(self, log: str, sequence: int) -> JournalEntry | None:
        """See `JournalStore.first_from`."""
        return await self._gate.run(lambda: self._inner.first_from(log, sequence))

    async def first_since(self, log: str, moment: datetime) -> JournalEntry | None:
        """See `JournalStore.first_since`."""
        return await self._gate.run(lambda: self._inner.first_since(log, moment))

    async def read(
        self,
        log: str,
        after: int,
        *,
        limit: int = PAGE_ENTRIES,
        max_bytes: int = PAGE_BYTES,
        sure: bool = False,
    ) -> JournalPage:
        """See `JournalStore.read`."""
        return await self._gate.run(
            lambda: self._inner.read(log, after, limit=limit, max_bytes=max_bytes, sure=sure)
        )

    async def trim(self, log: str, through: int) -> None:
        """See `JournalStore.trim`."""
        await self._gate.run(lambda: self._inner.trim(log, through))

    async def remove(self, log: str, through: int) -> None:
        """See `JournalStore.remove`."""
        await self._gate.run(lambda: self._inner.remove(log, through))

    def follow(self, log: str) -> AbstractAsyncContextManager[Growth]:
        """See `JournalStore.follow`."""
        return self._inner.follow(log)

    async def now(self) -> datetime:
        """See `JournalStore.now`."""
        return await self._gate.run(self._inner.now)

    async def has_little_room(self) -> bool:
        """See `JournalStore.has_little_room`."""
        return await self._gate.run(self._inner.has_little_room)

    async def check(self) -> None:
        """See `JournalStore.check`."""
        await self._inner.check()

    async def aclose(self) -> None:
        """See `JournalStore.aclose`."""


async def code_of(work: Awaitable[object]) -> str:
    """``ok``, or the code of the failure."""
    try:
        await work
    except HoldfastError as error:
        return error.code
    return "ok"


async def codes_of(*works: Awaitable[str]) -> list[str]:
    """The outcomes of several at once."""
    return list(await asyncio.gather(*works))


async def let_through(gate: Gate, task: asyncio.Task[T], calls: int) -> int:
    """Let so many calls of ``task`` to its stores through, or until it has ended; how many."""
    for number in range(calls):
        while not (gate.held or task.done()):  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0)
        if task.done():
            return number
        gate.let_go()
    return calls
