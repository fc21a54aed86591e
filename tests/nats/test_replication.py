"""Copies of buckets on three servers: how many, where, how they keep up, and changing that."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from tests.nats.clusters import Cluster

from holdfast.bootstrap.admin import init_store, watch_store
from holdfast.domain.store_state import BucketState, Layout, is_settled
from holdfast.errors import UnavailableError
from holdfast.runtime.config import Config
from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, object_stream
from holdfast.stores.jetstream.buckets.readiness import NotReadyError
from holdfast.stores.jetstream.buckets.replication import (
    Kept,
    bucket_state,
    keep_replicas,
    next_step,
    read_bucket,
    wait_for_leader,
)
from holdfast.stores.location import BucketLocation
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.nats, pytest.mark.slow]

SETTLE_SECONDS = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three servers, of which two have fast disks."""
    tags = {"nats-1": ["ssd", "eu"], "nats-2": ["ssd"], "nats-3": ["tape"]}
    with Cluster(tmp_path_factory.mktemp("cluster"), tags=tags) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def js(cluster: Cluster) -> AsyncIterator[JetStream]:
    """JetStream of the three."""
    connection = await connect(NatsOptions(servers=cluster.urls))
    yield JetStream(connection, Inbox(connection))
    await connection.close()


async def made(js: JetStream, name: str, **stated: Any) -> str:
    """A bucket that takes writes; its stream."""
    await ensure_stream(js, object_stream(name, BucketLocation(bucket=name, **stated)))
    stream = f"OBJ_{name}"
    async with asyncio.timeout(SETTLE_SECONDS):
        while True:
            try:
                await wait_for_leader(js, stream)
            except NotReadyError:
                await asyncio.sleep(0.1)
            else:
                return stream


async def keep(
    js: JetStream, stream: str, replicas: int, layout: Layout | None = None
) -> tuple[Kept, list[BucketState]]:
    """How the bucket is kept in the end, and what was seen until then."""
    seen: list[BucketState] = []
    async with asyncio.timeout(SETTLE_SECONDS):
        kept = await keep_replicas(js, stream, replicas, layout or Layout(), seen.append)
    return kept, seen


async def test_copies_are_added_and_removed_while_everything_stays(
    js: JetStream, fresh_name: str
) -> None:
    stream = await made(js, fresh_name)
    for number in range(50):
        await js.publish(f"$O.{fresh_name}.C.{number}", bytes(50_000), {})

    up, _ = await keep(js, stream, 3)
    down, _ = await keep(js, stream, 1)

    assert (up.changed, down.changed) == (True, True)
    assert {peer.name for peer in up.state.peers} == {"nats-1", "nats-2", "nats-3"}
    assert (up.state.replicas, up.state.messages) == (3, 50)
    assert (down.state.replicas, len(down.state.peers), down.state.messages) == (1, 1, 50)


async def test_asking_again_changes_nothing_and_waits_for_what_was_begun(
    js: JetStream, fresh_name: str
) -> None:
    stream = await made(js, fresh_name)
    config = (await js.api(f"STREAM.INFO.{stream}"))["config"]
    await js.api(f"STREAM.UPDATE.{stream}", {**config, "num_replicas": 3})

    kept, seen = await keep(js, stream, 3)

    assert kept.changed is False
    assert is_settled(seen[-1], 3)


async def test_more_copies_than_servers_are_refused_and_nothing_is_changed(
    js: JetStream, fresh_name: str
) -> None:
    stream = await made(js, fresh_name, replicas=3)
    before = (await js.api(f"STREAM.INFO.{stream}"))["config"]

    with pytest.raises(UnavailableError, match=f"refused 5 .* of {stream}: no suitable peers"):
        await keep(js, stream, 5)

    assert (await js.api(f"STREAM.INFO.{stream}"))["config"] == before


