"""The composition root: the one place that names concrete stores and puts the parts together."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec
import structlog

from holdfast.archive.create.content import check_chunker
from holdfast.bootstrap.snapshots import (
    SnapshotService,
    SnapshotSettings,
    SnapshotStores,
    Sources,
)
from holdfast.domain.limits import MAX_BLOB_BYTES, max_inline_bytes, part_bytes
from holdfast.domain.store_state import Durability, Layout
from holdfast.errors import ForbiddenError, HoldfastError, InvalidError, UnavailableError
from holdfast.handlers.blobs import BlobHandlers
from holdfast.handlers.status import StatusHandlers
from holdfast.protocol.message import WIRE_VERSION
from holdfast.protocol.subjects import part_subject, reply_pattern
from holdfast.repository.blobs import BLOBS, PACKS, BlobRepository
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.snapshots.apps import Apps
from holdfast.repository.uploads.owned import UploadLimits
from holdfast.repository.uploads.uploads import UploadService
from holdfast.runtime.connection_metrics import ConnectionMetrics
from holdfast.runtime.dispatch import Dispatcher
from holdfast.runtime.lifecycle import Chore, WorkersConnection, serve_until_stopped
from holdfast.runtime.metrics import serve_metrics
from holdfast.runtime.peers import LOOK_SECONDS, Peers
from holdfast.runtime.startup import (
    check_layout,
    check_server_version,
    check_servers,
    check_stores,
    unless_stopped,
)
from holdfast.runtime.store_watch import StoreWatch
from holdfast.runtime.worker import Identity, Worker
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.files import create_disk_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.disk.store import DiskBlobStore
from holdfast.stores.jetstream.deployment import (
    GRACE_SECONDS,
    Deployment,
    check_deployment,
    write_deployment,
)
from holdfast.stores.jetstream.deployment import (
    KEY as DEPLOYMENT_KEY,
)
from holdfast.stores.jetstream.objects import ObjectBlobStore
from holdfast.stores.jetstream.provisioning import (
    bucket_names,
    ensure_stream,
    object_stream,
    record_stream,
)
from holdfast.stores.jetstream.readiness import NotReadyError, wait_ready
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.jetstream.replication import wait_for_leader
from holdfast.stores.location import BucketLocation, DiskLocation, parse_location
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.wrappers.guarded import (
    GuardedBlobStore,
    Limits,
    Retries,
    StoreMetrics,
)
from holdfast.transport.connection import Connection, connect
from holdfast.transport.fresh_ids import new_id as new_id
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.jetstream_messages import DeniedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast.runtime.config import Config
    from holdfast.stores.jetstream.provisioning import Buckets
    from holdfast.stores.ports import BlobStore, RecordStore
    from holdfast.transport.options import NatsOptions

log = structlog.get_logger(__name__)
RENEW_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 20.0
"""How long a worker waits for the leader of a bucket: a failover takes up to 16."""

STORE_CONCURRENCY: Final = 1024
STORE_ATTEMPTS: Final = 3
STORE_RETRY_SECONDS: Final = 10.0
STORE_FIRST_WAIT_SECONDS: Final = 0.05
SWEEP_SECONDS: Final = 3600.0
SWEEP_GRACE: Final = timedelta(hours=24)
LEADER_SECONDS: Final = 10.0
"""How long a bucket that was just made may be without a leader."""

INIT_SECONDS: Final = 30.0
"""A server that is starting, or has much to do, takes seconds to make a bucket."""


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)  # noqa: TID251  (here the clock enters)


def new_uuid() -> str:
    """A fresh UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random ones."""
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | 7 << 76
    bits = bits & ~(0b11 << 62) | 0b10 << 62
    return str(UUID(int=bits))


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one deployment, and what has to be done for them now and then."""

    blobs: BlobStore
    packs: BlobStore
    records: RecordStore
    snapshots: RecordStore
    deployment: Deployment | None = None
    streams: tuple[str, ...] = ()
    chores: tuple[Chore, ...] = ()

    async def check(self) -> None:
        """Raises UnavailableError with what to change."""
        await self.blobs.check()
        await self.packs.check()
        await self.records.check()
        await self.snapshots.check()
        if self.deployment is not None:
            await check_deployment(self.records, self.deployment)

    def group_puts(self) -> None:
        """See `ObjectBlobStore.group_puts`, where they are such stores."""
        for store in (self.blobs, self.packs):
            if isinstance(store, ObjectBlobStore):
                store.group_puts()

    async def aclose(self) -> None:
        """Release what they hold."""
        for store in (self.blobs, self.packs, self.records, self.snapshots):
            await store.aclose()


