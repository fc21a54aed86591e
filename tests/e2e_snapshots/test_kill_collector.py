"""Workers that are paused and killed, while all of them collect what is a second old.

``make kill-collector LASTS=300 SEED=1`` for as long as one likes; the seed draws the moments. What
was acknowledged is read back at once, and in the end again. In the end one collection leaves
nothing that nothing needs.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from nats.aio.client import Client as NatsClient
from tests.cluster.servers import Cluster
from tests.deployment import Deployment
from tests.e2e_snapshots.site import RefusedError, Site

import holdfast
from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.client.client import Client
    from holdfast.protocol.blobs import CollectionReply
    from holdfast.runtime.embedded import EmbeddedServer

_LASTS: Final = float(os.environ.get("LASTS", "15"))
_SEED: Final = int(os.environ.get("SEED", "1"))
_NODES: Final = ("n0", "n1", "n2")
_SETTINGS: Final = {
    "snapshot_lease_seconds": "2",
    "upload_lease_seconds": "2",
    "collect_every_seconds": "0.3",
    "collect_bytes_per_second": str(1 << 40),
}
_GRACE_SECONDS: Final = 1
MANY: Final = 16
FEW: Final = 3
_SETTLE_SECONDS: Final = 60.0
_COLLECT_SECONDS: Final = 5.0
_LAPSE_SECONDS: Final = 8.0
"""Within which the upload of a worker that was killed has lapsed: four leases."""

pytestmark = [pytest.mark.nats, pytest.mark.timeout(240 + 2 * _LASTS)]


class Load:
    """What callers do, and what they were told."""

    def __init__(self, site: Site, client: Client, chance: random.Random) -> None:
        self.site = site
        self.client = client
        self.chance = chance
        self.told: Counter[str] = Counter()
        self.names: dict[str, set[bytes | None]] = {}
        self.pinned: list[bytes] = []
        self.contents = [chance.randbytes(size) for size in (10, 2000, 5000, 60_000, 700_000)]
        self.is_over = False

    async def write_names(self, number: int) -> None:
        """Names of this task's own, whose bytes other tasks' names have, too."""
        while not self.is_over:
            name = f"t{number}/{self.chance.randrange(3)}"
            data = self.chance.choice(self.contents)
            verb = self.chance.choice(("create", "replace", "copy", "delete"))
            await self._change_name(verb, name, data, f"t{number}/{self.chance.randrange(3)}")
            await asyncio.sleep(self.chance.random() * 0.1)

    async def _change_name(self, verb: str, name: str, data: bytes, source: str) -> None:
        had = self.names.setdefault(name, {None})
        of_source = self.names.get(source, {None})
        new: set[bytes | None] = {None} if verb == "delete" else {data}
        if verb == "copy":
            new = {*of_source}
        try:
            if verb == "create":
                await self.client.names.create(name, data)
            elif verb == "replace":
                await self.client.names.replace(name, data)
            elif verb == "copy" and source != name:
                await self.client.names.copy(name, source=source)
            elif verb == "delete":
                await self.client.names.delete(name)
            else:
                return
        except (ConflictError, NotFoundError, UnavailableError) as error:
            self.told[f"{verb}: {error.code}"] += 1
        except OutcomeUnknownError as error:
            self.told[f"{verb}: {error.code}"] += 1
            self.names[name] = had | new
        else:
            self.told[verb] += 1
            self.names[name] = new - {None} if verb == "copy" else new
        await self.check_name(name)

    async def check_name(self, name: str) -> None:
        """It has what it may have by what was told."""
        with suppress(UnavailableError):
            try:
                found: bytes | None = bytes(await self.client.names.get(name))
            except NotFoundError:
                found = None
            assert found in self.names[name], f"{name} has {(found or b'')[:8]!r}"

    async def put(self) -> None:
        """Plain puts, of bytes that nobody else has."""
        while not self.is_over:
            data = self.chance.randbytes(self.chance.choice((100, 3000, 90_000, 2_000_000)))
            with suppress(UnavailableError, OutcomeUnknownError):
                await self.client.put(data)
                self.pinned.append(data)
                self.told["put"] += 1
            await asyncio.sleep(self.chance.random() * 0.1)

    def change(self, app: Path, count: int) -> None:
        """One file gets bytes that others have, and so many small ones bytes of their own.

        These share a pack, of which soon nothing but a part is needed.
        """
        (app / str(self.chance.randrange(4))).write_bytes(self.chance.choice(self.contents[1:]) * 2)
        for number in self.chance.sample(range(MANY), count):
            (app / f"small{number}").write_bytes(self.chance.randbytes(6000))

    async def snapshots(self, node: str) -> None:
        """Snapshots of a node's app, whose files other nodes' apps have, too."""
        keys: list[str] = []
        while not self.is_over:
            app = self.site.apps / node / f"app-{node}"
            await asyncio.to_thread(self.change, app, FEW if keys else MANY)
            try:
                record = await self.site.create(f"app-{node}")
                self.told[f"snapshot: {record['state']}"] += 1
                if record["state"] == "ok":
                    keys.append(record["key"])
                    found = await self.site.verified(record["key"])
                    assert found["damaged"] == [], record
                if len(keys) > self.chance.randrange(4):
                    await self.site.ask("snapshot.delete", key=keys.pop(0))
            except (RefusedError, TimeoutError) as error:
                self.told[f"snapshot: {getattr(error, 'code', 'timeout')}"] += 1
            except Exception as error:
                if type(error).__name__ != "NoRespondersError":
                    raise
                self.told["snapshot: nobody"] += 1
                await asyncio.sleep(0.1)

    async def collect(self) -> None:
        """Ask for collections beside those that workers do by themselves."""
        while not self.is_over:
            with suppress(UnavailableError, TimeoutError):  # who was asked may have been killed
                async with asyncio.timeout(_COLLECT_SECONDS):
                    report = await self.client.collect()
                for space in report.spaces:
                    self.told["collected"] += space.removed
                    self.told["repacked"] += space.repacked
            await asyncio.sleep(self.chance.random())


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
        deployment.start(node, apps=str(apps / node), **_SETTINGS)


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
    deployment: Deployment, apps: Path
) -> None:
    await trouble_and_check(deployment, apps)


@pytest.mark.long
async def test_nor_with_three_replicas(replicated: Deployment, apps: Path) -> None:
    await trouble_and_check(replicated, apps)


async def trouble_and_check(deployment: Deployment, apps: Path) -> None:
    """Callers are at work while workers are troubled; then everything is looked at."""
    chance = random.Random(_SEED)  # noqa: S311
    nats = NatsClient()
    await nats.connect(deployment.servers)
    client = await holdfast.connect(servers=deployment.servers, prefix=deployment.prefix)
    load = Load(Site(deployment, apps, nats), client, chance)
    tasks = [
        *(load.write_names(number) for number in range(4)),
        *(load.snapshots(node) for node in _NODES),
        load.put(),
        load.collect(),
        trouble(deployment, apps, chance, load),
    ]

    running = [asyncio.ensure_future(task) for task in tasks]
    await asyncio.wait(running, timeout=_LASTS, return_when=asyncio.FIRST_EXCEPTION)
    load.is_over = True
    await asyncio.gather(*running)

    await check(load)
    print(dict(sorted(load.told.items())))  # noqa: T201
    await client.aclose()
    await nats.close()


async def check(load: Load) -> None:
    """Everything that was acknowledged is there, and after one collection nothing else.

    No chunk is left that no record names, either: of puts whose worker was killed, say.
    """
    await settled(load)
    last = await collected(load)
    for name in load.names:
        await load.check_name(name)
    for data in load.pinned:
        assert await load.client.get(digest_of(data)) == data
    for record in await load.site.snapshots():
        if record["state"] == "ok":
            assert (await load.site.verified(record["key"]))["damaged"] == []
    again = await load.client.collect(dry_run=True)
    assert [(space.removed, space.repacked) for space in again.spaces] == [(0, 0)] * 2
    assert [space.orphans for space in again.spaces] == [0, 0]
    load.told["orphan chunks"] = sum(space.orphan_chunks for space in last.spaces)
    assert {space.space: space.needed + space.young for space in again.spaces} == {
        space.space: space.needed + space.repacked for space in last.spaces
    }


async def settled(load: Load) -> None:
    """Nothing is pending any more, and nothing is young; uploads without a sender have lapsed."""
    loop = asyncio.get_running_loop()
    lapsed_at = loop.time() + _LAPSE_SECONDS
    async with asyncio.timeout(_SETTLE_SECONDS):
        while True:
            report = await load.client.collect(dry_run=True)
            is_quiet = not any(space.young or space.failure for space in report.spaces)
            snapshots = await load.site.snapshots()
            is_over = is_quiet and all(one["state"] != "pending" for one in snapshots)
            if is_over and loop.time() >= lapsed_at:
                return
            await asyncio.sleep(0.2)


async def collected(load: Load) -> CollectionReply:
    """What one collection did."""
    report = await load.client.collect()
    assert report.off is None
    assert [space.failure for space in report.spaces] == [None, None]
    return report
