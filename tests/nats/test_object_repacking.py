"""Repacking in an Object Store bucket, where others have changed the record since it was listed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from tests.contracts.blob_collecting import surveyed
from tests.contracts.blob_store import FAR_AHEAD, UNPINNED, put, some_bytes
from tests.nats.buckets import Bucket, Paused

from holdfast.domain.digest import digest_of
from holdfast.errors import NotFoundError
from holdfast.stores.jetstream.blobs.meta import meta_subject

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.stores.ports import BlobStore

pytestmark = pytest.mark.nats
DATA = some_bytes(5000)
DIGEST = digest_of(DATA)
NEEDED = ((0, 10),)


@pytest.mark.parametrize("is_newer", [True, False], ids=["a later version's", "damaged"])
async def test_chunks_stay_that_a_record_may_name_which_cannot_be_read(
    bucket: Bucket, is_newer: bool
) -> None:
    info = await put(bucket.store, DATA, UNPINNED)
    listed = await surveyed(bucket.store, DATA)
    there = await bucket.chunk_counts()
    message = await bucket.js.last_message(bucket.stream, meta_subject(bucket.name, info.digest))
    assert message is not None
    record = json.loads(bytes(message.data))
    record["metadata"]["hf-format"] = "99"
    await bucket.write_record(info.digest, record if is_newer else b"{")

    assert await bucket.store.repack(listed, ((0, 10),)) is None
    assert not await bucket.store.collect(listed)

    assert there
    assert await bucket.chunk_counts() == there


async def repacks(bucket: Bucket) -> None:
    """A collector keeps what is needed of it."""
    listed = await surveyed(bucket.store, DATA)
    assert await bucket.store.repack(listed, NEEDED) is not None


async def heals(bucket: Bucket) -> None:
    """A scrub puts the copy anew."""
    assert await bucket.store.report_damage(await bucket.store.stat(DIGEST))


async def paused_once_the_record_is_read[T](
    bucket: Bucket,
    ask: Callable[[BlobStore], Awaitable[T]],
    do: Callable[[Bucket], Awaitable[None]],
) -> T:
    """The result of ``ask``, with a deed of somebody between its record and its chunks."""
    former = Paused(bucket)
    former.stop_before(0, about=".*.")  # as its chunks are counted
    asking = asyncio.ensure_future(ask(former.bucket.store))
    await former.reached.wait()
    await do(bucket)
    former.gate.set()
    return await asking


@pytest.mark.parametrize("replaces", [repacks, heals])
async def test_a_blob_whose_copy_is_replaced_is_not_told_damaged(
    bucket: Bucket, replaces: Callable[[Bucket], Awaitable[None]]
) -> None:
    before = await put(bucket.store, DATA, UNPINNED)

    told = await paused_once_the_record_is_read(
        bucket, lambda store: store.stat(DIGEST, sure=True, partial=True), replaces
    )

    assert told.generation != before.generation
    assert told == await bucket.store.stat(DIGEST, partial=True)


@pytest.mark.parametrize("replaces", [repacks, heals])
async def test_a_blob_whose_copy_is_replaced_can_be_counted_on(
    bucket: Bucket, replaces: Callable[[Bucket], Awaitable[None]]
) -> None:
    await put(bucket.store, DATA, UNPINNED)

    assert await paused_once_the_record_is_read(
        bucket,
        lambda store: store.touch(DIGEST, unless_seen_since=FAR_AHEAD, needed=NEEDED),
        replaces,
    )


async def test_a_blob_that_is_deleted_meanwhile_is_not_told_damaged(bucket: Bucket) -> None:
    await put(bucket.store, DATA, UNPINNED)

    async def deletes(bucket: Bucket) -> None:
        assert await bucket.store.delete(DIGEST)

    with pytest.raises(NotFoundError):
        await paused_once_the_record_is_read(
            bucket, lambda store: store.stat(DIGEST, sure=True), deletes
        )


async def test_a_blob_whose_chunks_are_lost_is_told_damaged(bucket: Bucket) -> None:
    before = await put(bucket.store, DATA, UNPINNED)

    await bucket.lose_chunks(DIGEST)

    assert await bucket.store.stat(DIGEST, sure=True) == replace(before, damaged=True)
    assert not await bucket.store.touch(DIGEST, unless_seen_since=FAR_AHEAD)
