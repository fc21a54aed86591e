"""The parts of a worker that deal with snapshots, put together: handlers, chores, the drain.

Stores, clocks and ids come from the composition root, as everywhere.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.bridge import BridgedPackStore
from holdfast.domain.limits import MIB
from holdfast.handlers.snapshots import SnapshotHandlers, SnapshotServices
from holdfast.protocol import codec
from holdfast.protocol.snapshots import SnapshotProgress
from holdfast.protocol.subjects import PROGRESS_SUBJECT, prefixed
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE, Lapses
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.ledger.ops import Ops
from holdfast.repository.snapshots.archives import Archives
from holdfast.repository.snapshots.jobs import Jobs
from holdfast.repository.snapshots.lapses import watched_snapshots
from holdfast.repository.snapshots.listing import SnapshotListing
from holdfast.repository.snapshots.making import Owner, Snapshots
from holdfast.repository.snapshots.manifests import Manifests
from holdfast.repository.snapshots.packs import Packs
from holdfast.repository.snapshots.placement import Placement
from holdfast.repository.snapshots.reads import SnapshotReads
from holdfast.repository.snapshots.record import StoredRestore
from holdfast.repository.snapshots.restores import Restores
from holdfast.runtime.lifecycle import Chore

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from holdfast.archive.ports import Progress
    from holdfast.repository.snapshots.apps import Apps
    from holdfast.repository.snapshots.placement import Peers
    from holdfast.repository.snapshots.record import Stored
    from holdfast.stores.ports import BlobStore, RecordStore

READ_THREADS: Final = 8
MAX_HUNG_THREADS: Final = 32
"""Threads of jobs that were given up and do not end: in a file system that does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStores:
    """Where snapshots are kept. ``ops`` remembers what an ``Op-Id`` stands for."""

    packs: BlobStore
    records: RecordStore
    ops: RecordStore


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSettings:
    """What a worker is told. Sizes are bytes; ``grace`` is the collector's."""

    worker: str
    node: str
    prefix: str
    lease_seconds: float
    max_archives: int
    max_inline_bytes: int
    part_size: int
    grace: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Time, and what is made up: nuids, and UUIDs of version 7."""

    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    new_nuid: Callable[[], str]
    new_uuid: Callable[[], str]


class SnapshotService:
    """Everything about snapshots that one worker has. Made in the event loop that runs it."""

    def __init__(
        self,
        stores: SnapshotStores,
        settings: SnapshotSettings,
        sources: Sources,
        *,
        apps: Apps,
        peers: Peers,
        publish: Callable[[str, bytes], None],
    ) -> None:
        """``publish`` sends a message to a subject, and never raises."""
        self._settings = settings
        self._publish = publish
        self._subject = prefixed(settings.prefix, PROGRESS_SUBJECT)
        self._job_threads = ThreadPoolExecutor(settings.max_archives + MAX_HUNG_THREADS, "archive")
        self._read_threads = ThreadPoolExecutor(READ_THREADS, "read")
        packs = Packs(
            stores.packs,
            clock=sources.clock,
            monotonic=sources.monotonic,
            new_id=sources.new_nuid,
            max_inline_bytes=settings.max_inline_bytes,
            part_size=settings.part_size,
            grace=settings.grace,
        )
        ledger = Ledger(stores.records)
        listing = SnapshotListing(ledger)
        ops = Ops(stores.ops)
        owner = Owner(id=settings.worker, node=settings.node, lease_seconds=settings.lease_seconds)
        self.jobs = Jobs(
            ledger,
            self._job_threads,
            max_jobs=settings.max_archives,
            clock=sources.clock,
            announce=self._announce,
        )
        loop = asyncio.get_running_loop()

        def open_store(cache_bytes: int) -> BridgedPackStore:
            return BridgedPackStore(
                loop, packs.get, packs.put, window_bytes=MIB, cache_bytes=cache_bytes
            )

        snapshots = Snapshots(
            ledger,
            listing,
            ops,
            packs,
            Manifests(packs, open_store, self._read_threads),
            new_id=sources.new_uuid,
            clock=sources.clock,
            on_removed=self.jobs.cancel,
        )
        self.lapses = Lapses(
            ledger,
            watched_snapshots(ledger, clock=sources.clock, is_ours=self.jobs.has),
            monotonic=sources.monotonic,
            sweep_seconds=settings.lease_seconds / SWEEPS_PER_LEASE,
        )
        self.restores = Restores(
            ledger,
            ops,
            self.jobs,
            packs,
            apps,
            owner=owner,
            new_id=sources.new_uuid,
            clock=sources.clock,
        )
        self.handlers = SnapshotHandlers(
            SnapshotServices(
                snapshots=snapshots,
                listing=listing,
                reads=SnapshotReads(
                    open_store, self._read_threads, max_inline_bytes=settings.max_inline_bytes
                ),
                archives=Archives(
                    snapshots, self.jobs, packs, apps, owner=owner, clock=sources.clock
                ),
                restores=self.restores,
                placement=Placement(apps, peers, node=settings.node, last_node=listing.last_node),
            ),
            lease_seconds=settings.lease_seconds,
        )

    def chores(self) -> tuple[Chore, ...]:
        """What is to be done in the background."""
        lease_seconds = self._settings.lease_seconds
        return (
            Chore(
                "sweep_snapshots",
                lease_seconds / SWEEPS_PER_LEASE,
                self.lapses.sweep,
                first_seconds=0,
            ),
            Chore("sweep_stagings", lease_seconds, self.restores.sweep, first_seconds=0),
        )

    async def drain(self, seconds: float) -> None:
        """Let archives and restores end for ``seconds``; then stop them."""
        await self.jobs.drain(seconds)

    async def aclose(self) -> None:
        """Stop what still runs."""
        await self.jobs.aclose()
        for threads in (self._job_threads, self._read_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    def _announce(self, record: Stored, progress: Progress) -> None:
        is_restore = isinstance(record, StoredRestore)
        message = SnapshotProgress(
            key=record.snapshot if isinstance(record, StoredRestore) else str(record.key),
            state=record.state,
            phase=progress.phase,
            entries=progress.entries,
            bytes=progress.bytes,
            added=progress.stored_bytes,
            restore=record.id if is_restore else None,
        )
        self._publish(f"{self._subject}.{record.id}", codec.encode(message))
