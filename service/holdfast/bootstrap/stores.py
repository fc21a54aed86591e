"""The stores of a deployment: the one module that names concrete stores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import MAX_BLOB_BYTES
from holdfast.domain.store_state import Layout
from holdfast.errors import UnavailableError
from holdfast.repository.blobs import BLOBS, PACKS
from holdfast.runtime.lifecycle import Chore
from holdfast.runtime.store_watch import StoreWatch
from holdfast.stores.deployment import (
    FORMAT,
    Deployment,
    check_deployment,
    find_deployment,
    write_deployment,
)
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.files import create_disk_store, raise_disk_format
from holdfast.stores.disk.journal import DiskJournalStore, create_journal_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.disk.store import DiskBlobStore
from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
from holdfast.stores.jetstream.buckets.provisioning import bucket_names
from holdfast.stores.jetstream.journal import StreamJournalStore
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.location import BucketLocation, DiskLocation, parse_location
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.memory_journal import MemoryJournalStore
from holdfast.stores.wrappers.guarded import GuardedBlobStore, Limits, Retries, StoreMetrics

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.runtime.config import Config
    from holdfast.sources import Sources
    from holdfast.stores.journal_ports import JournalStore
    from holdfast.stores.ports import BlobStore
    from holdfast.stores.record_ports import RecordStore
    from holdfast.transport.jetstream import JetStream

RECORDS: Final = "records"
SNAPSHOTS: Final = "snapshots"
NAMES: Final = "names"
STATES: Final = "states"
LIMITS: Final = Limits(max_blob_bytes=MAX_BLOB_BYTES, max_concurrent=1024)
RETRIES: Final = Retries(attempts=3, timeout_seconds=10.0, first_wait_seconds=0.05)
SWEEP_SECONDS: Final = 3600.0
SWEEP_GRACE: Final = timedelta(hours=24)
LOCAL: Final = Deployment(
    blobs=BLOBS, packs=PACKS, snapshots=SNAPSHOTS, names=NAMES, states=STATES, format=FORMAT
)
"""The record of a deployment whose stores lie on one machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """The stores of one deployment, and what has to be done for them now and then.

    ``records`` are those of uploads and requests, ``names`` those of named blobs, and ``states``
    has the logs of states. ``streams`` are those of the buckets, which are to be kept as ``layout``
    says, and ``deployment`` what is to be recorded of them all. ``is_new``: nobody has set them up,
    for they are in memory. ``root``: where they lie on disk.
    """

    blobs: BlobStore
    packs: BlobStore
    records: RecordStore
    snapshots: RecordStore
    names: RecordStore
    states: JournalStore
    deployment: Deployment = LOCAL
    is_new: bool = False
    root: Path | None = None
    streams: tuple[str, ...] = ()
    layout: Layout = field(default_factory=Layout)
    chores: tuple[Chore, ...] = ()

    async def check(self) -> timedelta:
        """Whether they are there; for how long a collector leaves alone what nothing refers to.

        In that all workers must agree. Raises UnavailableError with what to change, NotReadyError.
        """
        for store in (self.blobs, self.packs, self.records):
            await store.check()
        if self.is_new:
            await write_deployment(self.records, self.deployment)
        found = await check_deployment(self.records, self.deployment)
        for added_later in (self.snapshots, self.names, self.states):
            await added_later.check()
        return timedelta(seconds=found.grace_seconds)

    async def check_format(self) -> None:
        """Whether this version still knows the form of what is stored.

        Raises UnfitError, UnavailableError, CorruptError.
        """
        await find_deployment(self.records, self.deployment)

    def group_puts(self) -> None:
        """See `ObjectBlobStore.group_puts`, where they are such stores."""
        for store in (self.blobs, self.packs):
            if isinstance(store, ObjectBlobStore):
                store.group_puts()

    def leave_young(self, grace: timedelta) -> None:
        """See `ObjectBlobStore.leave_young`, where they are such stores."""
        for store in (self.blobs, self.packs):
            if isinstance(store, ObjectBlobStore):
                store.leave_young(grace)

    def guarded(self, metrics: StoreMetrics, sources: Sources, grace: timedelta) -> Stores:
        """The same with what is common to all: limits, retries, metrics.

        ``grace`` is how long a collector leaves alone what nothing refers to.
        """
        when_full = (
            "a blob that nothing keeps makes room when it is deleted, and what else is not needed"
            f" with the first collection {grace} later"
        )
        guard = partial(
            GuardedBlobStore,
            limits=replace(LIMITS, when_full=when_full),
            retries=RETRIES,
            metrics=metrics,
            monotonic=sources.monotonic,
        )
        return replace(self, blobs=guard(self.blobs), packs=guard(self.packs))

    def watch(self, config: Config, jetstream: JetStream) -> StoreWatch:
        """A watch on buckets and servers."""
        return StoreWatch(
            jetstream=jetstream,
            streams=self.streams,
            layout=self.layout,
            monitor_urls=config.monitor_url,
            require_sync=config.require_sync,
        )

    async def aclose(self) -> None:
        """Release what they hold. May be repeated."""
        for store in (
            self.blobs,
            self.packs,
            self.records,
            self.snapshots,
            self.names,
            self.states,
        ):
            await store.aclose()


