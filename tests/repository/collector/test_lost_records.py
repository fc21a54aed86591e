"""A damaged block of a bucket of roots: what the server does not show any more is not collected."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from tests.nats.tools import kill
from tests.repository.collector.conftest import Deployed, opened, without_grace
from tests.runtime.test_start_refusals import config_of

from holdfast.bootstrap.admin import accept_loss
from holdfast.domain.blob_names import name_key
from holdfast.domain.digest import digest_of
from holdfast.repository.names.record import NAME, NamedContent, NameRecord
from holdfast.stores.ports import Attributes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.domain.digest import Digest
    from holdfast.repository.collector.report import SpaceReport
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

NAMES: Final = 300
CACHED_SECONDS: Final = 20.0
"""A server that is not asked for a block forgets it sooner."""


async def put_names(deployed: Deployed) -> set[Digest]:
    """Names with a blob each."""
    digests = set()
    for number in range(NAMES):
        data = b"%d" % number
        digest = digest_of(data)
        attributes = Attributes(
            type="a/b", created_at=await deployed.stores.blobs.now(), pinned=False
        )
        await deployed.stores.blobs.put(digest, data, attributes)
        content = NamedContent(digest=digest, size=len(data), type="a/b")
        name = f"n{number}"
        record = NameRecord(name=name, state="ok", version=1, content=content)
        key = NAME.key(name_key(name))
        await deployed.stores.names.put(key, msgspec.json.encode(record), expected=0)
        digests.add(digest)
    return digests


async def collected(deployed: Deployed) -> SpaceReport:
    """Collect once; the report about the blobs."""
    report = await deployed.collector().collect(dry_run=False, seconds=60)
    assert report.off is None
    return report.spaces[1]


def flip_a_bit(directory: Path, stream: str) -> None:
    """In the middle of the stream's first block."""
    [block] = directory.rglob(f"{stream}/msgs/1.blk")
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(data)


def restarted_with_a_flipped_bit(
    server: EmbeddedServer, directory: Path, stream: str, start_server: StartServer
) -> None:
    """Kill the server, flip a bit of the stream, and start it again."""
    kill(server)
    flip_a_bit(directory, stream)
    start_server(port=server.port, directory=directory)


async def test_after_one_flipped_bit_and_a_restart_nothing_is_removed(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(directory=tmp_path)
    config = config_of(server.url, prefix="flipped")
    async with without_grace(config) as deployed:
        digests = await put_names(deployed)
        assert (await collected(deployed)).failure is None
    restarted_with_a_flipped_bit(server, tmp_path, "KV_flipped_names", start_server)

    async with opened(config) as stores:
        assert (await stores.names.extent()).keys < NAMES
        deployed = Deployed(config, stores)
        for _ in range(2):
            found = await collected(deployed)
            assert "records were lost" in (found.failure or "")
        page = await stores.blobs.survey(None, limit=1000)

    assert {blob.digest for blob in page.blobs} == digests
    assert sorted(await accept_loss(config)) == ["names", "snapshots", "states"]


@pytest.mark.long
async def test_after_one_flipped_bit_in_a_living_block_nothing_is_removed(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The server counts the record, and passes over it once it reads the block again."""
    server = start_server(directory=tmp_path)
    async with without_grace(config_of(server.url, prefix="flipped")) as deployed:
        digests = await put_names(deployed)
        flip_a_bit(tmp_path, "KV_flipped_names")

        await asyncio.sleep(CACHED_SECONDS)  # no event tells, and who looks keeps it in memory
        found = await collected(deployed)
        page = await deployed.stores.blobs.survey(None, limit=1000)

    assert found.failure == "1 records are counted and cannot be read"
    assert {blob.digest for blob in page.blobs} == digests
