"""Three servers: whichever is asked, and whatever happens to one, a follower lacks nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.record_changes import Follower, listed
from tests.nats.buckets import new_nuid
from tests.nats.clusters import Cluster
from tests.nats.tools import connected

from holdfast.errors import HoldfastError
from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, record_stream
from holdfast.stores.jetstream.buckets.readiness import wait_ready
from holdfast.stores.jetstream.buckets.replication import wait_for_leader
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.location import BucketLocation
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

pytestmark = [pytest.mark.nats, pytest.mark.slow]

SETTLE_SECONDS = 60.0
PATIENCE_SECONDS = 20.0
WRITERS = 6
WRITES = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def stores(cluster: Cluster, fresh_name: str) -> AsyncIterator[list[KeyValueRecordStore]]:
    """One on a connection to each server, which it leaves where it must."""
    async with AsyncExitStack() as opened:
        found = []
        for first in cluster.urls:
            servers = (first, *(url for url in cluster.urls if url != first))
            connection = await opened.enter_async_context(connected(NatsOptions(servers=servers)))
            js = JetStream(connection, Inbox(connection), patience_seconds=PATIENCE_SECONDS)
            found.append(KeyValueRecordStore(js, fresh_name, new_id=new_nuid))
        stream = record_stream(fresh_name, BucketLocation(bucket=fresh_name, replicas=3))
        await wait_ready(lambda: ensure_stream(js, stream), SETTLE_SECONDS)
        await wait_ready(lambda: wait_for_leader(js, f"KV_{fresh_name}"), SETTLE_SECONDS)
        yield found


class Writers:
    """They write to keys of their own; ``acknowledged`` has the last revision of each."""

    def __init__(self, stores: Sequence[KeyValueRecordStore]) -> None:
        self.acknowledged: dict[str, int] = {}
        self.running = WRITERS
        self.half_done = asyncio.Event()
        self._stores = stores

    async def write(self, writer: int) -> None:
        """Some writes. A key is left alone once it is not known what became of one."""
        store = self._stores[writer % len(self._stores)]
        unknown: set[str] = set()
        for number in range(WRITES):
            key = f"w{writer}.{number % 7}"
            if key not in unknown:
                try:
                    present = self.acknowledged.get(key, 0)
                    self.acknowledged[key] = await store.put(key, b"%d" % number, expected=present)
                except HoldfastError:
                    unknown.add(key)
            if number == WRITES // 2:
                self.half_done.set()
        self.running -= 1


@pytest.mark.parametrize("is_killed", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_a_follower_lacks_nothing_that_was_acknowledged(
    cluster: Cluster, stores: list[KeyValueRecordStore], is_killed: bool
) -> None:
    writers = Writers(stores)

    async def follow(store: KeyValueRecordStore) -> None:
        follower = Follower(store)
        while writers.running:
            before = dict(writers.acknowledged)
            try:
                await follower.catch_up(limit=20)
            except HoldfastError:
                continue
            last = {change.key: change.revision for change in follower.changes}
            assert {key for key in before if last[key] < before[key]} == set()
        await follower.catch_up()
        assert follower.records == await listed(store)

    async def kill() -> None:
        await writers.half_done.wait()
        if is_killed:
            await asyncio.to_thread(cluster.kill, "nats-2")
            await asyncio.to_thread(cluster.start, "nats-2")

    await asyncio.gather(*map(writers.write, range(WRITERS)), *map(follow, stores), kill())

    assert writers.acknowledged
