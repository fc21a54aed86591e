"""One flipped bit in a file of a nats-server: never wrong bytes, and the scrub tells of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.blob_store import some_bytes
from tests.contracts.states import worker_on
from tests.repository.care.scrubs import lap_of, scrub_of
from tests.repository.collector.conftest import Deployed, opened, without_grace
from tests.repository.collector.test_collector import content, put, put_name, put_snapshot
from tests.repository.collector.test_lost_records import (
    CACHED_SECONDS,
    collected,
    flip_a_bit,
    restarted_with_a_flipped_bit,
)
from tests.runtime.test_start_refusals import config_of

from holdfast.errors import CorruptError, NotFoundError
from holdfast.repository.names.record import NameRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobStore

pytestmark = [pytest.mark.nats, pytest.mark.fault("N12")]

SIZE: Final = 50_000
STATES: Final = 20
NEEDED_BY: Final = {"blobs": "KV_flip_names", "states": "HF_flip_states"}
"""The stream of what needs the blobs."""


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


async def with_states(deployed: Deployed) -> None:
    """States that had three commands, the first of which is trimmed, and a save up to the last."""
    worker = worker_on(deployed.stores)
    for n in range(3):
        for number in range(STATES):
            await worker.append(f"s{number}", commands_of(number)[n])
    for number in range(STATES):
        for index in (1, 3):
            await worker.save(f"s{number}", save_of(number, index), index)
        await worker.upkeep.trim(f"s{number}", 1)


def commands_of(number: int) -> list[bytes]:
    """Those of one state."""
    return [some_bytes(2_000, 3 * number + n) for n in range(3)]


def save_of(number: int, index: int) -> bytes:
    """That of one state up to the command ``index``; the first is small."""
    return b"first" if index == 1 else some_bytes(SIZE, number)


async def wrong_states(deployed: Deployed) -> list[str]:
    """Those of which something else is read than was written, instead of a failure."""
    worker = worker_on(deployed.stores)
    wrong = []
    for number in range(STATES):
        name = f"s{number}"
        with suppress(CorruptError, NotFoundError):
            if await worker.replay(name, 2) != commands_of(number)[1:]:
                wrong.append(f"the log of {name}")
        with suppress(CorruptError, NotFoundError):
            found = await worker.latest(name)
            if found.data != save_of(number, found.save.last_applied_index):
                wrong.append(f"the save of {name}")
    return wrong


async def read(store: BlobStore, digest: Digest) -> bytes | None:
    """The bytes that a reader gets; None where it is told that there is damage, or nothing."""
    try:
        return await store.get(await store.stat(digest))
    except (CorruptError, NotFoundError):
        return None


async def wrong_blobs(deployed: Deployed, stored: Mapping[Digest, bytes]) -> list[Digest]:
    """Those of which other bytes are read, instead of a failure."""
    blobs = deployed.stores.blobs
    return [one for one, data in stored.items() if await read(blobs, one) not in {None, data}]


@pytest.mark.parametrize(
    ("fill", "stream"),
    [
        (fill, stream)
        for fill in ("blobs", "states")
        for stream in ("OBJ_flip_blobs", "KV_flip_snapshots", NEEDED_BY[fill])
    ],
)
async def test_after_a_restart_nothing_wrong_is_read_and_the_next_lap_tells_before_anything_goes(
    fill: str, stream: str, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(directory=tmp_path)
    config = config_of(server.url, prefix="flip")
    stored = {}
    async with without_grace(config) as deployed:
        if fill == "blobs":
            stored = await filled(deployed)
        else:
            await with_states(deployed)
        assert (await lap_of(scrub_of(deployed))).unreadable == 0
        assert (await collected(deployed)).failure is None
    restarted_with_a_flipped_bit(server, tmp_path, stream, start_server)

    async with opened(config) as stores:
        stores.states.catch_up_seconds = 0.0  # there is one server, which lags behind no other
        deployed = Deployed(config, stores)
        wrong = [*await wrong_blobs(deployed, stored), *await wrong_states(deployed)]
        lap = await lap_of(scrub_of(deployed))
        found = await collected(deployed)

    assert wrong == []
    assert lap.damaged or lap.unreadable
    assert not stored or stream.rpartition("_")[2] in {one.space for one in lap.told}
    assert found.removed.blobs == 0


@pytest.mark.long
async def test_in_a_living_block_it_is_told_too_and_nothing_is_collected(
    start_server: StartServer, tmp_path: Path
) -> None:
    """The server passes over what it cannot read, once it reads the block again."""
    server = start_server(directory=tmp_path)
    config = config_of(server.url, prefix="flip")
    async with without_grace(config) as deployed:
        stored = await filled(deployed)
        await with_states(deployed)
        assert (await lap_of(scrub_of(deployed))).unreadable == 0
    flip_a_bit(tmp_path, "OBJ_flip_blobs")
    flip_a_bit(tmp_path, "HF_flip_states")
    await asyncio.sleep(CACHED_SECONDS)  # no event tells, and who looks keeps it in memory

    async with opened(config) as stores:
        stores.states.catch_up_seconds = 0.0  # there is one server, which lags behind no other
        deployed = Deployed(config, stores)
        wrong = [*await wrong_blobs(deployed, stored), *await wrong_states(deployed)]
        lap = await lap_of(scrub_of(deployed))
        found = await collected(deployed)

    assert wrong == []
    assert {one.space for one in lap.told} >= {"blobs", "states"}
    assert found.removed.blobs == 0
