"""Callers that would have a worker write for them: in a cluster as with one server."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import nats
import pytest
import pytest_asyncio
from tests.cluster.servers import SETTLED_SECONDS
from tests.deployment import Asker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.aio.client import Client
    from tests.cluster.servers import Cluster, View
    from tests.cluster.workers import Pool

pytestmark = [pytest.mark.nats, pytest.mark.slow]

HEADERS: Final = {
    "Nats-Rollup": "all",
    "Nats-Msg-Id": "same",
    "Nats-Expected-Stream": "other",
    "Nats-Expected-Last-Sequence": "1",
    "Nats-Expected-Last-Subject-Sequence": "1",
    "Nats-Expected-Last-Msg-Id": "other",
    "Nats-TTL": "1s",
    "X-Private": "canary",
}
OPERATIONS: Final[dict[str, Any]] = {
    "blob.put": b"for nobody",
    "blob.get": None,
    "blob.stat": None,
    "blob.has": {"digests": []},
    "blob.list": {},
    "blob.open": {},
    "blob.verify": {},
    "snapshot.list": {},
    "snapshot.create": {"app": "none"},
}


@pytest_asyncio.fixture
async def client(pool: Pool) -> AsyncIterator[Client]:
    """A caller with all rights, as where nobody has set up permissions."""
    client = await nats.connect(pool.servers)
    yield client
    await client.close()


@pytest.fixture
def ask(pool: Pool, client: Client) -> Asker:
    """Raw requests."""
    return Asker(pool, client)


async def views(cluster: Cluster, pool: Pool) -> dict[str, dict[str, View]]:
    """The servers' content, once their replicas agree."""
    async with asyncio.timeout(SETTLED_SECONDS):
        while True:
            found = await cluster.views()
            of_streams = {stream: found.get(stream, {}) for stream in pool.streams}
            copies = [[*view.values()] for view in of_streams.values()]
            if all(len(some) == len(cluster.servers) == some.count(some[0]) for some in copies):
                return of_streams
            await asyncio.sleep(0.1)


@pytest.mark.fault("A01")
async def test_a_reply_subject_of_jetstreams_is_dropped_and_the_store_stays_as_it_is(
    cluster: Cluster, pool: Pool, client: Client, ask: Asker
) -> None:
    digest = (await ask.json("blob.put", b"bait"))["digest"]
    before = await views(cluster, pool)
    replies = (
        f"$KV.{pool.prefix}_holdfast.config",
        f"$KV.{pool.prefix}_snapshots.s.evil.1",
        f"$O.{pool.bucket}.C.evil",
        f"$O.{pool.bucket}.M.evil",
        *(f"$JS.API.STREAM.PURGE.{stream}" for stream in pool.streams),
        *(f"$JS.API.STREAM.DELETE.{stream}" for stream in pool.streams),
    )

    for reply in replies:
        for operation, request in OPERATIONS.items():
            asked = {"digest": digest} if request is None else request
            body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
            # To every worker, whichever node it is on: the queue group deals them out.
            for _ in pool.workers:
                await client.publish(pool.subject(operation), body, reply=reply)
    await client.flush()
    assert (await ask("blob.get", digest.encode())).data == b"bait"

    assert await views(cluster, pool) == before
    assert (await ask.json("blob.list"))["blobs"][0]["digest"] == digest
    for worker in pool.workers.values():
        assert worker.poll() is None


@pytest.mark.fault("I13")
async def test_the_headers_of_a_caller_never_reach_jetstream(
    pool: Pool, client: Client, ask: Asker
) -> None:
    await ask.json("blob.put", b"was there before")
    before = await ask.messages_in_bucket()

    for number in range(6):
        answer = await client.request(
            pool.subject("blob.put"),
            f"with headers {number}".encode(),
            timeout=30,
            headers=dict(HEADERS),
        )
        assert json.loads(answer.data)["created"] is True

    assert await ask.messages_in_bucket() == before + 12
    js = client.jetstream()
    stream = pool.streams[0]
    last = (await js.stream_info(stream)).state.last_seq
    for sequence in range(last - 11, last + 1):
        headers = (await js.get_msg(stream, sequence)).headers or {}
        assert "X-Private" not in headers
        assert headers.get("Nats-Rollup") in {None, "sub"}
        assert headers.get("Nats-Msg-Id") != "same"
        assert "Nats-TTL" not in headers