def open_stores(url: str, prefix: str, jetstream: JetStream) -> Stores:
    """The stores that ``url`` names; nothing is created but in memory. Raises InvalidError."""
    location = parse_location(url)
    if isinstance(location, BucketLocation):
        names = bucket_names(location.bucket, prefix)
        return Stores(
            ObjectBlobStore(jetstream, names.blobs, new_id=new_id, clock=utc_now),
            ObjectBlobStore(jetstream, names.packs, new_id=new_id, clock=utc_now),
            KeyValueRecordStore(jetstream, names.records, new_id=new_id),
            KeyValueRecordStore(jetstream, names.snapshots, new_id=new_id),
            _deployment(names),
            names.streams,
        )
    if isinstance(location, DiskLocation):
        return _disk_stores(location)
    return Stores(
        MemoryBlobStore(),
        MemoryBlobStore(),
        MemoryRecordStore(time.monotonic),
        MemoryRecordStore(time.monotonic),
    )


def _deployment(names: Buckets) -> Deployment:
    return Deployment(blobs=names.blobs, packs=names.packs, snapshots=names.snapshots)


def _disk_stores(location: DiskLocation) -> Stores:
    blobs_root, packs_root, records_root, snapshots_root = _disk_roots(location)
    stores = (
        DiskBlobStore(blobs_root, new_id=new_id, clock=utc_now),
        DiskBlobStore(packs_root, new_id=new_id, clock=utc_now),
        DiskRecordStore(records_root, clock=utc_now),
        DiskRecordStore(snapshots_root, clock=utc_now),
    )

    async def sweep() -> None:
        for store in stores:
            await store.sweep(utc_now(), SWEEP_GRACE)

    return Stores(*stores, chores=(Chore("sweep_disk", SWEEP_SECONDS, sweep),))


def _disk_roots(location: DiskLocation) -> tuple[Path, Path, Path, Path]:
    root = location.root
    return root / BLOBS, root / PACKS, root / "records", root / "snapshots"


async def init_store(
    config: Config,
    *,
    wait_seconds: float = INIT_SECONDS,
    waiting: Callable[[str], None] = lambda _why: None,
) -> list[str]:
    """Create the store's buckets where they are missing; a sentence about each.

    What may pass by itself (no connection, no leader, too few servers so far) is waited for;
    ``waiting`` is told what it is. Raises ConflictError when a bucket is there that does not fit,
    ForbiddenError, UnavailableError.
    """
    location = parse_location(config.store)
    if isinstance(location, DiskLocation):
        *of_blobs, records, snapshots = _disk_roots(location)
        for root in (records, snapshots):
            await asyncio.to_thread(create_record_store, root)
        for root in of_blobs:
            await asyncio.to_thread(create_disk_store, root)
        return [f"{location.root} is a disk store"]
    if not isinstance(location, BucketLocation):
        return ["a memory store needs nothing"]
    return await wait_ready(partial(_init_buckets, config, location), wait_seconds, waiting=waiting)


async def _init_buckets(config: Config, location: BucketLocation) -> list[str]:
    names = bucket_names(location.bucket, config.prefix)
    async with _jetstream(config) as js:
        check_server_version(str(js.connection.server_info.get("version", "0")))
        lines = [
            await ensure_stream(js, object_stream(names.blobs, location)),
            await ensure_stream(js, object_stream(names.packs, location)),
            await ensure_stream(js, record_stream(names.records, location)),
            await ensure_stream(js, record_stream(names.snapshots, location)),
        ]
        for stream in names.streams:
            await wait_ready(partial(wait_for_leader, js, stream), LEADER_SECONDS)
        records = KeyValueRecordStore(js, names.records, new_id=new_id)
        return [*lines, await write_deployment(records, _deployment(names))]


@contextlib.asynccontextmanager
async def watch_store(config: Config) -> AsyncIterator[StoreWatch]:
    """The buckets of the store, for commands about the store itself.

    Raises InvalidError when it has none, ForbiddenError, UnavailableError.
    """
    location = parse_location(config.store)
    if not isinstance(location, BucketLocation):
        msg = f"the store {config.store} has no buckets: this is for nats://BUCKET"
        raise InvalidError(msg)
    async with _jetstream(config) as js:
        yield _watch(config, js, bucket_names(location.bucket, config.prefix).streams, location)


def _watch(config: Config, js: JetStream, streams: tuple[str, ...], layout: Layout) -> StoreWatch:
    return StoreWatch(
        jetstream=js,
        streams=streams,
        layout=layout,
        monitor_urls=config.monitor_url,
        require_sync=config.require_sync,
    )


