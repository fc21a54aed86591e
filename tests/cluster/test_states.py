"""States are linearizable while workers and servers are paused, cut off and killed.

Real processes on three servers; the moments are drawn by the seed.
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
from tests.cluster.trouble import Trouble
from tests.state_histories import violations

from holdfast.bootstrap.admin import init_store
from holdfast.client import connect

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

_CALLS: Final = int(os.environ.get("OPS", "1500"))
_SEED: Final = int(os.environ.get("SEED", "1"))
NODES: Final = ("a", "b", "c")
STEADY: Final = "c"
"""Nothing happens to it: some worker can always be asked."""

CLIENTS: Final = 8
TIMEOUTS_SECONDS: Final = (3.0, 30.0)
"""How long clients wait for an answer: those that wait less are told *unknown* more often."""

_MOMENTS: Final = max(2, _CALLS // 1000)
"""So often something happens to each worker that is not steady, and half as often to a server."""

_SETTLED_SECONDS: Final = 90.0

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(400 + _CALLS // 5),
    pytest.mark.usefixtures("unhurried"),
]


async def trouble_servers(cluster: Cluster, load: StateLoad, counts: Counter[str]) -> None:
    """Pause or kill one server after the other, and wait until it is back."""
    rng = random.Random(f"{_SEED} servers")  # noqa: S311  (to be repeatable)
    for _ in range(_MOMENTS // 2):
        await asyncio.sleep(rng.uniform(1.0, 3.0))
        if load.is_over:
            return
        server = cluster.servers[rng.choice(sorted(cluster.servers))]
        kind = rng.choice(("server paused", "server killed"))
        counts[kind] += 1
        if kind == "server paused":
            await asyncio.to_thread(server.pause)
            await asyncio.sleep(rng.uniform(0.5, 6.0))
            server.resume()
        else:
            server.kill()
            await asyncio.sleep(rng.uniform(0.1, 2.0))
            server.start()
        await cluster.wait_formed()


async def test_states_on_three_servers_are_linearizable(tmp_path: Path) -> None:
    load = StateLoad(_SEED, _CALLS)
    with Cluster(tmp_path / "cluster") as cluster:
        await cluster.wait_formed()
        deployment = RelayedDeployment([*cluster.urls], NODES, store="nats://blobs?replicas=3")
        try:
            await init_store(deployment.config, wait_seconds=_SETTLED_SECONDS)
            deployment.spawn(*NODES)
            await deployment.wait_serving(set(NODES))
            trouble = Trouble(
                deployment,
                _SEED,
                goes_on=lambda moments: moments < _MOMENTS and not load.is_over,
            )
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(
                        await connect(
                            servers=deployment.servers,
                            prefix=deployment.prefix,
                            timeout_seconds=TIMEOUTS_SECONDS[number % 2],
                        )
                    )
                    for number in range(CLIENTS)
                ]
                await asyncio.gather(
                    load.run(clients),
                    *(trouble.make(node) for node in NODES if node != STEADY),
                    trouble_servers(cluster, load, trouble.counts),
                )
                async with asyncio.timeout(_SETTLED_SECONDS):
                    await load.read_all(clients[0])
        finally:
            deployment.__exit__(None, None, None)

    print(f"\n{len(load.calls)} calls; {dict(load.counts)}; {dict(trouble.counts)}")  # noqa: T201
    assert load.wrong == []
    found = violations(load.calls, load.seen)
    assert not found, "\n".join(found)
