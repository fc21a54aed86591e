"""Workers that are paused and killed, while all of them collect what is a second old.

``make kill-collector LASTS=300 SEED=1`` for as long as one likes; the seed draws the moments. What
was acknowledged is read back at once, and in the end again, byte for byte. In the end one
collection leaves nothing that nothing needs.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Final

import pytest
from nats.aio.client import Client as NatsClient
from tests.cluster.servers import Cluster
from tests.deployment import Deployment
from tests.e2e_snapshots.census import streams_of
from tests.e2e_snapshots.collector_load import Load
from tests.e2e_snapshots.site import Site
from tests.e2e_snapshots.trees import contents

import holdfast
from holdfast.domain.digest import digest_of
from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from tests.e2e_snapshots.census import Census, Streams

    from holdfast.protocol.blobs import CollectionReply
    from holdfast.runtime.embedded import EmbeddedServer

_LASTS: Final = float(os.environ.get("LASTS", "4"))
_SEED: Final = int(os.environ.get("SEED", "1"))
_NODES: Final = ("n0", "n1", "n2")
_SETTINGS: Final = {
    "snapshot_lease_seconds": "1",
    "upload_lease_seconds": "1",
    "collect_every_seconds": "0.3",
    "collect_bytes_per_second": str(1 << 40),
}
_GRACE_SECONDS: Final = 1
_SETTLE_SECONDS: Final = 60.0
_REQUEST_SECONDS: Final = 5.0
"""Nobody answers what a worker was asked that is killed."""

_MOST_BESIDE: Final = 0.02
"""Of what is needed, so much may be there beside it: records, and what nothing needs."""

_FIXED_BYTES: Final = 1 << 19
"""The content beside the blobs of a short run, however few these are."""

pytestmark = [pytest.mark.nats, pytest.mark.timeout(240 + 2 * _LASTS)]


async def trouble(deployment: Deployment, apps: Path, chance: random.Random, load: Load) -> None:
    """Pause or kill one worker after the other, until the load is over."""
    while not load.is_over:
        await asyncio.sleep(chance.random())
        node = chance.choice(_NODES)
        if chance.random() < 0.6:
            await asyncio.to_thread(deployment.pause, node)
            await asyncio.sleep(chance.choice((0.05, 0.5, 2.5)))
            deployment.signal(node, signal.SIGCONT)
            load.told["paused"] += 1
        else:
            await asyncio.to_thread(deployment.kill, node)
            await asyncio.to_thread(start, deployment, apps, node)
            load.told["killed"] += 1


def start(deployment: Deployment, apps: Path, *nodes: str) -> None:
    """Start workers, each with apps of its own."""
    for node in nodes:
        deployment.spawn(node, apps=str(apps / node), **_SETTINGS)
    asyncio.run(deployment.wait_serving(set(nodes)))


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """Apps of each node."""
    for node in _NODES:
        (tmp_path / node / f"app-{node}").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def deployment(server: EmbeddedServer, apps: Path) -> Iterator[Deployment]:
    """Workers that are to be troubled."""
    with Deployment(server.url, grace_seconds=_GRACE_SECONDS) as deployment:
        start(deployment, apps, *_NODES)
        yield deployment


@pytest.fixture
def replicated(tmp_path_factory: pytest.TempPathFactory, apps: Path) -> Iterator[Deployment]:
    """The same on three servers, with three replicas."""
    store = "nats://blobs?replicas=3"
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        urls = ",".join(cluster.urls)
        with Deployment(urls, store=store, grace_seconds=_GRACE_SECONDS) as deployment:
            start(deployment, apps, *_NODES)
            yield deployment


@pytest.mark.long
async def test_whatever_is_paused_or_killed_nothing_acknowledged_is_lost_and_nothing_is_left(
    deployment: Deployment, apps: Path, tmp_path: Path
) -> None:
    await trouble_and_check(deployment, apps, tmp_path)


@pytest.mark.long
async def test_nor_with_three_replicas(replicated: Deployment, apps: Path, tmp_path: Path) -> None:
    await trouble_and_check(replicated, apps, tmp_path)


async def trouble_and_check(deployment: Deployment, apps: Path, scratch: Path) -> None:
    """Callers are at work while workers are troubled; then everything is looked at."""
    chance = random.Random(_SEED)  # noqa: S311
    nats = NatsClient()
    await nats.connect(deployment.servers)
    try:
        async with (
            await holdfast.connect(servers=deployment.servers, prefix=deployment.prefix) as client,
            streams_of(deployment) as streams,
        ):
            site = Site(deployment, apps, nats, request_seconds=_REQUEST_SECONDS)
            load = Load(site, client, chance)
            await run(load, trouble(deployment, apps, chance, load))
            load.site = Site(deployment, apps, nats)
            await settled(load, streams)
            await collected(load)
            await check_what_was_told(load, scratch)
            await check_what_is_left(load, streams)
    finally:
        await nats.close()


async def run(load: Load, trouble: Coroutine[None, None, None]) -> None:
    """All callers, in ``trouble``, for as long as it is to last."""
    running = [asyncio.ensure_future(task) for task in (*load.tasks(_NODES), trouble)]
    await asyncio.wait(running, timeout=_LASTS, return_when=asyncio.FIRST_EXCEPTION)
    load.is_over = True
    await asyncio.wait(running)
    print(f"\n{dict(sorted(load.told.items()))}")  # noqa: T201
    for task in running:
        task.result()


async def settled(load: Load, streams: Streams) -> None:
    """Nothing is pending any more, and nothing is young; uploads without a sender have lapsed."""
    async with asyncio.timeout(_SETTLE_SECONDS):
        while True:
            report = await load.client.collect(dry_run=True)
            is_quiet = not any(space.young or space.failure for space in report.spaces)
            snapshots = await load.site.snapshots()
            is_over = is_quiet and all(one["state"] != "pending" for one in snapshots)
            if is_over and not await streams.living_uploads():
                return
            await asyncio.sleep(0.2)


async def collected(load: Load) -> CollectionReply:
    """Collect once; the answer."""
    report = await load.client.collect()
    assert report.off is None
    assert [space.failure for space in report.spaces] == [None, None]
    return report


async def check_what_was_told(load: Load, scratch: Path) -> None:
    """Everything that was acknowledged is as it was then, and what was deleted is gone."""
    for name in load.names:
        await load.check_name(name)
    for name, may_have in load.states.items():
        await load.check_state(name)
        if None not in may_have:
            assert (await load.client.states.verify(name)).damaged == []
    for digest in load.pinned:
        assert digest_of(await load.client.get(digest)) == digest
    for digest in load.deleted:
        with pytest.raises(NotFoundError):
            await load.client.get(digest)
    for record in await load.site.snapshots():
        if record["state"] == "ok":
            assert (await load.site.verified(record["key"]))["damaged"] == []
    for number, (key, tree) in enumerate(load.snapshots.items()):
        target = scratch / f"restored{number}"
        await load.client.snapshots.restore_to(key, target)
        assert contents(target) == tree


async def check_what_is_left(load: Load, streams: Streams) -> None:
    """There is what something needs, and nothing else."""
    report = await load.client.collect(dry_run=True)
    assert [(one.removed, one.repacked, one.orphans) for one in report.spaces] == [(0, 0, 0)] * 2
    census = await streams.census()

    print(told(report, census))  # noqa: T201
    assert (census.orphans, census.lacking) == (0, [])
    reachable = 0
    for space in report.spaces:
        [bucket] = [name for name in census.blobs if name.endswith(space.space)]
        assert census.blobs[bucket] == space.needed + space.pinned
        assert census.chunk_bytes[bucket] == space.needed_bytes + space.pinned_bytes
        reachable += space.needed_bytes + space.pinned_bytes
    beside = census.metas.bytes + census.records.bytes
    assert beside <= _MOST_BESIDE * reachable + _FIXED_BYTES


def told(report: CollectionReply, census: Census) -> str:
    """The bytes there, and the bytes of them that are needed."""
    reachable = sum(one.needed_bytes + one.pinned_bytes for one in report.spaces)
    chunks = sum(census.chunk_bytes.values())
    living = chunks + census.metas.bytes + census.records.bytes
    return (
        f"reachable {reachable}; chunks {chunks}, with {census.metas} of metas and"
        f" {census.records} of records {living / max(reachable, 1):.4f} x that;"
        f" apart: logs {census.logs}, tombstones {census.tombstones}"
    )
