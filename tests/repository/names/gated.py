"""Workers that keep names, each of whose calls to a store a test lets through when it likes.

Also what removes blobs that no name needs, as hastily as its rules allow: without a grace time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

from tests.repository.names.pool import NamesPool, NamesWorker
from tests.repository.pool import BucketBlobStore, DoomedBlobStore, DoomedRecordStore

from holdfast.errors import OutcomeUnknownError
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.names.index.table import PendingWrite
from holdfast.repository.names.lapses import NameLapses
from holdfast.repository.names.record import NAME, NameRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.repository.pool import Holdup

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobStore
    from holdfast.stores.record_ports import RecordStore

T = TypeVar("T")

LEASE_SECONDS: Final = 300.0


class Gate:
    """Holds a worker up before each of its calls to a store."""

    def __init__(self) -> None:
        self.held: list[asyncio.Future[bool]] = []

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call, once it may go."""
        await self._wait()
        return await function()

    async def write(self, function: Callable[[], Awaitable[T]]) -> T:
        """Do one call, whose answer may be lost."""
        is_heard = await self._wait()
        result = await function()
        if not is_heard:
            raise OutcomeUnknownError
        return result

    async def _wait(self) -> bool:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.held.append(turn)
        return await turn

    def let_go(self, place: int = 0, *, is_heard: bool = True) -> None:
        """Let the call at that place through; whether its answer ``is_heard`` if it is a write."""
        self.held.pop(place).set_result(is_heard)


class GatedRecordStore(DoomedRecordStore):
    """The record store, as a worker behind a gate sees it."""

    def __init__(self, inner: RecordStore, gate: Gate) -> None:
        super().__init__(inner, gate)
        self._gate = gate

    async def _write(self, function: Callable[[], Awaitable[T]]) -> T:
        return await self._gate.write(function)


class CollectedBlobStore(BucketBlobStore):
    """A store from which blobs are removed as they were listed, or not at all."""

    def listed(self) -> dict[Digest, int]:
        """Every blob, with the revision of its last change: it was put or touched."""
        return {digest: self._log.revision(digest) for digest in self._blobs}

    def remove(self, digest: Digest, revision: int) -> None:
        """Remove a blob that nobody has put or touched since it was listed so."""
        if digest in self._blobs and self._log.revision(digest) == revision:
            del self._blobs[digest]
            self._log.note(digest, None, "deleted")


class GatedPool(NamesPool):
    """Stores that workers behind gates share."""

    def __init__(self) -> None:
        super().__init__()
        self.collected = CollectedBlobStore()
        self.blobs = self.collected
        self._doomed: dict[Digest, int] = {}
        self._observer = self.worker("observer")
        self._lapses = NameLapses(
            self._observer.writes,
            self._pending,
            self._observer.uploads.is_live,
            monotonic=self.time.monotonic,
            lease_seconds=LEASE_SECONDS,
        )

    def gated(self, name: str, gate: Gate) -> NamesWorker:
        """A worker whose calls to the stores wait for ``gate``."""
        return NamesWorker(
            name,
            DoomedBlobStore(self.blobs, gate),
            GatedRecordStore(self.names, gate),
            GatedRecordStore(self.records, gate),
            self.time,
        )

    def doomed(self, name: str, doom: Holdup) -> NamesWorker:
        """A worker that stops at a call to a store."""
        return NamesWorker(
            name,
            DoomedBlobStore(self.blobs, doom),
            DoomedRecordStore(self.names, doom),
            DoomedRecordStore(self.records, doom),
            self.time,
        )

    def on(self, blobs: BlobStore) -> NamesWorker:
        """A worker that sees ``blobs`` instead."""
        return NamesWorker("a", blobs, self.names, self.records, self.time)

    async def name_records(self) -> list[NameRecord]:
        """The record of every name."""
        found = [record async for record in self.names.list_records(NAME.prefix)]
        return [NAME.read(record).record for record in found]

    async def lapse(self) -> None:
        """Let all leases pass, as a worker sees it that looks."""
        for _ in range(SWEEPS_PER_LEASE + 1):
            await self.sweep()

    async def sweep(self) -> None:
        """Have a worker look once for what has lapsed, and let the time to the next look pass."""
        await self._observer.uploads.sweep()
        await self._lapses.sweep()
        self.time.advance(LEASE_SECONDS / SWEEPS_PER_LEASE)

    async def look_for_garbage(self) -> None:
        """List the blobs, and then what no name needs of them."""
        listed = self.collected.listed()
        needed = set()
        for record in await self.name_records():
            needed |= {one.digest for one in record.pending}
            if record.content is not None:
                needed.add(record.content.digest)
        self._doomed = {digest: seen for digest, seen in listed.items() if digest not in needed}

    def collect(self) -> None:
        """Remove what was found at the last look, where it is as it was then."""
        for digest, seen in self._doomed.items():
            self.collected.remove(digest, seen)

    async def _pending(self) -> list[PendingWrite]:
        return [
            PendingWrite(name=record.name, op=one.op, at=one.at)
            for record in await self.name_records()
            for one in record.pending
        ]
