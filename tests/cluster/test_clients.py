"""Clients that are not holdfast's, against three servers: nats.js, and the Rust client.

By plain requests, and with their own object stores on the bucket.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from tests.contracts.blob_store import some_bytes
from tests.js.scripts import run_script
from tests.programs import needs_natsrpy

from holdfast.client import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cluster.workers import Pool

pytestmark = [pytest.mark.nats, pytest.mark.slow]

SIZES: Final = (0, 1, 1_000_000, 5_000_000)


@pytest_asyncio.fixture
async def digests(pool: Pool) -> dict[str, int]:
    """Blobs that holdfast's client put: their sizes, by digest."""
    async with await connect(servers=pool.servers, prefix=pool.prefix) as client:
        return {(await client.put(some_bytes(n, seed=n))).digest: n for n in SIZES}


@pytest.mark.long  # on one server it is tried each time
async def test_a_javascript_service_puts_gets_and_lists_by_plain_requests(pool: Pool) -> None:
    digest = hashlib.sha256(b"put from JavaScript").hexdigest()

    seen = await run_script("requests.mjs", pool.url, pool.prefix)

    assert seen["put"] == {"digest": digest, "size": 19, "created": True}
    assert (seen["got"], seen["type"], seen["range"]) == (
        "put from JavaScript",
        "text/plain",
        "from",
    )
    assert seen["listed"] == [digest]
    assert seen["absent"] == ["404", "not_found"]
    assert sorted(seen["services"]) == sorted(pool.workers)


@pytest.mark.long
async def test_the_object_store_of_javascript_reads_the_bucket(
    pool: Pool, digests: dict[str, int]
) -> None:
    found = await run_script("object_store.mjs", pool.url, pool.bucket, *digests)

    assert found == [
        {"name": digest, "size": size, "sha256": digest} for digest, size in digests.items()
    ]


@pytest_asyncio.fixture
async def rust(pool: Pool) -> AsyncIterator[Any]:
    """A connection of natsrpy's."""
    import natsrpy

    connection = natsrpy.Nats(addrs=pool.servers)
    await connection.startup()
    yield connection
    await connection.shutdown()  # one that is merely dropped aborts the process


@needs_natsrpy
async def test_the_rust_client_puts_gets_and_lists_by_plain_requests(pool: Pool, rust: Any) -> None:
    data = b"put from Rust"
    digest = hashlib.sha256(data).hexdigest()

    put = await rust.request(pool.subject("blob.put"), data, headers={"Blob-Type": "text/plain"})
    got = await rust.request(pool.subject("blob.get"), digest)
    part = await rust.request(
        pool.subject("blob.get"), json.dumps({"digest": digest, "offset": 4, "length": 4})
    )
    listed = await rust.request(pool.subject("blob.list"), json.dumps({"prefix": digest}))
    absent = await rust.request(pool.subject("blob.get"), "0" * 64)

    assert json.loads(put.payload) == {"digest": digest, "size": len(data), "created": True}
    assert (got.payload, got.headers["Blob-Type"]) == (data, "text/plain")
    assert part.payload == b"from"
    assert [blob["digest"] for blob in json.loads(listed.payload)["blobs"]] == [digest]
    assert json.loads(absent.payload)["code"] == "not_found"
    assert absent.headers["Nats-Service-Error-Code"] == "404"


@needs_natsrpy
async def test_the_object_store_of_rust_reads_the_bucket(
    pool: Pool, rust: Any, digests: dict[str, int]
) -> None:
    store = await (await rust.jetstream()).object_store.get(pool.bucket)

    for digest, size in digests.items():
        bytes_read = io.BytesIO()
        await store.get(digest, bytes_read)

        assert (await store.get_info(digest)).size == size
        assert hashlib.sha256(bytes_read.getvalue()).hexdigest() == digest
