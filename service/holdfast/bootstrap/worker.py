"""A worker: connected, checked, put together, and run until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.archive.create.content import check_chunker
from holdfast.bootstrap.care import CareParts
from holdfast.bootstrap.collector import assemble_collector
from holdfast.bootstrap.links import assemble_links
from holdfast.bootstrap.names import NameParts
from holdfast.bootstrap.setup import Setup
from holdfast.bootstrap.snapshots import SnapshotParts
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.states import StateParts
from holdfast.bootstrap.stores import Stores, open_stores
from holdfast.bootstrap.watch import assemble_watch
from holdfast.errors import HoldfastError, UnavailableError
from holdfast.handlers.blobs import BlobHandlers
from holdfast.handlers.care import CareHandlers
from holdfast.handlers.names import NameHandlers
from holdfast.handlers.status import StatusHandlers
from holdfast.handlers.uploads import UploadHandlers
from holdfast.protocol.blobs import COLLECT_FEATURE
from holdfast.protocol.message import WIRE_VERSION
from holdfast.protocol.names import NAMES_FEATURE
from holdfast.protocol.states import STATES_FEATURE
from holdfast.protocol.subjects import part_subject, reply_pattern
from holdfast.repository.blobs import BLOBS, PACKS, BlobRepository
from holdfast.repository.care.doctor import Surroundings
from holdfast.repository.keepers import Keepers
from holdfast.repository.ledger.lapses import SWEEPS_PER_LEASE
from holdfast.repository.snapshots.apps import Apps
from holdfast.repository.states.keeping import StateKeeper
from holdfast.repository.uploads.owned import UploadLimits
from holdfast.repository.uploads.uploads import UploadService
from holdfast.runtime.dispatch import Dispatcher
from holdfast.runtime.format_watch import FormatWatch
from holdfast.runtime.freshness import PROVE_SECONDS, Freshness
from holdfast.runtime.lifecycle import Chore, EventThatTells, WorkersConnection, serve_until_stopped
from holdfast.runtime.metrics import serve_metrics, show
from holdfast.runtime.peers import LOOK_SECONDS, Peers
from holdfast.runtime.startup import (
    StoppedError,
    check_layout,
    check_servers,
    check_stores,
    missing_right_told,
    unless_stopped,
)
from holdfast.runtime.statistics import Identity
from holdfast.runtime.worker import Worker
from holdfast.runtime.worker_metrics import (
    care_metrics,
    collector_metrics,
    connection_metrics,
    index_metrics,
    request_metrics,
    state_metrics,
)
from holdfast.stores.wrappers.guarded import StoreMetrics
from holdfast.tracing import NO_TRACER, Tracer
from holdfast.transport.connection import Connection, connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from holdfast.domain.store_state import Durability
    from holdfast.handlers.endpoint import AnyEndpoint
    from holdfast.runtime.config import Config
    from holdfast.runtime.store_watch import StoreWatch
    from holdfast.transport.options import NatsOptions

log = structlog.get_logger(__name__)
RENEW_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 20.0
"""Time a worker waits for the leader of a bucket: a failover takes up to 16."""


async def run_worker(
    config: Config,
    *,
    renew: Callable[[], NatsOptions] | None = None,
    tracer: Tracer = NO_TRACER,
    on_stop: Callable[[], None] = lambda: None,
) -> int:
    """Answer requests until SIGTERM or SIGINT; the process's exit status.

    ``renew`` gives ``config.nats`` anew, for each time that the connection is made again.
    ``tracer`` makes a span of each request. ``on_stop`` is called when the worker is to end: by a
    signal, a store of a later form, or a connection that is lost.

    0 after draining; 1 when the connection is closed for good, so that a supervisor starts another,
    and when the store has got a form of a later version.
    Raises HoldfastError, once it is logged, when the start-up checks refuse.
    """
    loop = asyncio.get_running_loop()
    stop, lost = EventThatTells(on_stop), EventThatTells(on_stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        with missing_right_told():
            connection = await connect(config.nats, observer=WorkersConnection(lost), renew=renew)
            try:
                return await _serve(config, connection, stop, lost, tracer)
            finally:
                with contextlib.suppress(Exception):
                    await connection.close()
    except StoppedError:
        return 0
    except HoldfastError as error:
        # A sentence for the operator; a traceback would not help.
        log.error("worker_not_started", code=error.code, detail=error.detail)  # noqa: TRY400
        raise


async def _serve(
    config: Config,
    connection: Connection,
    stop: asyncio.Event,
    lost: asyncio.Event,
    tracer: Tracer,
) -> int:
    check_chunker()
    _check_apps(config)
    inbox = Inbox(connection, config.nats.inbox_prefix)
    jetstream = partial(JetStream, connection, inbox, domain=config.nats.jetstream_domain or "")
    stores = open_stores(config, jetstream(patience_seconds=PATIENCE_SECONDS), SOURCES)
    watch = stores.watch(config, jetstream())
    servers = await watch.servers()
    check_servers(servers, stores.layout, require_sync=config.require_sync)
    if servers.durability == "synced":
        stores.group_puts()
    grace = await unless_stopped(check_stores(partial(_check_stores, stores, watch)), stop)
    stores.leave_young(grace)
    with serve_metrics(config.metrics_host, config.metrics_port) as registry:
        setup = Setup(
            config=config,
            sources=SOURCES,
            worker=SOURCES.new_id(),
            max_payload=connection.max_payload,
            grace=grace,
            tracer=tracer,
        )
        guarded = stores.guarded(StoreMetrics.register(registry), SOURCES, grace)
        parts = _Parts(setup, inbox, guarded, watch, servers.durability)
        _show_metrics(registry, connection, parts)
        return await parts.serve(stop, lost)


def _check_apps(config: Config) -> None:
    """Raises UnavailableError with what to change."""
    if config.apps is not None and not Path(config.apps).is_dir():
        msg = f"the directory of apps, {config.apps}, is not there: make it, or change `apps`"
        raise UnavailableError(msg)


async def _check_stores(stores: Stores, watch: StoreWatch) -> timedelta:
    """See `Stores.check`."""
    grace = await stores.check()
    await check_layout(watch.jetstream, stores.streams, stores.layout)
    return grace


class _Parts:
    """The parts of a worker."""

    def __init__(
        self, setup: Setup, inbox: Inbox, stores: Stores, watch: StoreWatch, durability: Durability
    ) -> None:
        config = setup.config
        connection = watch.jetstream.connection
        self._setup = setup
        self._stores = stores
        self.names = NameParts(setup, stores)
        self._uploads = _uploads(setup, stores, self.names)
        self._apps = Apps(Path(config.apps) if config.apps is not None else None)
        self.peers = _peers(setup, connection, inbox, self._apps)
        self.snapshots = SnapshotParts(
            setup,
            stores,
            apps=self._apps,
            peers=self.peers,
            publish=partial(_publish, connection),
        )
        self.states = StateParts(setup, stores)
        self._watches = assemble_watch(setup, stores)
        self._freshness = Freshness(connection)
        self.collector = assemble_collector(setup, stores, self.names)
        surroundings = Surroundings(
            store=watch.read,
            counts=watch.counts,
            clocks=self.peers.clocks,
            troubles=lambda: self.snapshots.pruner.troubles,
        )
        self.care = CareParts(
            setup,
            stores,
            self.collector,
            self.states.replays,
            surroundings,
            lambda: connection.server_info,
        )
        self.worker = Worker(
            connection,
            Dispatcher(setup.sources, timeout_seconds=config.request_timeout_seconds),
            self._endpoints(watch),
            _identity(setup, durability),
            prefix=config.prefix,
            max_concurrent=config.max_concurrent_requests,
            inbox_prefixes=config.inbox_prefixes,
            node=config.node if config.apps is not None else None,
            age=lambda: self._freshness.most_seconds,
            tracer=setup.tracer,
        )

    def _endpoints(self, watch: StoreWatch) -> tuple[AnyEndpoint, ...]:
        index, pruner = self.names.index, self.snapshots.pruner
        return (
            *_blobs(self._setup, self._stores, self._uploads, self.names),
            *StatusHandlers(watch.read, lambda: index.state, pruner.advice).endpoints(),
            *self.snapshots.handlers.endpoints(),
            *self.snapshots.retention.endpoints(),
            *self.states.handlers.endpoints(),
            *self.states.follows.endpoints(),
            *self._watches.endpoints(),
            *CareHandlers(
                self.care.scrub, self.care.usage, self.care.doctor, self.collector
            ).endpoints(),
            *assemble_links(self._setup, self._stores, self.names, self.snapshots),
        )

    async def serve(self, stop: asyncio.Event, lost: asyncio.Event) -> int:
        """See `serve_until_stopped`. Raises UnavailableError, StoppedError before that."""
        form = FormatWatch(self._stores.check_format, stop)
        async with AsyncExitStack() as stack:
            self._end_with(stack)
            await unless_stopped(self.peers.check_node(), stop)
            self.peers.start()
            self.names.index.start()
            status = await serve_until_stopped(
                self.worker,
                self._chores(form),
                stop=stop,
                lost=lost,
                drain_seconds=self._setup.config.drain_seconds,
                drain_too=(self._watches.drain, self.states.follows.drain, self._drain),
            )
            return 1 if form.is_outdated else status

    def _end_with(self, stack: AsyncExitStack) -> None:
        """Have ``stack`` end all of them, the last one first, whatever one raises."""
        stack.push_async_callback(self._stores.aclose)
        stack.callback(self._apps.close)
        stack.push_async_callback(self._uploads.aclose)
        stack.push_async_callback(self.names.index.aclose)
        stack.push_async_callback(self.snapshots.aclose)
        stack.push_async_callback(self.states.upkeep.aclose)
        stack.push_async_callback(self.collector.aclose)
        stack.push_async_callback(self.care.aclose)

    def _chores(self, form: FormatWatch) -> tuple[Chore, ...]:
        config = self._setup.config
        sweep_seconds = config.upload_lease_seconds / SWEEPS_PER_LEASE
        return (
            Chore("prove_freshness", PROVE_SECONDS, self._freshness.prove, first_seconds=0),
            Chore("renew_uploads", RENEW_SECONDS, self._uploads.renew),
            Chore("sweep_uploads", sweep_seconds, self._uploads.sweep),
            Chore("read_format", sweep_seconds, form.look),
            Chore("collect", config.collect_every_seconds, self.collector.run),
            Chore("look_for_peers", LOOK_SECONDS, self.peers.look, first_seconds=0),
            *self.names.chores(self._uploads),
            *self.snapshots.chores(),
            *self.states.chores(),
            *self.care.chores(),
            *self._stores.chores,
        )

    async def _drain(self, seconds: float) -> None:
        """Take nothing that others would forward; let archives and restores end."""
        self.peers.stop()
        await self.snapshots.jobs.drain(seconds)


def _show_metrics(registry: CollectorRegistry, connection: Connection, parts: _Parts) -> None:
    worker, peers, pruner = parts.worker, parts.peers, parts.snapshots.pruner
    show(registry, lambda: connection_metrics(connection, worker))
    show(registry, lambda: collector_metrics(parts.collector.totals))
    show(registry, lambda: care_metrics(parts.care.scrub.totals, pruner.totals))
    show(registry, lambda: index_metrics(parts.names.index.state))
    show(registry, lambda: state_metrics(parts.states.records.totals))
    show(registry, lambda: request_metrics(worker.stats, peers.clocks(timedelta())))


def _uploads(setup: Setup, stores: Stores, names: NameParts) -> UploadService:
    return UploadService(
        stores.blobs,
        stores.records,
        owner=setup.worker,
        part_size=setup.part_bytes,
        sources=setup.sources,
        limits=UploadLimits(
            max_uploads=setup.config.max_uploads,
            memory_bytes=setup.config.upload_memory_bytes,
            lease_seconds=setup.config.upload_lease_seconds,
        ),
        targets=names.targets,
    )


def _blobs(
    setup: Setup, stores: Stores, uploads: UploadService, names: NameParts
) -> tuple[AnyEndpoint, ...]:
    spaces = {BLOBS: stores.blobs, PACKS: stores.packs}
    blobs = BlobHandlers(
        BlobRepository(spaces, max_inline_bytes=setup.max_inline_bytes),
        names.names,
        names.index,
        Keepers((names.index, StateKeeper(stores.snapshots))),
    )
    of_names = NameHandlers(names.names, names.index, max_inline_bytes=setup.max_inline_bytes)
    of_uploads = UploadHandlers(
        uploads, worker=setup.worker, part_subject=partial(part_subject, setup.config.prefix)
    )
    return (*blobs.endpoints(), *of_names.endpoints(), *of_uploads.endpoints())


def _peers(setup: Setup, connection: Connection, inbox: Inbox, apps: Apps) -> Peers:
    return Peers(
        connection,
        inbox,
        apps,
        node=setup.config.node,
        worker=setup.worker,
        prefix=setup.config.prefix,
        reply=reply_pattern(setup.config.inbox_prefixes),
        sources=setup.sources,
    )


def _publish(connection: Connection, subject: str, data: bytes) -> None:
    """Send what nobody has to hear."""
    with contextlib.suppress(HoldfastError):
        connection.send(subject, data)


def _identity(setup: Setup, durability: Durability) -> Identity:
    return Identity(
        id=setup.worker,
        version=version("holdfast"),
        started=setup.sources.clock().isoformat().replace("+00:00", "Z"),
        metadata={
            "node": setup.config.node,
            "wire": str(WIRE_VERSION),
            "durability": durability,
            "max_inline_bytes": str(setup.max_inline_bytes),
            "features": f"{NAMES_FEATURE},{COLLECT_FEATURE},{STATES_FEATURE}",
        },
    )
