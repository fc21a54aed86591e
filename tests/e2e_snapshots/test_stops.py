"""Workers are told to stop at any moment of their work, and each ends by itself.

``make stops STOPS=100 SEED=1`` for as many rounds as one likes, on one server and on three; the
seed draws the moments. How fast one stops is measured nowhere: what is looked for are threads,
repeats and tasks that wait for what will not come any more.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Final

import pytest
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from tests.cluster.servers import Cluster
from tests.deployment import Deployment
from tests.e2e_snapshots.collector_load import Load
from tests.e2e_snapshots.site import RefusedError, Site
from tests.processes import stop

import holdfast
from holdfast.errors import HoldfastError
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

_ROUNDS: Final = int(os.environ.get("STOPS", "1"))
_SEED: Final = int(os.environ.get("SEED", "1"))
_NODES: Final = ("n0", "n1", "n2") if "STOPS" in os.environ else ("n0",)
_DRAIN_SECONDS: Final = (0.1, 1.0, 4.0)
_SETTINGS: Final = {
    "snapshot_lease_seconds": "1",
    "upload_lease_seconds": "1",
    "collect_every_seconds": "0.3",
    "collect_bytes_per_second": str(1 << 40),
}
_REQUEST_SECONDS: Final = 2.0
_WORK_SECONDS: Final = 2.0

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180 + 60 * _ROUNDS)]
at_length: Final = pytest.mark.skipif("STOPS" not in os.environ, reason="for `make stops`")


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """Apps of each node."""
    for node in _NODES:
        (tmp_path / node / f"app-{node}").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def one_server(server: EmbeddedServer) -> Iterator[Deployment]:
    """No worker yet."""
    with Deployment(server.url, grace_seconds=1) as deployment:
        yield deployment


@pytest.fixture
def three_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The same with three replicas."""
    store = "nats://blobs?replicas=3"
    with (
        Cluster(tmp_path_factory.mktemp("cluster")) as cluster,
        Deployment(",".join(cluster.urls), store=store, grace_seconds=1) as deployment,
    ):
        yield deployment


@pytest.fixture
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedServer, Deployment]]:
    """The same with a server of its own, to be paused."""
    directory = tmp_path_factory.mktemp("frozen")
    with (
        EmbeddedServer.start(directory, sync_interval="2m") as server,
        Deployment(server.url, grace_seconds=1) as deployment,
    ):
        yield server, deployment


@pytest.mark.long
async def test_a_worker_that_is_told_to_stop_ends_by_itself_whatever_is_under_way(
    one_server: Deployment, apps: Path
) -> None:
    await check_stops(one_server, apps)


@at_length
async def test_so_it_does_where_there_are_three_servers(
    three_servers: Deployment, apps: Path
) -> None:
    await check_stops(three_servers, apps)


@at_length
async def test_so_it_does_where_its_server_does_not_answer(
    frozen: tuple[EmbeddedServer, Deployment], apps: Path
) -> None:
    server, deployment = frozen

    @contextmanager
    def paused() -> Iterator[None]:
        stop(server.pid)
        try:
            yield
        finally:
            os.kill(server.pid, signal.SIGCONT)

    await check_stops(deployment, apps, paused)


class Callers(Load):
    """What callers do, and what needs the threads of workers: exports, restores, followers."""

    def begin(self) -> list[asyncio.Task[None]]:
        """All of it, until it is over."""
        return [
            *(asyncio.ensure_future(task) for task in self.tasks(_NODES)),
            *(
                asyncio.create_task(self._again_and_again(work))
                for work in (self._export, self._restore, self._scrub, self._watch, self._follow)
            ),
        ]

    async def _again_and_again(self, work: Callable[[], Awaitable[object]]) -> None:
        while not self.is_over:
            with suppress(HoldfastError, RefusedError, TimeoutError, NatsError, KeyError):
                async with asyncio.timeout(_REQUEST_SECONDS):
                    await work()
            await self.pause()

    async def _export(self) -> None:
        await self.site.content("snapshot.export", key=self._any_snapshot())

    async def _restore(self) -> None:
        key = self._any_snapshot()
        app = f"again{self.chance.randrange(2)}"
        await self.site.restore(key, app=app, mode="replace", node=self.chance.choice(_NODES))

    async def _scrub(self) -> None:
        await self.client.care.scrub(start=True)
        await self.client.care.doctor()
        await self.client.care.usage()

    async def _watch(self) -> None:
        async for _ in self.client.watch("snapshots"):
            pass

    async def _follow(self) -> None:
        async for _ in self.client.states.follow(self.chance.choice([*self.states])):
            pass

    def _any_snapshot(self) -> str:
        keys = [*self.snapshots]
        return self.chance.choice(keys) if keys else ""


async def check_stops(
    deployment: Deployment,
    apps: Path,
    trouble: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Workers are started, and stopped in ``trouble``, beside callers."""
    chance = random.Random(_SEED)  # noqa: S311
    nats = NatsClient()
    await nats.connect(deployment.servers)
    try:
        async with await holdfast.connect(
            servers=deployment.servers, prefix=deployment.prefix, timeout_seconds=_REQUEST_SECONDS
        ) as client:
            site = Site(deployment, apps, nats, request_seconds=_REQUEST_SECONDS)
            load = Callers(site, client, chance)
            running = load.begin()
            for number in range(_ROUNDS):
                await asyncio.to_thread(start, deployment, apps, chance)
                await asyncio.sleep(chance.random() * _WORK_SECONDS)
                with trouble():
                    for stopping in stop_some(deployment, chance):
                        print(f"round {number}: {await stopping}")  # noqa: T201
            for task in running:
                task.cancel()
            ends = await asyncio.gather(*running, return_exceptions=True)
            print(dict(sorted(load.told.items())))  # noqa: T201
            for end in ends:
                if isinstance(end, Exception):
                    raise end
    finally:
        await nats.close()


def start(deployment: Deployment, apps: Path, chance: random.Random) -> None:
    """Start those that do not run."""
    nodes = [node for node in _NODES if node not in deployment.workers]
    for node in nodes:
        seconds = str(chance.choice(_DRAIN_SECONDS))
        deployment.spawn(node, apps=str(apps / node), drain_seconds=seconds, **_SETTINGS)
    asyncio.run(deployment.wait_serving(set(nodes)))


def stop_some(deployment: Deployment, chance: random.Random) -> list[asyncio.Task[str]]:
    """Tell one worker or more to stop; how each of them ends."""
    nodes = chance.sample(_NODES, chance.randrange(1, len(_NODES) + 1))
    return [asyncio.create_task(asyncio.to_thread(stopped, deployment, node)) for node in nodes]


def stopped(deployment: Deployment, node: str) -> str:
    """How it ended, which it has to by itself. Raises AssertionError where it does not."""
    began = time.monotonic()
    assert deployment.stop(node) == 0
    return f"{node} stopped in {time.monotonic() - began:.1f} s"
