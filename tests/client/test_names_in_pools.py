"""Names, where workers die, or know nothing of names."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from tests.client.conftest import SECONDS
from tests.client.test_client import INLINE, digest_of
from tests.client.test_faults import UPLOAD_BYTES, SourceWithFault
from tests.contracts.blob_store import some_bytes
from tests.deployment import deployed

from holdfast.client import Client, connect
from holdfast.errors import HoldfastError, InvalidError, UnavailableError
from holdfast.protocol import codec
from holdfast.protocol.blobs import UploadState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from nats.aio.msg import Msg
    from tests.deployment import Asker, Deployment

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

UPGRADE = "upgrade all workers of the pool"


@pytest.fixture
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """Two workers that a test may kill."""
    with deployed(nats_server.url, "one", "two") as deployment:
        yield deployment


@pytest.fixture
async def old_pool(nats_url: str, ask: Asker) -> AsyncIterator[Client]:
    """The client of a pool whose one worker is of before there were names."""
    prefix = f"{ask.deployment.prefix}-old"
    worker = {
        "name": "holdfast",
        "id": "w1",
        "version": "0.1.0",
        "metadata": {"node": "old"},
        "endpoints": [{"name": "blob-put", "subject": f"{prefix}.blob.put"}],
    }

    async def tell(message: Msg) -> None:
        await message.respond(json.dumps(worker).encode())

    async def refuse(message: Msg) -> None:
        detail = "the request is not valid: Object contains unknown field `name`"
        headers, body = codec.encode_error(InvalidError(detail), codec.Encoding.JSON)
        await ask.client.publish(message.reply, body, headers=headers)

    await ask.client.subscribe("$SRV.STATS.holdfast", cb=tell)
    for verb in ("get", "stat", "delete"):
        await ask.client.subscribe(f"{prefix}.blob.{verb}", cb=refuse)
    await ask.client.flush()
    async with await connect(servers=nats_url, prefix=prefix, timeout_seconds=1) as client:
        yield client


async def check_told_to_upgrade(attempt: Callable[[], Awaitable[object]]) -> None:
    """So it ends: a busy worker may miss the half second in which it can say what it is."""
    async with asyncio.timeout(SECONDS):
        while True:
            with pytest.raises(HoldfastError) as caught:
                await attempt()
            if isinstance(caught.value, UnavailableError) and UPGRADE in caught.value.detail:
                return


async def test_an_old_pool_is_to_be_upgraded(old_pool: Client) -> None:
    names = old_pool.names

    async def stream() -> list[bytes | memoryview]:
        return [piece async for piece in names.stream("n")]

    async def rows() -> list[object]:
        return [row async for row in names.list()]

    for attempt in (
        lambda: names.get("n"),
        lambda: names.stat("n"),
        lambda: names.delete("n"),
        lambda: names.create("n", b"x"),
        lambda: names.put("n", some_bytes(INLINE + 1)),
        lambda: names.copy("n", source="m"),
        lambda: names.history("n"),
        names.rules,
        stream,
        rows,
    ):
        await check_told_to_upgrade(attempt)


async def test_a_streamed_write_that_an_old_worker_has_ended_is_not_one(
    old_pool: Client, ask: Asker
) -> None:
    data = some_bytes(INLINE + 1)
    ended = UploadState(digest=digest_of(data), size=len(data), created=True)

    async def answer(message: Msg) -> None:
        await message.respond(codec.encode(ended))

    await ask.client.subscribe(f"{ask.deployment.prefix}-old.blob.open_name", cb=answer)
    await ask.client.flush()

    with pytest.raises(UnavailableError, match=UPGRADE):
        await old_pool.names.create("n", data, digest=digest_of(data))


async def test_what_a_new_pool_refuses_is_invalid(deployment: Deployment) -> None:
    async with await connect(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        with pytest.raises(InvalidError):
            await holdfast.names.stat("n", version=0)
        with pytest.raises(InvalidError):
            _ = [row async for row in holdfast.names.list("a" * 513)]


async def test_where_nobody_is_there_is_nobody_to_upgrade(nats_url: str) -> None:
    async with await connect(servers=nats_url, prefix="nobody", timeout_seconds=0.3) as holdfast:
        with pytest.raises(UnavailableError) as caught:
            await holdfast.names.create("n", b"x")

    assert UPGRADE not in caught.value.detail


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["create", "replace"])
async def test_kill_9_of_the_owner_of_a_streamed_write_goes_unnoticed(
    deployment: Deployment, ask: Asker, verb: str
) -> None:
    source = SourceWithFault(ask, deployment.kill)

    async with await connect(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        write = holdfast.names.create
        if verb == "replace":
            await holdfast.names.create("n", b"before")
            write = holdfast.names.replace
        stored = await write("n", source.blocks())

        assert (stored.digest, stored.size) == (source.sha256.hexdigest(), UPLOAD_BYTES)
        assert (await holdfast.names.stat("n")).version == stored.version
        assert digest_of(await holdfast.names.get("n")) == stored.digest
        await ask.wait_no_orphans()
