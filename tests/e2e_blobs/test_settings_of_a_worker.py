"""A worker under other settings: stores, a small server, metrics, limits, draining."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import TYPE_CHECKING

import pytest
from nats.aio.client import Client
from tests.contracts.blob_store import some_bytes
from tests.deployment import Asker, Deployment, code_of, deployed
from tests.ports import free_ports

from holdfast.client import connect, connect_sync
from holdfast.domain.digest import digest_of
from holdfast.domain.limits import max_inline_bytes, part_bytes
from holdfast.stores.jetstream.blobs.meta import meta_subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from nats.aio.msg import Msg
    from tests.conftest import StartServer

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

SIZES = (0, 1, 100_000, 3_000_001)


def check_round_trip(deployment: Deployment) -> None:
    """Blobs of every kind go in and come back."""
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast:
        for size in SIZES:
            data = some_bytes(size, seed=size)
            digest = holdfast.put(data).digest
            assert holdfast.get(digest) == data
            assert holdfast.get(digest, offset=size // 3, length=99) == data[size // 3 :][:99]
        assert len(list(holdfast.list())) == len(SIZES)
        status = holdfast.store_status()
        assert bool(status.buckets) == deployment.store.startswith("nats://")
        assert status.problems == []


def test_blobs_may_be_kept_in_memory(nats_url: str) -> None:
    with deployed(nats_url, "one", store="memory://") as deployment:
        check_round_trip(deployment)


def test_blobs_may_be_kept_on_disk_and_outlive_the_worker(nats_url: str, tmp_path: Path) -> None:
    with deployed(nats_url, "one", store=f"disk://{tmp_path}/store") as deployment:
        check_round_trip(deployment)
        assert deployment.stop("one") == 0
        deployment.start("two")

        with connect_sync(servers=deployment.url, prefix=deployment.prefix) as holdfast:
            assert {blob.size for blob in holdfast.list()} == set(SIZES)


@pytest.mark.parametrize("is_known", [True, False])
def test_many_small_puts_are_stored_together_where_writes_are_known_to_be_synced(
    nats_server: EmbeddedServer, *, is_known: bool
) -> None:
    settings = {"monitor_url": nats_server.monitor_url} if is_known else {}
    blobs = [some_bytes(500, seed=number) for number in range(64)]

    async def put_all(deployment: Deployment) -> set[bool]:
        """Whether records have an index: those of a group have none, since all come at once."""
        client = Client()
        await client.connect(deployment.url)
        ask = Asker(deployment, client)
        answers = await asyncio.gather(*(ask("blob.put", data) for data in blobs))
        assert {code_of(one) for one in answers} == {"ok"}
        bucket, found = deployment.bucket, set()
        for data in blobs:
            subject = meta_subject(bucket, digest_of(data))
            message = await client.jetstream().get_last_msg(f"OBJ_{bucket}", subject)
            found.add(b"hf-index" in (message.data or b""))
        await client.close()
        return found

    with deployed(nats_server.url, "one", **settings) as deployment:
        found = asyncio.run(put_all(deployment))

    assert (False in found) == is_known


@pytest.mark.fault("N19")
async def test_a_server_with_small_messages_gets_small_parts(start_server: StartServer) -> None:
    max_payload = 64 * 1024
    server = await asyncio.to_thread(
        lambda: start_server(extra_configuration=f"max_payload: {max_payload}")
    )
    deployment = await asyncio.to_thread(Deployment(server.url).__enter__)
    try:
        await asyncio.to_thread(deployment.start, "one")
        await asyncio.to_thread(check_round_trip, deployment)
        client = Client()
        await client.connect(server.url)
        ask = Asker(deployment, client)

        assert (await ask.json("blob.open"))["part_size"] == part_bytes(max_payload)
        full = bytes(max_inline_bytes(max_payload))
        assert code_of(await ask("blob.put", full)) == "ok"
        assert code_of(await ask("blob.put", full + b"\0")) == "too_large"
        await client.close()
    finally:
        await asyncio.to_thread(deployment.__exit__, None, None, None)


def test_metrics_are_served_where_a_port_is_given(nats_url: str) -> None:
    (port,) = free_ports(1)
    with deployed(nats_url, "one", metrics_port=str(port)) as deployment:
        check_round_trip(deployment)

        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            text = answer.read().decode()

    assert 'operation="put"' in text
    assert text.startswith("# HELP")


@pytest.mark.fault("I15")
async def test_beyond_the_limit_of_requests_a_worker_says_so_and_goes_on(nats_url: str) -> None:
    deployment = Deployment(nats_url)
    await asyncio.to_thread(deployment.__enter__)
    try:
        await asyncio.to_thread(deployment.start, "one", max_concurrent_requests="4")
        client = Client()
        await client.connect(nats_url)
        ask = Asker(deployment, client)

        answers = await asyncio.gather(
            *(ask("blob.put", f"{n}".encode().ljust(50_000)) for n in range(300))
        )
        codes = {code_of(answer) for answer in answers}

        assert codes == {"ok", "rate_limited"}
        assert code_of(await ask("blob.put", b"afterwards")) == "ok"
        await client.close()
    finally:
        await asyncio.to_thread(deployment.__exit__, None, None, None)


@pytest.mark.fault("R04")
async def test_sigterm_under_load_answers_everything_that_was_taken(nats_url: str) -> None:
    deployment = Deployment(nats_url)
    await asyncio.to_thread(deployment.__enter__)
    try:
        await asyncio.to_thread(deployment.start, "one", "two")
        client = Client()
        await client.connect(nats_url)
        ask = Asker(deployment, client)
        stopped = asyncio.Event()
        answers: list[Msg] = []

        async def put_on(number: int) -> None:
            count = 0
            while not stopped.is_set() or count < 3:
                count += 1
                answers.append(await ask("blob.put", f"{number} {count}".encode().ljust(20_000)))

        putting = [asyncio.create_task(put_on(number)) for number in range(16)]
        while len(answers) < 50:  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.005)
        status = await asyncio.to_thread(deployment.stop, "one")
        stopped.set()
        await asyncio.gather(*putting)

        assert status == 0
        assert {code_of(answer) for answer in answers} == {"ok"}
        for answer in answers:
            digest = json.loads(answer.data)["digest"]
            assert code_of(await ask("blob.stat", {"digest": digest})) == "ok"
        await client.close()
    finally:
        await asyncio.to_thread(deployment.__exit__, None, None, None)


@pytest.mark.fault("R04")
async def test_an_upload_goes_on_when_its_worker_is_drained(nats_url: str) -> None:
    deployment = Deployment(nats_url)
    await asyncio.to_thread(deployment.__enter__)
    try:
        await asyncio.to_thread(deployment.start, "one", "two")
        data = some_bytes(12 * 2**20, seed=5)

        async with await connect(servers=nats_url, prefix=deployment.prefix) as holdfast:

            async def source() -> AsyncIterator[bytes]:
                for start in range(0, len(data), 2**20):
                    if start == 6 * 2**20:
                        await asyncio.to_thread(deployment.stop, "one")
                    yield data[start : start + 2**20]

            stored = await holdfast.put(source())
            assert await holdfast.get(stored.digest) == data
    finally:
        await asyncio.to_thread(deployment.__exit__, None, None, None)
