"""Restarting everything, one after the other, under load: no client sees an operation fail."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from tests.cluster.checker import violations
from tests.cluster.load import WRITERS, Load
from tests.cluster.report import report
from tests.cluster.survey import survey
from tests.cluster.workers import NODES

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.servers import Cluster
    from tests.cluster.workers import Pool

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("unhurried"),
]

SEED = 17


async def restart_servers(cluster: Cluster, pool: Pool) -> None:
    """As an upgrade of one node after another."""
    for server in cluster.servers.values():
        server.terminate()
        await asyncio.to_thread(server.wait_ended)
        server.start()
        await cluster.wait_settled(pool.streams)


async def restart_workers(pool: Pool) -> None:
    """As a roll-out of a new version."""
    for node in NODES:
        assert await asyncio.to_thread(pool.stop, node) == 0
        pool.start_workers(node)
        await pool.wait_serving(set(NODES))


@pytest.mark.fault("N17")
@pytest.mark.fault("R04")
async def test_a_rolling_restart_of_servers_and_workers_fails_no_operation(
    cluster: Cluster, pool: Pool, tmp_path: Path
) -> None:
    load = Load(pool, SEED)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load.run())
        await load.history.wait_acknowledged(0)
        await restart_servers(cluster, pool)
        await restart_workers(pool)
        since = load.history.now()
        for writer in WRITERS:
            await load.history.wait_acknowledged(since, frozenset({writer}))
        load.stop()

    failed = [str(o) for o in load.history.operations if o.outcome != "ok"]
    assert not failed, "\n".join((*failed, report(load.history)))
    found = await survey(load, random.Random(SEED), tmp_path)  # noqa: S311
    assert violations(load.history, found) == []
