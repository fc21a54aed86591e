"""A watcher of a replicated store has every step though its servers are killed, one by one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.deployment import Deployment
from tests.nats.clusters import Cluster
from tests.watching import Watcher, check_complete, write_until

from holdfast.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]
WRITERS = 4


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def deployment(cluster: Cluster) -> Iterator[Deployment]:
    """Two workers, and three copies of everything."""
    store = "nats://blobs?replicas=3"
    with Deployment(",".join(cluster.urls), store=store) as deployment:
        deployment.start("one", "two")
        yield deployment


@pytest.mark.fault("each server killed while names are watched")
async def test_every_step_is_told_though_each_server_is_killed_in_turn(
    cluster: Cluster, deployment: Deployment
) -> None:
    names = [f"{folder}/{number}" for folder in "ab" for number in range(200)]
    async with await connect(
        servers=deployment.servers, prefix=deployment.prefix, timeout_seconds=60
    ) as client:
        since = await client.position("names")
        watchers = [Watcher(client, "names", since, prefix) for prefix in ("", "a/", "b/") * 2]
        stop = asyncio.Event()
        writing = [
            asyncio.create_task(write_until(client, stop, names[start::WRITERS]))
            for start in range(WRITERS)
        ]
        for name in cluster.names:
            await watchers[0].wait_for(len(watchers[0].had) + 50)
            cluster.kill(name)
            await watchers[0].wait_for(len(watchers[0].had) + 50)
            cluster.launch(name)
            await asyncio.to_thread(cluster.wait_healthy, name)
        stop.set()
        await asyncio.gather(*writing)
        for folder in "ab":
            await client.names.put(f"{folder}/last", b"")
        for watcher in watchers:
            await watcher.wait_for_last(2 if watcher.prefix else 4)
            await watcher.stop()

        await check_complete(client, watchers)