@contextlib.asynccontextmanager
async def _jetstream(config: Config) -> AsyncIterator[JetStream]:
    """On a connection of its own. Raises NotReadyError while there is no server to connect to."""
    try:
        connection = await connect(config.nats)
    except UnavailableError as error:
        raise NotReadyError(error.detail) from error
    try:
        inbox = Inbox(connection, config.nats.inbox_prefix)
        yield JetStream(connection, inbox, domain=config.nats.jetstream_domain or "")
    except DeniedError as error:
        raise _forbidden(error) from error
    finally:
        await connection.close()


def _forbidden(error: DeniedError) -> ForbiddenError:
    """For the operator: which right is missing is in the cause."""
    return ForbiddenError(str(error.__cause__ or error))


async def run_worker(config: Config, *, renew: Callable[[], NatsOptions] | None = None) -> int:
    """Answer requests until SIGTERM or SIGINT; the process's exit status.

    ``renew`` gives ``config.nats`` anew, for each time that the connection is made again.

    0 after draining; 1 when the connection is closed for good, so that a supervisor starts another.
    Raises HoldfastError, once it is logged, when the start-up checks refuse.
    """
    loop = asyncio.get_running_loop()
    stop, lost = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        connection = await connect(
            config.nats,
            observer=WorkersConnection(lost),
            renew=renew,
        )
        try:
            return await _serve(config, connection, stop, lost)
        finally:
            with contextlib.suppress(Exception):
                await connection.close()
    except DeniedError as error:
        refused = _forbidden(error)
        _log_refusal(refused)
        raise refused from error
    except HoldfastError as error:
        _log_refusal(error)
        raise


async def _serve(
    config: Config, connection: Connection, stop: asyncio.Event, lost: asyncio.Event
) -> int:
    check_chunker()
    _check_apps(config)
    inbox = Inbox(connection, config.nats.inbox_prefix)
    domain = config.nats.jetstream_domain or ""
    jetstream = JetStream(connection, inbox, domain=domain, patience_seconds=PATIENCE_SECONDS)
    stores = open_stores(config.store, config.prefix, jetstream)
    location = parse_location(config.store)
    layout = location if isinstance(location, BucketLocation) else Layout()
    watch = _watch(config, JetStream(connection, inbox, domain=domain), stores.streams, layout)
    servers = await watch.servers()
    check_servers(servers, layout, require_sync=config.require_sync)
    if servers.durability == "synced":
        stores.group_puts()

    async def check() -> None:
        await stores.check()
        await check_layout(watch.jetstream, stores.streams, layout)

    if not await unless_stopped(check_stores(check), stop):
        return 0
    with serve_metrics(config.metrics_host, config.metrics_port) as registry:
        metrics = StoreMetrics.register(registry)
        grace = await _grace(stores)
        parts = _assemble(config, inbox, stores, watch, metrics, servers.durability, grace)
        ConnectionMetrics.register(registry, connection, parts.worker)
        chores = (
            Chore("renew_uploads", RENEW_SECONDS, parts.uploads.renew),
            Chore(
                "sweep_uploads", config.upload_lease_seconds / SWEEPS_PER_LEASE, parts.uploads.sweep
            ),
            Chore("look_for_peers", LOOK_SECONDS, parts.peers.look, first_seconds=0),
            *parts.snapshots.chores(),
            *stores.chores,
        )
        try:
            if not await unless_stopped(parts.peers.check_node(), stop):
                return 0
            parts.peers.start()
            return await serve_until_stopped(
                parts.worker,
                chores,
                stop=stop,
                lost=lost,
                drain_seconds=config.drain_seconds,
                drain_too=(parts.drain,),
            )
        finally:
            await parts.snapshots.aclose()
            await parts.uploads.aclose()
            parts.apps.close()
            await stores.aclose()