def open_stores(config: Config, jetstream: JetStream, sources: Sources) -> Stores:
    """The stores that ``config`` names; nothing is created but in memory. Raises InvalidError."""
    location = parse_location(config.store)
    if isinstance(location, BucketLocation):
        return _in_buckets(location, config.prefix, jetstream, sources)
    if isinstance(location, DiskLocation):
        return open_on_disk(location.root, sources)
    records = partial(MemoryRecordStore, sources.monotonic, clock=sources.clock)
    return Stores(
        blobs=MemoryBlobStore(sources.clock),
        packs=MemoryBlobStore(sources.clock),
        records=records(),
        snapshots=records(),
        names=records(),
        states=MemoryJournalStore(sources.clock),
        is_new=True,
    )


def _in_buckets(
    location: BucketLocation, prefix: str, jetstream: JetStream, sources: Sources
) -> Stores:
    names = bucket_names(location.bucket, prefix)
    records = partial(KeyValueRecordStore, jetstream, new_id=sources.new_id)
    return Stores(
        blobs=ObjectBlobStore(jetstream, names.blobs, sources=sources),
        packs=ObjectBlobStore(jetstream, names.packs, sources=sources),
        records=records(names.records),
        snapshots=records(names.snapshots),
        names=records(names.names),
        states=StreamJournalStore(jetstream, names.states),
        deployment=Deployment(
            blobs=names.blobs,
            packs=names.packs,
            snapshots=names.snapshots,
            names=names.names,
            states=names.states,
            format=FORMAT,
        ),
        streams=names.streams,
        layout=location,
    )


def is_on_disk(root: Path) -> bool:
    """Whether something was set up there before, by whatever version."""
    return (root / RECORDS).is_dir()


def create_on_disk(root: Path) -> None:
    """Make what is missing under ``root``. Blocks. Raises UnavailableError, QuotaExceededError."""
    for name in (RECORDS, SNAPSHOTS, NAMES):
        create_record_store(root / name)
    create_journal_store(root / STATES)
    for name in (BLOBS, PACKS):
        create_disk_store(root / name)


def upgrade_on_disk(root: Path) -> None:
    """Make what is missing where an older version has made a store. As `create_on_disk`."""
    if not is_on_disk(root):
        msg = f"there is no store in {root}; mount it, or `holdfast admin init` makes one"
        raise UnavailableError(msg)
    create_on_disk(root)


def keep_older_out(root: Path) -> None:
    """Have older versions refuse the stores of blobs. Blocks. Raises UnavailableError."""
    for name in (BLOBS, PACKS):
        raise_disk_format(root / name)


def open_on_disk(root: Path, sources: Sources) -> Stores:
    """The stores that `create_on_disk` has made."""
    blobs = DiskBlobStore(root / BLOBS, sources=sources)
    packs = DiskBlobStore(root / PACKS, sources=sources)
    records, snapshots, names = (
        DiskRecordStore(root / name, clock=sources.clock) for name in (RECORDS, SNAPSHOTS, NAMES)
    )

    states = DiskJournalStore(root / STATES, clock=sources.clock)

    async def sweep() -> None:
        for store in (blobs, packs, records, snapshots, names):
            await store.sweep(sources.clock(), SWEEP_GRACE)
        await states.look_for_damage()

    return Stores(
        blobs=blobs,
        packs=packs,
        records=records,
        snapshots=snapshots,
        names=names,
        states=states,
        root=root,
        chores=(Chore("sweep_disk", SWEEP_SECONDS, sweep),),
    )
