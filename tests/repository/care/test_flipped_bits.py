"""One flipped bit in a file of a nats-server: never wrong bytes, and the scrub tells of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.nats.tools import kill
from tests.repository.care.scrubs import lap_of, scrub_of
from tests.repository.collector.conftest import Deployed, opened
from tests.repository.collector.test_collector import content, put, put_name, put_snapshot
from tests.repository.collector.test_lost_records import CACHED_SECONDS, collected, flip_a_bit
from tests.runtime.test_start_refusals import config_of

from holdfast.bootstrap.admin import init_store
from holdfast.errors import CorruptError, NotFoundError
from holdfast.repository.names.record import NameRecord

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobStore

pytestmark = [pytest.mark.nats, pytest.mark.fault("N12")]

SIZE: Final = 50_000


async def filled(deployed: Deployed) -> dict[Digest, bytes]:
    """Blobs with names, and snapshots that failed; what the blobs are."""
    stored = {}
    for number in range(40):
        data = some_bytes(SIZE, number)
        digest = await put(deployed.stores.blobs, data)
        record = NameRecord(name=f"n{number}", state="ok", version=1, content=content(digest))
        await put_name(deployed, record)
        await put_snapshot(deployed, id=f"0198a000-0000-7000-8000-{number:012}", state="failure")
        stored[digest] = data
    return stored


async def read(store: BlobStore, digest: Digest) -> bytes | None:
    """What a reader gets; None where it is told that there is damage, or nothing."""
    try:
        return await store.get(await store.stat(digest))
    except (CorruptError, NotFoundError):
        return None


@pytest.mark.parametrize("stream", ["OBJ_flip_blobs", "KV_flip_names", "KV_flip_snapshots"])
async def test_after_a_restart_the_next_lap_tells_and_nothing_is_collected(
    stream: str, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(directory=tmp_path)
    config = config_of(server.url, prefix="flip")
    await init_store(config)
    async with opened(config) as stores:
        deployed = Deployed(config, stores)
        await deployed.change(grace_seconds=-1)
        stored = await filled(deployed)
        assert (await lap_of(scrub_of(deployed))).unreadable == 0
        assert (await collected(deployed)).failure is None
    kill(server)
    flip_a_bit(tmp_path, stream)
    again = start_server(port=server.port, directory=tmp_path)

    async with opened(config) as stores:
        deployed = Deployed(config, stores)
        got = {digest: await read(stores.blobs, digest) for digest in stored}
        lap = await lap_of(scrub_of(deployed))
        found = await collected(deployed)

    assert {digest for digest, data in got.items() if data not in {None, stored[digest]}} == set()
    assert lap.damaged or lap.unreadable
    assert stream.rpartition("_")[2] in {one.space for one in lap.told}
    assert found.removed.blobs == 0
    again.stop()


@pytest.mark.long
async def test_in_a_living_block_it_is_told_too_and_nothing_is_collected(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The server passes over what it cannot read, once it reads the block again."""
    server = start_server(directory=tmp_path)
    config = config_of(server.url, prefix="flip")
    await init_store(config)
    async with opened(config) as stores:
        deployed = Deployed(config, stores)
        await deployed.change(grace_seconds=-1)
        stored = await filled(deployed)
        assert (await lap_of(scrub_of(deployed))).unreadable == 0
    flip_a_bit(tmp_path, "OBJ_flip_blobs")
    await asyncio.sleep(CACHED_SECONDS)  # no event tells, and who looks keeps it in memory

    async with opened(config) as stores:
        deployed = Deployed(config, stores)
        got = {digest: await read(stores.blobs, digest) for digest in stored}
        lap = await lap_of(scrub_of(deployed))
        found = await collected(deployed)

    assert {digest for digest, data in got.items() if data not in {None, stored[digest]}} == set()
    assert lap.damaged or lap.unreadable
    assert found.removed.blobs == 0
