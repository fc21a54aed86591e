"""Three workers on the nodes a, b and c, each with a directory of apps of its own."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from tests.deployment import Deployment

from holdfast.bootstrap.admin import init_store, watch_store
from holdfast.stores.jetstream.buckets.provisioning import bucket_names
from holdfast.stores.jetstream.buckets.readiness import (
    TOO_FEW_SERVERS,
    NotReadyError,
    ask_api,
    wait_ready,
)
from holdfast.transport.jetstream_messages import ApiRefusedError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.cluster.servers import Cluster

    from holdfast.runtime.store_watch import StoreWatch

NODES: Final = ("a", "b", "c")
STORE: Final = "nats://blobs?replicas=3"
LEASE_SECONDS: Final = "10"
_PROVISION_SECONDS: Final = 60.0
_REPLICAS_SECONDS: Final = 240.0


class Pool(Deployment):
    """The workers, told of all three servers. A prefix of their own."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        super().__init__(",".join(cluster.urls), store=STORE)
        self.cluster = cluster
        self.apps = {node: directory / node for node in NODES}
        for path in self.apps.values():
            path.mkdir(parents=True)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of its buckets."""
        return bucket_names("blobs", self.prefix).streams

    async def __aenter__(self) -> Self:
        await self.cluster.wait_formed()
        await self._provision()
        await self.cluster.wait_settled(self.streams)
        self.start_workers()
        await self.wait_serving(set(NODES))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.drain()
        for node in [*self.workers]:
            self.kill(node)

    def start_workers(self, *nodes: str) -> None:
        """Start the workers of ``nodes``, or all; they do not serve yet."""
        for node in nodes or NODES:
            self.spawn(node, apps=str(self.apps[node]), snapshot_lease_seconds=LEASE_SECONDS)

    def wake(self, node: str) -> None:
        """Let a paused worker go on."""
        self.signal(node, signal.SIGCONT)

    async def order_replicas(self, replicas: int) -> None:
        """Have the servers begin to keep so many copies of every bucket."""
        async with watch_store(self.config) as store:
            for stream in self.streams:
                await wait_ready(partial(_order, store, stream, replicas), _REPLICAS_SECONDS)

    async def keep_replicas(self, replicas: int) -> None:
        """Keep so many copies of every bucket, as ``holdfast admin replicas`` does."""
        async with asyncio.timeout(_REPLICAS_SECONDS), watch_store(self.config) as store:
            async for _ in store.keep_replicas(replicas, lambda _state: None):
                pass

    async def drain(self) -> None:
        """Stop all workers, and see that each ended well."""
        nodes = [*self.workers]
        statuses = await asyncio.gather(*(asyncio.to_thread(self.stop, node) for node in nodes))
        assert set(statuses) <= {0}, dict(zip(nodes, statuses, strict=True))

    async def _provision(self) -> None:
        """Do as ``holdfast admin init --wait``."""
        await init_store(self.config, wait_seconds=_PROVISION_SECONDS)


async def _order(store: StoreWatch, stream: str, replicas: int) -> None:
    found = await ask_api(store.jetstream, f"STREAM.INFO.{stream}")
    change = {**found["config"], "num_replicas": replicas}
    try:
        await ask_api(store.jetstream, f"STREAM.UPDATE.{stream}", change)
    except ApiRefusedError as refused:
        if refused.err_code not in TOO_FEW_SERVERS:
            raise
        raise NotReadyError(refused.detail) from refused  # those cut off count as away for a moment
