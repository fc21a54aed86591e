"""A copy that one place has lost and another has: it is put anew, in the place of that record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import FAR_AHEAD, PART_BYTES, put, put_staged, some_bytes
from tests.nats.buckets import Bucket, Paused

from holdfast.errors import NotFoundError
from holdfast.stores.jetstream import healing as healing_module

if TYPE_CHECKING:
    from holdfast.stores.ports import BlobInfo

pytestmark = pytest.mark.nats

SIZES = (0, 1, PART_BYTES, 3 * PART_BYTES + 7)


async def put_of(bucket: Bucket, size: int) -> BlobInfo:
    """A blob in parts."""
    return (await put_staged(bucket.store, some_bytes(size))).info


@pytest.mark.parametrize("size", SIZES)
async def test_a_blob_is_put_anew_as_it_was_and_nothing_is_left_of_the_copy(
    bucket: Bucket, size: int
) -> None:
    before = await put_of(bucket, size)

    assert await bucket.store.report_damage(before)

    after = await bucket.open().stat(before.digest, sure=True)
    assert after.generation != before.generation
    assert (after.pinned, after.type, after.created_at, after.damaged) == (
        before.pinned,
        before.type,
        before.created_at,
        False,
    )
    assert await bucket.open().get(after) == some_bytes(size)
    assert await bucket.orphans() == 0
    assert before.generation not in await bucket.chunk_counts()


@pytest.mark.parametrize("size", SIZES)
async def test_a_second_report_of_the_same_copy_changes_nothing(bucket: Bucket, size: int) -> None:
    info = await put_of(bucket, size)
    await bucket.store.report_damage(info)
    healed = await bucket.open().stat(info.digest, sure=True)

    assert not await bucket.store.report_damage(info)

    assert await bucket.open().stat(info.digest, sure=True) == healed


async def test_a_blob_that_was_marked_is_healed_once_its_bytes_are_found(bucket: Bucket) -> None:
    data = some_bytes(3 * PART_BYTES)
    info = await put_of(bucket, len(data))
    chunks = [bytes(chunk.data) for chunk in await bucket.chunks(info.generation)]
    await bucket.replace_chunks(info.generation, [*chunks[:-1], chunks[-1][::-1]])
    assert not await bucket.store.report_damage(info)
    assert await bucket.store.missing([info.digest]) == [info.digest]
    await bucket.replace_chunks(info.generation, chunks)

    assert await bucket.store.report_damage(info)

    assert await bucket.store.missing([info.digest]) == []
    assert await bucket.store.get(await bucket.store.stat(info.digest)) == data


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("before", [0, 1, 2, 3])
async def test_whatever_others_do_meanwhile_no_record_is_without_its_chunks(
    bucket: Bucket, size: int, before: int
) -> None:
    """Who heals is paused before its n-th request; the blob is touched, deleted and put again."""
    info = await put_of(bucket, size)
    healer = Paused(bucket)
    healer.stop_before(before)
    healing = asyncio.create_task(healer.bucket.store.report_damage(info))
    waiting = asyncio.create_task(healer.reached.wait())
    await asyncio.wait({healing, waiting}, return_when=asyncio.FIRST_COMPLETED)

    await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)
    await bucket.store.delete(info.digest)
    again = await put(bucket.store, some_bytes(size))
    healer.gate.set()
    await healing
    waiting.cancel()

    assert (await bucket.store.stat(info.digest, sure=True)) == again
    assert await bucket.store.get(again) == some_bytes(size)
    assert await bucket.orphans() == 0


async def test_a_blob_that_was_deleted_meanwhile_stays_so(bucket: Bucket) -> None:
    info = await put_of(bucket, 3 * PART_BYTES)
    healer = Paused(bucket)
    healer.stop_before(1)
    healing = asyncio.create_task(healer.bucket.store.report_damage(info))
    await healer.reached.wait()

    await bucket.store.delete(info.digest)
    healer.gate.set()

    assert not await healing
    with pytest.raises(NotFoundError):
        await bucket.store.stat(info.digest, sure=True)
    assert await bucket.orphans() == 0


async def test_chunks_that_are_gone_before_the_look_bring_the_former_record_back(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweeper that was paused for long may take the fresh chunks for orphans."""
    info = await put_of(bucket, 3 * PART_BYTES)
    confirm = healing_module.ObjectHealing._confirm

    async def after_a_sweep(*args: object) -> bool:
        meta = await bucket.meta(info.digest)
        assert meta is not None
        await bucket.js.purge(bucket.stream, f"$O.{bucket.name}.C.{meta.nuid}")
        return await confirm(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(healing_module.ObjectHealing, "_confirm", after_a_sweep)

    assert not await bucket.store.report_damage(info)

    there = await bucket.open().stat(info.digest, sure=True)
    assert there.generation == info.generation
    assert await bucket.open().get(there) == some_bytes(3 * PART_BYTES)
