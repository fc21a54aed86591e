"""States are linearizable while workers and servers are paused, cut off and killed.

Real processes, on three servers and on a disk; the moments are drawn by the seed.
``make states OPS=20000 SEED=1`` for as many calls as one likes.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest
from tests.cluster.relayed import RelayedDeployment
from tests.cluster.servers import Cluster
from tests.cluster.state_load import StateLoad
from tests.cluster.state_removals import RemovalLoad
from tests.cluster.trouble import Trouble
from tests.state_histories import violations

from holdfast.bootstrap.admin import init_store
from holdfast.client import connect

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from holdfast.client import Client
    from holdfast.runtime.embedded import EmbeddedServer

_CALLS: Final = int(os.environ.get("OPS", "1500"))
_SEED: Final = int(os.environ.get("SEED", "1"))
NODES: Final = ("a", "b", "c")
STEADY: Final = "c"
"""Nothing happens to it: some worker can always be asked."""

CLIENTS: Final = 8
TIMEOUTS_SECONDS: Final = (3.0, 30.0)
"""How long clients wait for an answer: those that wait less are told *unknown* more often."""

_MOMENTS: Final = max(2, _CALLS // 1000)
"""So often something happens to each worker that is not steady, and to some server."""

_SETTLED_SECONDS: Final = 90.0

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(400 + _CALLS // 5),
    pytest.mark.usefixtures("unhurried"),
]


class ServerTrouble:
    """Pauses or kills one server after the other, and waits until it is back."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def make(self, load: StateLoad, counts: Counter[str]) -> None:
        """Until there are enough calls, or moments."""
        rng = random.Random(f"{_SEED} servers")  # noqa: S311  (to be repeatable)
        for _ in range(_MOMENTS):
            await asyncio.sleep(rng.uniform(1.0, 3.0))
            if load.is_over:
                return
            server = self.cluster.servers[rng.choice(sorted(self.cluster.servers))]
            kind = rng.choice(("server paused", "server killed"))
            counts[kind] += 1
            if kind == "server paused":
                await asyncio.to_thread(server.pause)
                await asyncio.sleep(rng.uniform(0.5, 6.5))
                server.resume()
            else:
                server.kill()
                await asyncio.sleep(rng.uniform(0.1, 2.0))
                server.start()
            await self.cluster.wait_formed()


async def check_states(
    deployment: RelayedDeployment, calls: int, servers: ServerTrouble | None = None
) -> None:
    """Trouble for two of three workers, and perhaps servers, while clients write and read."""
    load, removals = StateLoad(_SEED, calls), RemovalLoad(_SEED)
    await init_store(deployment.config, wait_seconds=_SETTLED_SECONDS)
    deployment.spawn(*NODES)
    await deployment.wait_serving(set(NODES))
    trouble = Trouble(
        deployment, _SEED, goes_on=lambda moments: moments < _MOMENTS and not load.is_over
    )
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(one) for one in await connect_all(deployment)]
        await asyncio.gather(
            load.run(clients),
            removals.run(clients, lambda: load.is_over),
            *(trouble.make(node) for node in NODES if node != STEADY),
            *([servers.make(load, trouble.counts)] if servers is not None else []),
        )
        async with asyncio.timeout(_SETTLED_SECONDS):
            await load.read_all(clients[-1])  # it waits longer for an answer

    print(f"\n{len(load.calls)} calls; {dict(load.counts)}; {dict(trouble.counts)}")  # noqa: T201
    print(f"of states that are removed: {dict(removals.counts)}")  # noqa: T201
    assert load.wrong == []
    assert removals.violations() == []
    found = violations(load.calls, load.seen)
    assert not found, "\n".join(found)


async def connect_all(deployment: RelayedDeployment) -> list[Client]:
    """The clients, half of them with little patience."""
    return [
        await connect(
            servers=deployment.servers,
            prefix=deployment.prefix,
            timeout_seconds=TIMEOUTS_SECONDS[number % 2],
        )
        for number in range(CLIENTS)
    ]


async def test_states_on_three_servers_are_linearizable(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        await cluster.wait_formed()
        deployment = RelayedDeployment([*cluster.urls], NODES, store="nats://blobs?replicas=3")
        try:
            await check_states(deployment, _CALLS, ServerTrouble(cluster))
        finally:
            deployment.__exit__(None, None, None)


async def test_states_on_a_disk_are_linearizable(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    deployment = RelayedDeployment([nats_server.url], NODES, store=f"disk://{tmp_path}/store")
    try:
        await check_states(deployment, _CALLS // 2)
    finally:
        deployment.__exit__(None, None, None)