def _check_apps(config: Config) -> None:
    """Raises UnavailableError with what to change."""
    if config.apps is not None and not Path(config.apps).is_dir():
        msg = f"the directory of apps, {config.apps}, is not there: make it, or change `apps`"
        raise UnavailableError(msg)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a worker is made of."""

    worker: Worker
    uploads: UploadService
    snapshots: SnapshotService
    peers: Peers
    apps: Apps

    async def drain(self, seconds: float) -> None:
        """Take nothing that others would forward; let archives and restores end."""
        self.peers.stop()
        await self.snapshots.drain(seconds)


async def _grace(stores: Stores) -> timedelta:
    """How long the collector leaves alone what nothing refers to: all workers must agree."""
    if stores.deployment is None:
        return timedelta(seconds=GRACE_SECONDS)
    record = await stores.records.get(DEPLOYMENT_KEY)
    deployment = msgspec.json.decode(record.value, type=Deployment)  # it has been checked
    return timedelta(seconds=deployment.grace_seconds)


def _assemble(
    config: Config,
    inbox: Inbox,
    stores: Stores,
    watch: StoreWatch,
    metrics: StoreMetrics,
    durability: Durability,
    grace: timedelta,
) -> _Parts:
    connection = watch.jetstream.connection
    worker_id = new_id()
    max_payload = connection.max_payload
    blobs = _wrapped(stores.blobs, metrics)
    packs = _wrapped(stores.packs, metrics)
    repository = BlobRepository(
        {BLOBS: blobs, PACKS: packs}, max_inline_bytes=max_inline_bytes(max_payload)
    )
    uploads = UploadService(
        blobs,
        stores.records,
        owner=worker_id,
        part_size=part_bytes(max_payload),
        new_id=new_id,
        clock=utc_now,
        monotonic=time.monotonic,
        limits=UploadLimits(
            max_uploads=config.max_uploads,
            memory_bytes=config.upload_memory_bytes,
            lease_seconds=config.upload_lease_seconds,
        ),
    )
    blob_handlers = BlobHandlers(
        repository,
        uploads,
        part_subject=partial(part_subject, config.prefix, worker_id),
    )
    apps = Apps(Path(config.apps) if config.apps is not None else None)
    peers = Peers(
        connection,
        inbox,
        apps,
        node=config.node,
        worker=worker_id,
        prefix=config.prefix,
        reply=reply_pattern(config.inbox_prefixes),
        clock=utc_now,
        monotonic=time.monotonic,
    )
    snapshots = SnapshotService(
        SnapshotStores(packs=packs, records=stores.snapshots, ops=stores.records),
        SnapshotSettings(
            worker=worker_id,
            node=config.node,
            prefix=config.prefix,
            lease_seconds=config.snapshot_lease_seconds,
            max_archives=config.max_archives,
            max_inline_bytes=max_inline_bytes(max_payload),
            part_size=part_bytes(max_payload),
            grace=grace,
        ),
        Sources(clock=utc_now, monotonic=time.monotonic, new_nuid=new_id, new_uuid=new_uuid),
        apps=apps,
        peers=peers,
        publish=partial(_publish, connection),
    )
    worker = Worker(
        connection,
        Dispatcher(
            clock=utc_now,
            monotonic=time.monotonic,
            timeout_seconds=config.request_timeout_seconds,
        ),
        (
            *blob_handlers.endpoints(),
            *StatusHandlers(watch.read).endpoints(),
            *snapshots.handlers.endpoints(),
        ),
        _identity(config, worker_id, durability, max_payload),
        prefix=config.prefix,
        max_concurrent=config.max_concurrent_requests,
        inbox_prefixes=config.inbox_prefixes,
        node=config.node if config.apps is not None else None,
    )
    return _Parts(worker, uploads, snapshots, peers, apps)


def _publish(connection: Connection, subject: str, data: bytes) -> None:
    """Send what nobody has to hear."""
    with contextlib.suppress(HoldfastError):
        connection.send(subject, data)


def _wrapped(store: BlobStore, metrics: StoreMetrics) -> BlobStore:
    """``store`` with what is common to all."""
    return GuardedBlobStore(
        store,
        limits=Limits(max_blob_bytes=MAX_BLOB_BYTES, max_concurrent=STORE_CONCURRENCY),
        retries=Retries(
            attempts=STORE_ATTEMPTS,
            timeout_seconds=STORE_RETRY_SECONDS,
            first_wait_seconds=STORE_FIRST_WAIT_SECONDS,
        ),
        metrics=metrics,
        monotonic=time.monotonic,
    )


def _identity(config: Config, worker_id: str, durability: Durability, max_payload: int) -> Identity:
    return Identity(
        id=worker_id,
        version=version("holdfast"),
        started=utc_now().isoformat().replace("+00:00", "Z"),
        metadata={
            "node": config.node,
            "wire": str(WIRE_VERSION),
            "durability": durability,
            "max_inline_bytes": str(max_inline_bytes(max_payload)),
        },
    )


def _log_refusal(error: HoldfastError) -> None:
    """A sentence for the operator; a traceback would not help."""
    log.error("worker_not_started", code=error.code, detail=error.detail)
