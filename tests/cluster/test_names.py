"""Names are linearizable while workers are paused, cut off and killed; nothing stays pending.

Real processes, on one server and on three; the moments are drawn by the seed.
``make names ROUNDS=500 SEED=1`` for as many moments as one likes.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from nats.aio.client import Client as NatsClient
from tests.cluster.name_load import NameLoad, wait_until
from tests.cluster.relayed import RelayedDeployment
from tests.cluster.servers import Cluster
from tests.cluster.trouble import Trouble
from tests.deployment import Asker, code_of
from tests.name_histories import violations
from tests.nats.tools import connected, kill, until

from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.sources import SOURCES
from holdfast.client import Client, connect
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.repository.names.record import NAME
from holdfast.stores.jetstream.buckets.provisioning import bucket_names
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.runtime.embedded import EmbeddedServer

_ROUNDS: Final = int(os.environ.get("ROUNDS", "6"))
_CREATES: Final = int(os.environ.get("CREATES", "6"))
_KILLS: Final = int(os.environ.get("KILLS", "1"))
_SNAPSHOTS: Final = int(os.environ.get("SNAPSHOTS", "10"))
_SEED: Final = int(os.environ.get("SEED", "1"))
NODES: Final = ("a", "b", "c")
STEADY: Final = "c"
"""Nothing happens to it: some worker can always be asked."""

CLIENTS: Final = 16
CREATORS: Final = 64
DELETED: Final = 1_000
APP: Final = "shop"
LEASE_SECONDS: Final = 10.0
_SETTLED_SECONDS: Final = 90.0

pytestmark = [
    pytest.mark.nats,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(400 + 20 * (_ROUNDS + _CREATES) + 60 * _KILLS),
    pytest.mark.usefixtures("unhurried"),
]


class NamedDeployment(RelayedDeployment):
    """Workers that soon take what nobody carries on for abandoned."""

    def spawn(self, *nodes: str, **settings: str) -> None:
        """See `RelayedDeployment.spawn`."""
        super().spawn(*nodes, upload_lease_seconds=str(LEASE_SECONDS), **settings)


async def pending(deployment: RelayedDeployment) -> list[str]:
    """The names with writes that are under way."""
    async with connected(deployment.config.nats) as connection:
        bucket = bucket_names("blobs", deployment.prefix).names
        jetstream = JetStream(connection, Inbox(connection))
        store = KeyValueRecordStore(jetstream, bucket, new_id=SOURCES.new_id)
        found = [NAME.read(record).record async for record in store.list_records(NAME.prefix)]
    return [record.name for record in found if record.pending or record.state == "pending"]


async def nothing_is_pending(deployment: RelayedDeployment) -> bool:
    """Whether all that was announced has ended."""
    return await pending(deployment) == []


async def check_names(deployment: RelayedDeployment) -> None:
    """Trouble for two of three workers while clients write, and what is there in the end."""
    await init_store(deployment.config, wait_seconds=_SETTLED_SECONDS)
    deployment.spawn(*NODES)
    await deployment.wait_serving(set(NODES))
    load = NameLoad(_SEED)
    trouble = Trouble(deployment, _SEED, goes_on=lambda moments: 2 * moments < _ROUNDS)
    async with AsyncExitStack() as stack:
        clients = await connect_all(stack, deployment, CLIENTS)
        writing = [
            asyncio.create_task(load.write(client, f"c{number}"))
            for number, client in enumerate(clients)
        ]
        await asyncio.gather(*(trouble.make(node) for node in NODES if node != STEADY))
        load.stopping.set()
        await asyncio.gather(*writing)
        deployment.revive()
        await deployment.wait_serving(set(NODES))

        await wait_until(partial(nothing_is_pending, deployment), 5 * LEASE_SECONDS)
        await load.read_all(clients[0])

    print(f"\n{len(load.calls)} calls; {dict(load.counts)}; {dict(trouble.counts)}")  # noqa: T201
    assert load.wrong == []
    found = violations(load.calls)
    assert not found, "\n".join(found)


async def connect_all(
    stack: AsyncExitStack, deployment: RelayedDeployment, count: int
) -> list[Client]:
    """So many clients."""
    connecting = (
        connect(servers=deployment.servers, prefix=deployment.prefix) for _ in range(count)
    )
    return [await stack.enter_async_context(await one) for one in connecting]


async def test_names_on_one_server_are_linearizable(nats_server: EmbeddedServer) -> None:
    deployment = NamedDeployment([nats_server.url], NODES, store="nats://blobs")
    try:
        await check_names(deployment)
    finally:
        deployment.__exit__(None, None, None)


async def test_names_on_three_servers_are_linearizable(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        await cluster.wait_formed()
        deployment = NamedDeployment([*cluster.urls], NODES, store="nats://blobs?replicas=3")
        try:
            await check_names(deployment)
        finally:
            deployment.__exit__(None, None, None)


async def test_a_replace_whose_upload_is_killed_leaves_the_old_bytes(
    nats_server: EmbeddedServer,
) -> None:
    deployment = NamedDeployment([nats_server.url], NODES, store="nats://blobs")
    await init_store(deployment.config)
    deployment.spawn(*NODES)
    await deployment.wait_serving(set(NODES))
    names = [f"r/{number}" for number in range(_CREATES)]
    raw = NatsClient()
    await raw.connect(deployment.servers)
    try:
        async with AsyncExitStack() as stack:
            [client] = await connect_all(stack, deployment, 1)
            for name, node in zip(names, cycle(NODES), strict=False):
                await client.names.create(name, name.encode())
                await begin_a_replace(Asker(deployment, raw), name)
                deployment.kill(node)
                deployment.spawn(node)

                assert await client.names.get(name) == name.encode()

            await wait_until(partial(nothing_is_pending, deployment), 5 * LEASE_SECONDS)
            for name in names:
                assert await client.names.get(name) == name.encode()
                assert (await client.names.stat(name)).version == 1
    finally:
        await raw.close()
        deployment.__exit__(None, None, None)


async def begin_a_replace(asker: Asker, name: str) -> None:
    """Open it, send a part of what is to be there, and be heard of no more."""
    upload = await asker.json("blob.open_name", {"name": name, "mode": "replace"})
    part = bytes(upload["part_size"])
    assert code_of(await asker.to(upload["part_subject"], part, Blob_Part="0")) == "ok"


async def test_what_lay_in_the_socket_of_a_stopped_worker_is_not_done_when_it_wakes(
    nats_server: EmbeddedServer,
) -> None:
    deployment = NamedDeployment([nats_server.url], NODES, store="nats://blobs")
    await init_store(deployment.config)
    deployment.spawn(STEADY)
    await deployment.wait_serving({STEADY})
    client = NatsClient()
    await client.connect(deployment.servers)
    asker = Asker(deployment, client)
    try:
        deployment.pause(STEADY)
        headers = {"Blob-Name": "n", "Timeout": "1"}
        with pytest.raises(TimeoutError):
            await client.request(deployment.subject("blob.create"), b"late", 1.5, headers=headers)

        deployment.wake(STEADY)
        await deployment.wait_serving({STEADY})

        assert code_of(await asker("blob.stat", {"name": "n"})) == "not_found"
        assert code_of(await asker("blob.create", b"in time", Blob_Name="n")) == "ok"
    finally:
        await client.close()
        deployment.__exit__(None, None, None)


async def create(client: Client, name: str, number: int) -> str:
    """How one of those who create a name at once is answered."""
    try:
        await client.names.create(name, f"{name} of {number}".encode() * 50)
    except HoldfastError as error:
        return error.code
    return "ok"


async def test_of_64_creates_at_once_one_succeeds(nats_server: EmbeddedServer) -> None:
    deployment = NamedDeployment([nats_server.url], NODES, store="nats://blobs")
    await init_store(deployment.config)
    deployment.spawn(*NODES)
    await deployment.wait_serving(set(NODES))
    kills = 0
    try:
        async with AsyncExitStack() as stack:
            clients = await connect_all(stack, deployment, CREATORS)
            for number in range(_CREATES):
                creating = asyncio.gather(
                    *(create(client, f"n/{number}", n) for n, client in enumerate(clients))
                )
                if number % 10 == 5:
                    await asyncio.sleep(0.01 * (number % 7))
                    deployment.kill("a")
                    deployment.spawn("a")
                    kills += 1

                told = Counter(await creating)

                assert told == {"ok": 1, "conflict": CREATORS - 1}, f"round {number}"
                assert (await clients[0].names.stat(f"n/{number}")).version == 1
                await deployment.wait_serving(set(NODES))
            await check_chunks(deployment, kills)
    finally:
        deployment.__exit__(None, None, None)


async def check_chunks(deployment: RelayedDeployment, kills: int) -> None:
    """No chunk is left without a meta but what killed workers were at."""
    client = NatsClient()
    await client.connect(deployment.servers)
    try:
        asker = Asker(deployment, client)
        left = await asker.chunks_in_bucket() - await asker.chunks_of_blobs()
    finally:
        await client.close()
    assert 0 <= left <= kills * CREATORS


@pytest.mark.fault("G01")
async def test_what_was_deleted_stays_so_when_the_server_is_killed_after_two_sync_ticks(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(directory=tmp_path, sync_interval="1s")
    port = int(server.url.rpartition(":")[2])
    deployment = NamedDeployment([server.url], NODES, store="nats://blobs")
    await init_store(deployment.config)
    (tmp_path / "apps" / APP).mkdir(parents=True)
    deployment.spawn(STEADY, apps=str(tmp_path / "apps"))
    await deployment.wait_serving({STEADY})
    try:
        for number in range(_KILLS):
            async with await connect(
                servers=deployment.servers, prefix=deployment.prefix
            ) as client:
                deleted = await delete_many(client, tmp_path, number)

                kill(server)
                server = start_server(directory=tmp_path, port=port, sync_interval="1s")

                await wait_until(partial(is_answered, client), 60)
                assert [entry async for entry in client.names.list()] == []
                listed = {entry.digest async for entry in client.list()}
                assert listed.isdisjoint(deleted.digests)
                assert [entry async for entry in client.snapshots.list()] == []
                assert await client.has(deleted.digests) == deleted.digests
                for name in deleted.names:
                    with pytest.raises(NotFoundError):
                        await client.names.stat(name)
                for key in deleted.snapshots:
                    with pytest.raises(NotFoundError):
                        await client.snapshots.get(key)
    finally:
        deployment.__exit__(None, None, None)


class Deleted(NamedTuple):
    """The things that are deleted before a server is killed."""

    names: list[str]
    digests: list[str]
    snapshots: list[str]


async def delete_many(client: Client, directory: Path, number: int) -> Deleted:
    """Make all that, delete it, and wait until the server has twice rewritten blocks of names."""
    names = [f"k{number}/{one}" for one in range(DELETED)]
    labels = {f"label-{one}": "x" * 200 for one in range(24)}  # so that they fill several
    await asyncio.gather(*(client.names.create(name, b"1", labels=labels) for name in names))
    puts = client.put_many(f"{number} {one}".encode() for one in range(DELETED))
    digests = [stored.digest async for stored in puts]
    snapshots = [(await client.snapshots.create(APP)).key for _ in range(_SNAPSHOTS)]
    for part in range(2):
        before = blocks(directory)
        await asyncio.gather(
            *(client.names.delete(name) for name in names[part::2]),
            *(client.delete(digest) for digest in digests[part::2]),
            *(client.snapshots.delete(key) for key in snapshots[part::2]),
        )
        await until(partial(has_changed, directory, before), 60)
    return Deleted(names, digests, snapshots)


def has_changed(directory: Path, before: dict[str, int]) -> bool:
    """Whether the server has rewritten blocks."""
    return blocks(directory) != before


def blocks(directory: Path) -> dict[str, int]:
    """The blocks of the bucket of names: one that is rewritten is another file."""
    return {path.name: path.stat().st_ino for path in directory.rglob("KV_*names/msgs/*.blk")}


async def is_answered(client: Client) -> bool:
    """Whether the pool lists names again."""
    try:
        [entry async for entry in client.names.list()]
    except HoldfastError:
        return False
    return True