async def test_a_bucket_lies_on_servers_with_its_tags_and_is_moved_to_others(
    js: JetStream, fresh_name: str
) -> None:
    stream = await made(js, fresh_name, replicas=1, tags=("tape",))
    await js.publish(f"$O.{fresh_name}.C.x", b"kept", {})
    first = await read_bucket(js, stream)

    more, _ = await keep(js, stream, 2, Layout(tags=("ssd",)))
    fewer, _ = await keep(js, stream, 1, Layout(tags=("tape",)))

    assert (first.leader, first.tags) == ("nats-3", ("tape",))
    assert {peer.name for peer in more.state.peers} == {"nats-1", "nats-2"}
    assert [peer.name for peer in fewer.state.peers] == ["nats-3"]
    assert (more.changed, fewer.changed, fewer.state.messages) == (True, True, 1)
    with pytest.raises(UnavailableError, match="no suitable peers"):
        await keep(js, stream, 2, Layout(tags=("ssd", "eu")))


async def test_tags_that_no_server_has_may_come_yet(js: JetStream, fresh_name: str) -> None:
    location = BucketLocation(bucket=fresh_name, tags=("gold",))

    with pytest.raises(NotReadyError, match="refused to create"):
        await ensure_stream(js, object_stream(fresh_name, location))


@pytest.mark.parametrize(
    ("replicas", "tags", "step"),
    [
        (2, ("a",), None),
        (3, ("a",), {"num_replicas": 3}),
        (1, ("a",), {"num_replicas": 1}),
        (2, ("b",), {"placement": {"tags": ["b"]}}),
        (3, ("b",), {"placement": {"tags": ["b"]}}),
        (1, ("b",), {"num_replicas": 1}),
    ],
)
def test_one_thing_is_changed_at_a_time_with_as_few_copies_as_possible(
    replicas: int, tags: tuple[str, ...], step: dict[str, Any] | None
) -> None:
    found = BucketState(bucket="b", stream="OBJ_b", kind="objects", replicas=2, tags=("a",))

    assert next_step(found, replicas, Layout(tags=tags)) == step


def config_for(cluster: Cluster, store: str, prefix: str) -> Config:
    return Config(
        nats=NatsOptions(servers=cluster.urls),
        prefix=prefix,
        store=store,
        monitor_url=cluster.monitor_urls,
        require_sync=True,
    )


async def test_a_deployment_gets_its_replicas_is_seen_and_changed_as_a_whole(
    cluster: Cluster,
) -> None:
    prefix = f"p{secrets.token_hex(3)}"
    config = config_for(cluster, "nats://blobs?replicas=1", prefix)
    await init_store(config, wait_seconds=SETTLE_SECONDS)
    seen: list[BucketState] = []
    async with watch_store(config) as store:
        with pytest.raises(UnavailableError, match="there are 3 servers with JetStream"):
            await anext(store.keep_replicas(5, seen.append))

        async with asyncio.timeout(SETTLE_SECONDS):
            first = [kept async for kept in store.keep_replicas(3, seen.append)]
            second = [kept async for kept in store.keep_replicas(3, seen.append)]
        other = await store.read()
        wanted = await replace(store, layout=replace(store.layout, replicas=3)).read()

    assert [kept.state.stream for kept in first] == list(store.streams)
    assert [kept.changed for kept in (*first, *second)] == [True] * 6 + [False] * 6
    assert [state.stream for state in seen[-6:]] == list(store.streams)
    assert len(other.problems) == 6
    assert all("asks for 1: `holdfast admin replicas 1`" in told for told in other.problems)
    assert (wanted.problems, wanted.durability) == ((), "synced")
    assert [server.name for server in wanted.servers] == ["nats-1", "nats-2", "nats-3"]


