"""Owners of uploads are paused, cut off and killed at random moments, and go on as if nothing was.

Real processes, on one server and on three; the moments are drawn by the seed. What was acknowledged
is there and right, also what was deleted and put again, and no record lacks its chunks.
``make owners OWNERS=100 SEED=1`` for as many moments of each worker as one likes, and with
``BLOBS=10000`` for as many more as it takes until so many puts are acknowledged, mostly small ones.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
from tests.cluster.relayed import RelayedDeployment
from tests.cluster.servers import Cluster
from tests.cluster.trouble import Trouble

from holdfast.bootstrap.admin import init_store
from holdfast.client import Client, connect
from holdfast.domain.digest import digest_of
from holdfast.errors import HoldfastError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

_MOMENTS: Final = int(os.environ.get("OWNERS", "2"))
_SEED: Final = int(os.environ.get("SEED", "1"))
_BLOBS: Final = int(os.environ.get("BLOBS", "0"))
NODES: Final = ("a", "b", "c")
STEADY: Final = "c"
"""Nothing happens to it: some worker can always be asked."""

WRITERS: Final = 16 if _BLOBS else 4
SIZES: Final = (2_000,) * (30 if _BLOBS else 1) + (1_100_000, 2_500_000)
_SETTLED_SECONDS: Final = 90.0

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.timeout(300 + 20 * _MOMENTS + _BLOBS // 4),
    pytest.mark.usefixtures("unhurried"),
]


class Load:
    """Puts, deletions and reads. ``kept`` is what was acknowledged last, by digest."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kept: dict[str, bytes] = {}
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.stopping = asyncio.Event()

    async def write(self, client: Client, name: str) -> None:
        """One writer, until told to stop. Nobody else has its blobs."""
        rng = random.Random(f"{self.seed} {name}")  # noqa: S311  (to be repeatable)
        mine: list[bytes] = []
        while not self.stopping.is_set():
            if mine and rng.random() < 0.2:
                data = rng.choice(mine)
                await self._put_anew(client, data)
            else:
                data = rng.randbytes(rng.choice(SIZES))
                if await self._put(client, data):
                    mine.append(data)
            if mine and rng.random() < 0.3:
                await self._read(client, rng.choice(mine))

    async def _put(self, client: Client, data: bytes) -> bool:
        try:
            stored = await client.put(data)
        except HoldfastError as error:
            self.counts[error.code] += 1
            return False
        if (stored.digest, stored.size) != (digest_of(data), len(data)):
            self.wrong.append(f"put answered {stored}")
        self.kept[digest_of(data)] = data
        self.counts["put"] += 1
        return True

    async def _put_anew(self, client: Client, data: bytes) -> None:
        self.kept.pop(digest_of(data), None)  # nobody can tell, until it is put again
        try:
            await client.delete(digest_of(data))
        except HoldfastError as error:
            self.counts[error.code] += 1
            return
        if await self._put(client, data):
            self.counts["put again"] += 1

    async def _read(self, client: Client, data: bytes) -> None:
        if digest_of(data) not in self.kept:
            return
        try:
            if await client.get(digest_of(data)) != data:
                self.wrong.append(f"other bytes of {digest_of(data)}")
        except UnavailableError:
            self.counts["unread"] += 1
        except HoldfastError as error:
            self.wrong.append(f"{error.code} of {digest_of(data)}: {error.detail}")

    async def check(self, client: Client) -> None:
        """Everything acknowledged is there, and a put of it finds it so."""
        for digest, data in self.kept.items():
            assert await client.get(digest) == data
            assert (await client.put(data)).created is False
        damaged = [each async for report in client.verify() for each in report.damaged]
        assert (self.wrong, damaged) == ([], [])


async def provision(deployment: RelayedDeployment) -> None:
    """Do as ``holdfast admin init --wait``."""
    await init_store(deployment.config, wait_seconds=_SETTLED_SECONDS)


async def check_owners(deployment: RelayedDeployment) -> None:
    """Trouble for two of three workers while clients write, and what is there in the end."""
    deployment.spawn(*NODES)
    await deployment.wait_serving(set(NODES))
    load = Load(_SEED)
    trouble = Trouble(
        deployment,
        _SEED,
        goes_on=lambda moments: moments < _MOMENTS or load.counts["put"] < _BLOBS,
    )
    async with await connect(servers=deployment.servers, prefix=deployment.prefix) as client:
        writing = [asyncio.create_task(load.write(client, str(n))) for n in range(WRITERS)]
        await asyncio.gather(*(trouble.make(node) for node in NODES if node != STEADY))
        load.stopping.set()
        await asyncio.gather(*writing)
        deployment.revive()
        await deployment.wait_serving(set(NODES))

        await load.check(client)

    print(f"\n{len(load.kept)} blobs kept; {dict(load.counts)}; {dict(trouble.counts)}")  # noqa: T201
    assert load.counts["put"] >= _MOMENTS


async def test_what_owners_acknowledge_on_one_server_stays(nats_server: EmbeddedServer) -> None:
    deployment = RelayedDeployment([nats_server.url], NODES, store="nats://blobs")
    await provision(deployment)
    try:
        await check_owners(deployment)
    finally:
        deployment.__exit__(None, None, None)


@pytest.mark.long
async def test_what_owners_acknowledge_on_three_servers_stays(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        await cluster.wait_formed()
        deployment = RelayedDeployment([*cluster.urls], NODES, store="nats://blobs?replicas=3")
        await provision(deployment)
        try:
            await check_owners(deployment)
        finally:
            deployment.__exit__(None, None, None)
