"""One of three copies loses something: never wrong bytes, found by some lap, and put anew."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.nats.clusters import Cluster
from tests.nats.tools import connected
from tests.repository.care.scrubs import lap_of, scrub_of
from tests.repository.care.test_flipped_bits import read
from tests.repository.collector.conftest import Deployed
from tests.repository.collector.test_collector import put
from tests.repository.collector.test_lost_records import flip_a_bit
from tests.runtime.test_start_refusals import config_of

from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import open_stores
from holdfast.domain.findings import of_replicas
from holdfast.errors import UnavailableError
from holdfast.runtime.monitoring import stream_counts
from holdfast.stores.jetstream.buckets.provisioning import bucket_names
from holdfast.stores.jetstream.buckets.readiness import wait_ready
from holdfast.stores.jetstream.buckets.replication import read_bucket
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.bootstrap.stores import Stores
    from holdfast.domain.digest import Digest
    from holdfast.domain.store_state import BucketState
    from holdfast.runtime.config import Config

pytestmark = [pytest.mark.nats, pytest.mark.long, pytest.mark.slow, pytest.mark.fault("N12", "F5")]

BLOBS: Final = 60
SIZE: Final = 400_000
STREAM: Final = "OBJ_flip_blobs"
SETTLE_SECONDS: Final = 60.0


def config_at(cluster: Cluster, name: str) -> Config:
    """The settings of a worker that is connected to one of the servers."""
    return config_of(cluster.url(name), prefix="flip", store="nats://blobs?replicas=3")


@asynccontextmanager
async def patient(config: Config) -> AsyncIterator[JetStream]:
    """JetStream as a worker has it, which waits for a leader."""
    async with connected(config.nats) as connection:
        yield JetStream(connection, Inbox(connection), patience_seconds=SETTLE_SECONDS)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Stores]:
    """The stores as a worker has them."""
    async with patient(config) as jetstream:
        stores = open_stores(config, jetstream, SOURCES)
        yield stores
        await stores.aclose()


async def state_of(cluster: Cluster, stream: str) -> BucketState:
    """The stream, once somebody tells of it."""
    async with patient(config_at(cluster, cluster.names[0])) as jetstream:
        return await wait_ready(lambda: read_bucket(jetstream, stream), SETTLE_SECONDS)


async def until_current(cluster: Cluster) -> None:
    """Until all copies of all buckets are there, and have come as far as the leader's."""
    async with asyncio.timeout(2 * SETTLE_SECONDS):
        for stream in bucket_names("blobs", "flip").streams:
            while not is_current(await state_of(cluster, stream)):  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.2)


def is_current(state: BucketState) -> bool:
    """Whether no copy lags."""
    return bool(state.leader) and state.current == 3 and not any(one.lag for one in state.peers)


async def read_everywhere(cluster: Cluster, stored: dict[Digest, bytes]) -> set[bytes | None]:
    """Reads at each server that differ from what was put; None: nothing, or corrupt."""
    wrong: set[bytes | None] = set()
    for name in cluster.names:
        async with opened(config_at(cluster, name)) as stores:
            for digest, data in stored.items():
                got = await read_when_ready(stores, digest)
                if got != data:
                    wrong.add(got)
    return wrong


async def read_when_ready(stores: Stores, digest: Digest) -> bytes | None:
    """The bytes for a reader who is told that a server is not ready, and comes again."""
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            try:
                return await read(stores.blobs, digest)
            except UnavailableError:
                await asyncio.sleep(0.2)


async def test_what_one_replica_has_lost_is_never_read_wrongly_and_is_put_anew(
    tmp_path: Path,
) -> None:
    with Cluster(tmp_path) as cluster:
        config = config_at(cluster, cluster.names[0])
        await wait_ready(lambda: init_store(config), SETTLE_SECONDS)
        async with opened(config_at(cluster, cluster.names[0])) as stores:
            stored = {}
            for number in range(BLOBS):
                data = some_bytes(SIZE, number)
                stored[await put(stores.blobs, data, pinned=True)] = data
        await until_current(cluster)
        leader = (await state_of(cluster, STREAM)).leader
        follower = next(name for name in cluster.names if name != leader)
        cluster.kill(follower)
        flip_a_bit(tmp_path / follower, STREAM)
        for index in (tmp_path / follower).rglob(f"{STREAM}/msgs/index.db"):
            index.unlink()  # by it the server would start without reading the block
        cluster.start(follower)
        await until_current(cluster)

        before = await read_everywhere(cluster, stored)
        differing = list(of_replicas(await stream_counts(cluster.monitor_urls, (STREAM,))))
        async with opened(config_at(cluster, follower)) as stores:
            scrub = scrub_of(Deployed(config_at(cluster, follower), stores), place=follower)
            lap = await lap_of(scrub)
            while not lap.damaged:  # the list came from where their records are lost, too
                lap = await lap_of(scrub)
            [record] = await scrub.places()
        after = await read_everywhere(cluster, stored)

        assert before == after == set(), "what a replica lacks the leader has"
        assert {one.kind for one in differing} == {"replicas_differ"}
        assert lap.damaged == lap.healed > 0
        assert record.wanted, "there may be more: what was lost with its record was not listed"