@pytest.mark.long
@pytest.mark.fault("N03")
def test_a_cluster_that_is_being_started_is_waited_for(tmp_path_factory: Any) -> None:
    # Given a command that was started before its servers,
    cluster = Cluster(tmp_path_factory.mktemp("late"))
    environment = {name: v for name, v in os.environ.items() if not name.startswith("HOLDFAST_")}
    command = [sys.executable, "-m", "holdfast", "admin", "init", "--wait", "100", "--json"]
    store = ["--store", "nats://blobs?replicas=3", "--server", ",".join(cluster.urls)]
    init = subprocess.Popen(
        [*command, *store],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        # when two of three come up, which is too few to begin, and the third once that was told,
        cluster.launch("nats-1", "nats-2")
        assert init.stderr is not None
        told = init.stderr.readline()
        cluster.launch("nats-3")
        out, _ = init.communicate(timeout=110)
    finally:
        init.kill()
        init.communicate()
        cluster.__exit__(None, None, None)

    # then it has set the store up.
    assert init.returncode == 0
    assert json.loads(out)[0] in {
        "created OBJ_blobs with 3 replica(s)",
        "found OBJ_blobs with 3 replica(s)",  # the answer to its creation did not come in time
    }
    assert told.startswith("Waiting: ")


@pytest.mark.long
@pytest.mark.fault("N01")
async def test_a_server_that_was_killed_is_named_and_the_store_goes_on(
    tmp_path_factory: Any,
) -> None:
    offline = tuple(
        f"bucket {bucket} has 2 of 3 replicas current: nats-3 is offline"
        for bucket in ("blobs", "packs", "holdfast", "snapshots", "names", "states")
    )
    cluster = await asyncio.to_thread(Cluster, tmp_path_factory.mktemp("losing"))
    try:
        cluster.start()
        config = config_for(cluster, "nats://blobs?replicas=3", "")
        await init_store(config, wait_seconds=SETTLE_SECONDS)
        async with watch_store(config) as store:
            cluster.kill("nats-3")
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    state = await store.read()
                    if len(state.problems) == 7 and state.problems[:6] == offline:
                        break
                    await asyncio.sleep(0.2)
    finally:
        cluster.__exit__(None, None, None)

    assert len(state.buckets) == 6
    assert cluster.monitor_url("nats-3") in state.problems[6]
    assert state.durability == "synced", "most of the servers say so"


ANSWER: dict[str, Any] = {
    "config": {"name": "OBJ_media-packs", "num_replicas": 3, "max_bytes": 7, "storage": "file"},
    "state": {"messages": 2, "bytes": 5},
    "cluster": {"leader": "b", "replicas": []},
}


@pytest.mark.parametrize(
    ("peer", "offline", "current"),
    [
        ({"current": True, "active": 5_000_000}, False, True),
        ({"current": False, "active": 5_000_000, "lag": 4}, False, False),
        ({"current": False, "active": 0, "pending": True}, False, False),
        ({"current": False, "active": 0}, True, False),
        ({"current": False, "active": 12 * 10**9}, True, False),
        ({"current": False, "offline": True, "active": 5_000_000}, True, False),
    ],
    ids=["current", "behind", "being added", "never heard", "silent", "offline"],
)
def test_a_peer_of_which_nothing_is_heard_is_offline(
    peer: dict[str, Any], offline: bool, current: bool
) -> None:
    answer = {**ANSWER, "cluster": {"leader": "b", "replicas": [{"name": "a", **peer}]}}

    leader, other = bucket_state(answer).peers

    assert (leader.name, leader.current) == ("b", True)
    assert (other.name, other.offline, other.current) == ("a", offline, current)
    assert other.lag == peer.get("lag", 0)


def test_a_stream_is_read_as_the_bucket_that_it_is() -> None:
    state = bucket_state({**ANSWER, "cluster": None})

    assert (state.bucket, state.kind, state.stream) == ("media-packs", "objects", "OBJ_media-packs")
    assert (state.messages, state.bytes, state.max_bytes) == (2, 5, 7)
    assert not state.clustered
