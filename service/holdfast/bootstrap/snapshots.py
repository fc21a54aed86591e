"""The parts of a worker that deal with snapshots: handlers, chores, the drain."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.archive.bridge import BridgedPackStore
from holdfast.domain.limits import MIB
from holdfast.handlers.retention import RetentionHandlers
from holdfast.handlers.snapshots import SnapshotHandlers
from holdfast.protocol import codec
from holdfast.protocol.snapshots import SnapshotProgress
from holdfast.protocol.subjects import PROGRESS_SUBJECT, prefixed
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE, Lapses
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.ledger.ops import Ops
from holdfast.repository.snapshots.archives import Archives
from holdfast.repository.snapshots.lapses import watched_snapshots
from holdfast.repository.snapshots.listing import SnapshotListing
from holdfast.repository.snapshots.making import Maker, SnapshotLedger
from holdfast.repository.snapshots.manifests import Manifests
from holdfast.repository.snapshots.packs import Packs
from holdfast.repository.snapshots.placement import AppPeers, Placement
from holdfast.repository.snapshots.reading.reads import SnapshotReads
from holdfast.repository.snapshots.record import StoredRestore
from holdfast.repository.snapshots.restores import Restores
from holdfast.repository.snapshots.retention.policies import Policies
from holdfast.repository.snapshots.retention.prune import Pruner
from holdfast.repository.snapshots.retention.zones import TimeZones, packaged_zones
from holdfast.repository.snapshots.running import Jobs
from holdfast.runtime.lifecycle import Chore

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.archive.ports import Progress
    from holdfast.bootstrap.setup import Setup
    from holdfast.bootstrap.stores import Stores
    from holdfast.repository.snapshots.apps import Apps
    from holdfast.repository.snapshots.placement import AppPeers
    from holdfast.repository.snapshots.record import StoredWork

    Publish = Callable[[str, bytes], None]
    """Sends a message to a subject, and never raises."""

READ_THREADS: Final = 8
MAX_HUNG_THREADS: Final = 32
"""Threads of jobs that were given up and do not end: in a file system that does not answer."""

PRUNE_JITTER: Final = 0.2
"""So far workers that were started together drift apart, as a share of the interval."""


class SnapshotParts:
    """Everything about snapshots that one worker has. Made in the event loop that runs it."""

    def __init__(
        self,
        setup: Setup,
        stores: Stores,
        *,
        apps: Apps,
        peers: AppPeers,
        publish: Publish,
        zones: TimeZones | None = None,
    ) -> None:
        """``apps`` are this worker's; ``zones`` those of this program, unless others are given."""
        config, sources = setup.config, setup.sources
        lease_seconds = config.snapshot_lease_seconds
        owner = Maker(id=setup.worker, node=config.node, lease_seconds=lease_seconds)
        ledger, ops = Ledger(stores.snapshots), Ops(stores.records)
        listing = SnapshotListing(ledger)
        packs = packs_of(setup, stores)
        open_store = opener_of(packs)
        readers = ThreadPoolExecutor(READ_THREADS, "read")
        workers = ThreadPoolExecutor(config.max_archives + MAX_HUNG_THREADS, "archive")
        jobs = _jobs(setup, ledger, workers, publish)
        manifests = Manifests(packs, open_store, readers)
        snapshots = SnapshotLedger(
            ledger, listing, ops, packs, manifests, sources=sources, on_removed=jobs.cancel
        )
        zones = zones or packaged_zones()
        policies = Policies(ledger, zones)
        self._config = config
        self._threads = (workers, readers)
        self.lapses = _lapses(setup, ledger, jobs)
        self.jobs = jobs
        self.ledger = snapshots
        self.pruner = Pruner(ledger, listing, ops, policies, zones, sources=sources)
        self.restores = Restores(ledger, ops, jobs, packs, apps, owner=owner, sources=sources)
        self.reads = SnapshotReads(open_store, readers, max_inline_bytes=setup.max_inline_bytes)
        self.handlers = SnapshotHandlers(
            snapshots=snapshots,
            listing=listing,
            reads=self.reads,
            archives=Archives(snapshots, jobs, packs, apps, owner=owner, clock=sources.clock),
            restores=self.restores,
            placement=Placement(apps, peers, node=config.node, last_node=listing.last_node),
            lease_seconds=lease_seconds,
        )
        self.retention = RetentionHandlers(
            snapshots, policies, self.pruner, max_inline_bytes=setup.max_inline_bytes
        )

    def chores(self) -> tuple[Chore, ...]:
        """The work to be done in the background."""
        config = self._config
        lease_seconds = config.snapshot_lease_seconds
        sweep_seconds = lease_seconds / SWEEPS_PER_LEASE
        return (
            Chore("sweep_snapshots", sweep_seconds, self.lapses.sweep, first_seconds=0),
            Chore("sweep_stagings", lease_seconds, self.restores.sweep, first_seconds=0),
            Chore("prune_snapshots", config.prune_seconds, self.pruner.run, jitter=PRUNE_JITTER),
        )

    async def aclose(self) -> None:
        """Stop what still runs."""
        await self.jobs.aclose()
        self.reads.close()
        for threads in self._threads:
            threads.shutdown(wait=False, cancel_futures=True)


def packs_of(setup: Setup, stores: Stores) -> Packs:
    """The packs of these stores."""
    return Packs(
        stores.packs,
        sources=setup.sources,
        max_inline_bytes=setup.max_inline_bytes,
        part_size=setup.part_bytes,
        grace=setup.grace,
    )


def opener_of(packs: Packs) -> Callable[[int], BridgedPackStore]:
    """Gives threads the packs, with a cache of so many bytes. To be called in an event loop."""
    bridged = partial(
        BridgedPackStore,
        get=packs.get,
        put=packs.put,
        get_latest=packs.get_latest,
        window_bytes=MIB,
    )
    return lambda cache_bytes: bridged(asyncio.get_running_loop(), cache_bytes=cache_bytes)


def _jobs(setup: Setup, ledger: Ledger, threads: ThreadPoolExecutor, publish: Publish) -> Jobs:
    subject = prefixed(setup.config.prefix, PROGRESS_SUBJECT)
    return Jobs(
        ledger,
        threads,
        max_jobs=setup.config.max_archives,
        clock=setup.sources.clock,
        announce=lambda record, progress: publish(
            f"{subject}.{record.id}", codec.encode(_progress_of(record, progress))
        ),
    )


def _progress_of(record: StoredWork, progress: Progress) -> SnapshotProgress:
    return SnapshotProgress(
        key=record.snapshot if isinstance(record, StoredRestore) else str(record.key),
        state=record.state,
        phase=progress.phase,
        entries=progress.entries,
        bytes=progress.bytes,
        added=progress.stored_bytes,
        restore=record.id if isinstance(record, StoredRestore) else None,
    )


def _lapses(setup: Setup, ledger: Ledger, jobs: Jobs) -> Lapses:
    sources = setup.sources
    return Lapses(
        ledger,
        watched_snapshots(ledger, clock=sources.clock, is_ours=jobs.has),
        monotonic=sources.monotonic,
        sweep_seconds=setup.config.snapshot_lease_seconds / SWEEPS_PER_LEASE,
    )
