"""Three servers, and an index at each: whichever is asked, it lacks nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.nats.buckets import new_nuid
from tests.nats.clusters import Cluster
from tests.nats.tools import connected
from tests.repository.names.index.index_tools import Names, page, running

from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, record_stream
from holdfast.stores.jetstream.buckets.readiness import wait_ready
from holdfast.stores.jetstream.buckets.replication import wait_for_leader
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.location import BucketLocation
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.nats, pytest.mark.slow]

SETTLE_SECONDS = 60.0
WRITES = 40


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def stores(cluster: Cluster) -> AsyncIterator[list[KeyValueRecordStore]]:
    """One bucket on a connection to each server."""
    bucket = f"names-{new_nuid()}"
    async with AsyncExitStack() as opened:
        found = []
        for url in cluster.urls:
            connection = await opened.enter_async_context(connected(NatsOptions(servers=(url,))))
            js = JetStream(connection, Inbox(connection))
            found.append(KeyValueRecordStore(js, bucket, new_id=new_nuid))
        stream = record_stream(bucket, BucketLocation(bucket=bucket, replicas=3))
        await wait_ready(lambda: ensure_stream(js, stream), SETTLE_SECONDS)
        await wait_ready(lambda: wait_for_leader(js, f"KV_{bucket}"), SETTLE_SECONDS)
        yield found


async def test_a_list_at_one_server_has_what_was_acknowledged_by_another(
    stores: list[KeyValueRecordStore],
) -> None:
    async with AsyncExitStack() as opened:
        indexes = [await opened.enter_async_context(running(store)) for store in stores]

        async def write(writer: int) -> None:
            names = Names(stores[writer])
            other = indexes[(writer + 1) % len(indexes)]
            for number in range(WRITES):
                await names.write(f"{writer}/again", version=number + 1)
                await names.write(f"{writer}/{number}")

                found = {entry.name: entry.version for entry in (await page(other)).names}

                assert found.get(f"{writer}/again", 0) > number
                assert f"{writer}/{number}" in found

        await asyncio.gather(*map(write, range(len(stores))))

        assert [index.state.rebuilt for index in indexes] == [0, 0, 0]
