"""The record of a deployment: written once, completed by a newer version, never replaced."""

from __future__ import annotations

import time

import msgspec
import pytest

from holdfast.errors import ConflictError, CorruptError, UnavailableError
from holdfast.stores.deployment import FORMAT, KEY, Deployment, check_deployment, write_deployment
from holdfast.stores.memory import MemoryRecordStore
from holdfast.stores.record_ports import Record

WANTED = Deployment(blobs="blobs", packs="packs", snapshots="snapshots", names="names")


@pytest.fixture
def records() -> MemoryRecordStore:
    return MemoryRecordStore(time.monotonic)


async def recorded(records: MemoryRecordStore) -> Deployment:
    return msgspec.json.decode((await records.get(KEY)).value, type=Deployment)


async def test_it_is_written_once_and_found_again(records: MemoryRecordStore) -> None:
    first = await write_deployment(records, WANTED)
    revision = (await records.get(KEY)).revision
    second = await write_deployment(records, WANTED)

    assert (first, second) == ("wrote the deployment's record", "found the deployment's record")
    assert (await records.get(KEY)).revision == revision
    await check_deployment(records, WANTED)


@pytest.mark.parametrize(
    ("old", "added"),
    [
        (
            b'{"blobs": "blobs", "packs": "packs", "format": 1, "grace_seconds": 7}',
            "snapshots, names",
        ),
        (
            b'{"blobs": "blobs", "packs": "packs", "snapshots": "snapshots", "format": 1,'
            b' "grace_seconds": 7}',
            "names",
        ),
    ],
    ids=["before-snapshots", "before-names"],
)
async def test_an_older_one_is_refused_until_it_is_completed(
    records: MemoryRecordStore, old: bytes, added: str
) -> None:
    await records.put(KEY, old, expected=0)
    with pytest.raises(UnavailableError, match=f"lacks {added}; `holdfast admin upgrade`"):
        await check_deployment(records, WANTED)

    said = await write_deployment(records, WANTED)

    assert said == f"added to the deployment's record: {added}"
    assert await recorded(records) == msgspec.structs.replace(WANTED, grace_seconds=7)
    await check_deployment(records, WANTED)


@pytest.mark.parametrize("field", ["blobs", "packs", "snapshots", "names"])
async def test_another_deployments_is_refused_and_left_as_it_is(
    records: MemoryRecordStore, field: str
) -> None:
    theirs = msgspec.structs.replace(WANTED, **{field: "theirs"})
    await write_deployment(records, theirs)

    with pytest.raises(UnavailableError, match=r"belong to .*theirs"):
        await check_deployment(records, WANTED)
    with pytest.raises(UnavailableError, match=r"belong to .*theirs"):
        await write_deployment(records, WANTED)

    assert await recorded(records) == theirs


async def test_a_later_format_is_refused(records: MemoryRecordStore) -> None:
    await write_deployment(records, msgspec.structs.replace(WANTED, format=FORMAT + 1))

    with pytest.raises(UnavailableError, match="upgrade"):
        await check_deployment(records, WANTED)


async def test_a_store_that_is_not_set_up_says_what_to_do(records: MemoryRecordStore) -> None:
    with pytest.raises(UnavailableError, match="holdfast admin init"):
        await check_deployment(records, WANTED)


async def test_one_that_cannot_be_read_is_corrupt(records: MemoryRecordStore) -> None:
    await records.put(KEY, b"{", expected=0)

    with pytest.raises(CorruptError):
        await check_deployment(records, WANTED)
    with pytest.raises(CorruptError):
        await write_deployment(records, WANTED)


async def test_who_completes_it_loses_to_who_changes_it(records: MemoryRecordStore) -> None:
    class Racing(MemoryRecordStore):
        async def get(self, key: str, *, sure: bool = False) -> Record:
            record = await super().get(key, sure=sure)
            await super().put(key, b"changed", expected=record.revision)
            return record

    racing = Racing(time.monotonic)
    await racing.put(KEY, b'{"blobs": "blobs", "packs": "packs"}', expected=0)

    with pytest.raises(ConflictError):
        await write_deployment(racing, WANTED)
