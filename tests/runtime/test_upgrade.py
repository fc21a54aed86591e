"""Stores that an older version made are refused by workers until they are upgraded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import nats
import nats.aio.client
import nats.aio.msg
import pytest
from tests.runtime.test_start_refusals import config_of, streams
from tests.stores.disk_tools import in_database

import holdfast
from holdfast.bootstrap.admin import init_store, upgrade_store
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import create_on_disk, open_on_disk, open_stores
from holdfast.bootstrap.worker import run_worker
from holdfast.errors import InvalidError, UnavailableError
from holdfast.stores.deployment import FORMAT, KEY, OLD_FORMAT, Deployment, read_deployment
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.bootstrap.stores import Stores
    from holdfast.runtime.config import Config


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Stores]:
    """The stores as a worker has them."""
    connection = await connect(config.nats)
    yield open_stores(config, JetStream(connection, Inbox(connection)), SOURCES)
    await connection.close()


async def make_older(url: str, config: Config) -> None:
    """Take from a deployment what older versions did not make: names, and logs of states."""
    async with opened(config) as stores:
        record = await stores.records.get(KEY)
        recorded: dict[str, Any] = msgspec.json.decode(record.value)
        del recorded["names"], recorded["states"]
        await stores.records.put(KEY, msgspec.json.encode(recorded), expected=record.revision)
        await stores.records.put("u.kept", b"value", expected=0)
    client = await nats.connect(url)
    for stream in (f"KV_{config.prefix}_names", f"HF_{config.prefix}_states"):
        await client.jetstream().delete_stream(stream)
    await client.close()


@pytest.mark.nats
async def test_buckets_of_an_older_version_are_completed_by_an_upgrade(nats_url: str) -> None:
    config = config_of(nats_url, prefix="older")
    made = await init_store(config)
    await make_older(nats_url, config)
    async with opened(config) as stores:
        with pytest.raises(
            UnavailableError, match="lacks older_names, older_states; `holdfast admin upgrade`"
        ):
            await stores.check()

    said = await upgrade_store(config)
    again = await upgrade_store(config)

    assert len(said) == len(again) == len(made)
    assert "created KV_older_names with 1 replica(s)" in said
    assert "created HF_older_states with 1 replica(s)" in said
    assert said[-1] == "added to the deployment's record: older_names, older_states"
    assert again == await init_store(config)
    async with opened(config) as stores:
        await stores.check()
        assert (await stores.records.get("u.kept")).value == b"value"
        assert {"KV_older_names", "HF_older_states"} <= set(stores.streams)


@pytest.mark.nats
async def test_buckets_that_are_not_there_are_not_made_by_an_upgrade(nats_url: str) -> None:
    config = config_of(nats_url, prefix="absent")
    before = await streams(nats_url, config.prefix)

    with pytest.raises(UnavailableError, match="holdfast admin init"):
        await upgrade_store(config, wait_seconds=0)

    assert await streams(nats_url, config.prefix) == before


@pytest.mark.nats
async def test_another_deployments_records_are_refused_before_anything_is_made(
    nats_url: str,
) -> None:
    await init_store(config_of(nats_url, prefix="theirs"))
    before = await streams(nats_url, "theirs")

    with pytest.raises(UnavailableError, match="belong to the buckets theirs_blobs"):
        await upgrade_store(config_of(nats_url, prefix="theirs", store="nats://media"))

    assert await streams(nats_url, "theirs") == before


async def test_a_disk_store_of_an_older_version_is_completed_by_an_upgrade(tmp_path: Path) -> None:
    root = tmp_path / "store"
    config = config_of("nats://127.0.0.1:1", store=f"disk://{root}")
    await init_store(config)
    stores = open_on_disk(root, SOURCES)
    await stores.records.put("u.kept", b"value", expected=0)
    for later in ("names", "states"):
        shutil.rmtree(root / later)
    for name in ("records", "snapshots"):
        for added in ("INDEX ending", "TRIGGER counted_in", "TRIGGER counted_out", "TABLE extent"):
            in_database(root / name, f"DROP {added}")
    with pytest.raises(UnavailableError, match="`holdfast admin upgrade`"):
        await stores.check()

    await upgrade_store(config)

    await stores.check()
    assert (await stores.records.get("u.kept")).value == b"value"
    assert (await stores.names.extent()).keys == 0
    assert await stores.states.last("a") is None
    await stores.aclose()


async def test_a_disk_store_that_is_not_there_is_not_made_by_an_upgrade(tmp_path: Path) -> None:
    config = config_of("nats://127.0.0.1:1", store=f"disk://{tmp_path}/store")

    with pytest.raises(UnavailableError, match="`holdfast admin init`"):
        await upgrade_store(config)

    assert os.listdir(tmp_path) == []


async def answer_as_older(url: str, prefix: str) -> nats.aio.client.Client:
    """A worker of the version before the collector, as it answers discovery."""
    client = await nats.connect(url)
    told = {
        "name": "holdfast",
        "id": "w",
        "version": "0.1.0",
        "metadata": {"node": "old", "features": "names"},
        "endpoints": [{"name": "blob-put", "subject": f"{prefix}.blob.put"}],
    }

    async def answer(message: nats.aio.msg.Msg) -> None:
        await message.respond(json.dumps(told).encode())

    await client.subscribe("$SRV.STATS.holdfast", cb=answer)
    await client.flush()
    return client


@pytest.mark.nats
async def test_collection_begins_a_grace_time_after_the_last_older_worker_has_gone(
    nats_url: str,
) -> None:
    config = config_of(nats_url, prefix="grown")
    await init_store(config, grace_seconds=3600)
    async with opened(config) as stores:
        record = await stores.records.get(KEY)
        old = msgspec.structs.replace(
            msgspec.json.decode(record.value, type=Deployment), format=OLD_FORMAT
        )
        await stores.records.put(KEY, msgspec.json.encode(old), expected=record.revision)
        older = await answer_as_older(nats_url, config.prefix)

        said = await upgrade_store(config)
        assert "collection stays off, for older workers answer (old)" in said[-1]
        assert (await read_deployment(stores.records)).format == OLD_FORMAT

        await older.close()
        said = await upgrade_store(config)
        assert said[-1].startswith("collection begins at ")
        found = await read_deployment(stores.records)
        now = await stores.blobs.now()
        assert found.format == FORMAT
        assert found.collects_from is not None
        assert now < found.collects_from <= now + timedelta(seconds=3600)
        await stores.check()


@pytest.mark.nats
async def test_a_worker_stops_when_its_store_gets_a_form_that_it_does_not_know(
    nats_url: str,
) -> None:
    config = config_of(nats_url, prefix="outgrown", upload_lease_seconds="0.2")
    await init_store(config)
    async with opened(config) as stores:
        record = await stores.records.get(KEY)
        found = msgspec.json.decode(record.value, type=Deployment)
        newer = msgspec.json.encode(msgspec.structs.replace(found, format=FORMAT + 1))
        told = asyncio.Event()
        running = asyncio.create_task(run_worker(config, on_stop=told.set))
        async with await holdfast.connect(servers=nats_url, prefix="outgrown") as client:
            while not await client.workers(0.2):
                assert not running.done()
        assert not told.is_set()
        await stores.records.put(KEY, newer, expected=record.revision)

        assert await running == 1
        assert told.is_set()


@pytest.mark.nats
async def test_the_grace_time_of_a_store_that_is_there_stays(nats_url: str) -> None:
    config = config_of(nats_url, prefix="graced")
    await init_store(config, grace_seconds=7)

    said = await init_store(config, grace_seconds=9)

    assert "stays 7 s" in said[-1]
    async with opened(config) as stores:
        assert await stores.check() == timedelta(seconds=7)


@pytest.mark.parametrize("seconds", [0, -1, 10**9])
async def test_a_grace_time_that_is_none_is_refused(seconds: int, tmp_path: Path) -> None:
    config = config_of("nats://127.0.0.1:1", store=f"disk://{tmp_path}/store")

    with pytest.raises(InvalidError):
        await init_store(config, grace_seconds=seconds)

    assert os.listdir(tmp_path) == []


async def test_on_a_disk_store_of_an_older_version_collection_stays_off(tmp_path: Path) -> None:
    """No server says which workers are at work, and none of an older version would refuse it."""
    root = tmp_path / "store"
    config = config_of("nats://127.0.0.1:1", store=f"disk://{root}")
    create_on_disk(root)

    said = await upgrade_store(config)

    assert "collection stays as it is" in said[-1]
    stores = open_on_disk(root, SOURCES)
    assert (await read_deployment(stores.records)).format == OLD_FORMAT
    await stores.check()
    await stores.aclose()
