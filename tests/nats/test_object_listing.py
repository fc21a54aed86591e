"""Listing a bucket of which nothing can be asked at once: no page lacks, or doubles, a blob."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.blob_store import FAR_AHEAD, PART_BYTES, put, put_staged, some_bytes
from tests.nats.buckets import NOW, Bucket

from holdfast.errors import InvalidError
from holdfast.stores.jetstream.blobs import listing as object_listing_module
from holdfast.stores.jetstream.blobs import walk as object_walk_module
from holdfast.stores.jetstream.blobs.meta import meta_subject, tombstone
from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, object_stream
from holdfast.stores.location import BucketLocation
from holdfast.stores.ports import BlobInfo, BlobStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every bucket is too large to be looked through."""
    monkeypatch.setattr(object_listing_module, "_SMALL", 0)


async def listed(stores: Sequence[BlobStore], prefix: str, limit: int) -> list[str]:
    """All digests, each page from the next of ``stores``."""
    found: list[str] = []
    cursor, pages = None, 0
    while True:
        store = stores[pages % len(stores)]
        page = await store.list_blobs(prefix=prefix, cursor=cursor, limit=limit)
        assert len(page.entries) <= limit
        assert len(page.after) == len(page.entries)
        found += [entry.digest for entry in page.entries if isinstance(entry, BlobInfo)]
        cursor, pages = page.cursor, pages + 1
        assert pages < 1000
        if cursor is None:
            return found


@pytest.mark.parametrize("seed", range(4))
async def test_small_and_large_blobs_are_listed_alike(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  (test data)
    monkeypatch.setattr(object_walk_module, "_BATCH", rng.choice((1, 3, 512)))
    monkeypatch.setattr(object_walk_module, "_FIRST_BATCH", rng.choice((1, 2, 32)))
    monkeypatch.setattr(object_walk_module, "_SPARSE", rng.choice((1, 3, 8)))
    there: set[str] = set()
    for number in range(30):
        size = rng.choice((0, 10, 10, PART_BYTES, 3 * PART_BYTES, 9 * PART_BYTES))
        info = (await put_staged(bucket.store, some_bytes(size, seed=number))).info
        if rng.random() < 0.2:
            await bucket.store.delete(info.digest)
            there.discard(info.digest)
        else:
            there.add(info.digest)

    for limit in (1, 4, 100):
        found = await listed([bucket.store], "", limit)
        assert sorted(found) == sorted(there)


@pytest.mark.parametrize("seed", range(4))
async def test_what_some_of_the_replicas_that_are_asked_lack_is_listed_all_the_same(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  (test data)
    monkeypatch.setattr(object_walk_module, "_LAG_SECONDS", 0.0)
    infos = [await put(bucket.store, b"%d" % number) for number in range(60)]
    each, at = bucket.js.direct_each, bucket.js.direct_at

    async def direct_each(stream: str, queries: Sequence[Mapping[str, Any]]) -> list[StoredMessage]:
        share = rng.choice((0.0, 0.0, 0.1, 0.9))
        return [one for one in await each(stream, queries) if rng.random() >= share]

    async def direct_at(stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        return None if rng.random() < 0.2 else await at(stream, query)

    monkeypatch.setattr(bucket.js, "direct_each", direct_each)
    monkeypatch.setattr(bucket.js, "direct_at", direct_at)

    for limit in (1, 7, 1000):
        found = await listed([bucket.store], "", limit)
        assert sorted(found) == sorted(info.digest for info in infos)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("batch", [1, 2, 512])
async def test_a_record_that_lies_beneath_a_later_one_is_on_no_page(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, limit: int, batch: int
) -> None:
    monkeypatch.setattr(object_walk_module, "_BATCH", batch)
    infos = [await put(bucket.store, b"%d" % number) for number in range(4)]
    for deleted in infos[:2]:
        # As if the record had come back: a roll-up would have removed it.
        record = tombstone(bucket.name, deleted.digest, deleted.generation, NOW, None)
        await bucket.js.publish(meta_subject(bucket.name, deleted.digest), record, {})
        infos.append(await put(bucket.store, b"after %s" % deleted.digest.encode()))
    again = meta_subject(bucket.name, infos[2].digest)
    message = await bucket.js.last_message(bucket.stream, again)
    assert message is not None
    await bucket.js.publish(again, message.data, {})

    found = await listed([bucket.store], "", limit)

    assert sorted(found) == sorted(info.digest for info in infos[2:])


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("seed", range(4))
async def test_by_their_first_digits_they_are_found_at_once_whoever_is_asked(
    bucket: Bucket, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311  (test data)
    stores = [bucket.open(), bucket.open()]
    there: dict[str, BlobInfo] = {}
    for _ in range(12):
        for number in range(8):
            info = await put(rng.choice(stores), b"%d" % rng.randrange(60))
            there[info.digest] = info
            if number % 3 == 0:
                digest = rng.choice(sorted(there))
                await rng.choice(stores).delete(there.pop(digest).digest)
            elif number % 3 == 1:
                digest = rng.choice(sorted(there))
                await rng.choice(stores).touch(there[digest].digest, unless_seen_since=FAR_AHEAD)
        prefix = rng.choice(sorted(there))[: rng.choice((1, 1, 2, 3, 4, 8, 63, 64))]

        found = await listed(rng.sample(stores, 2), prefix, rng.choice((1, 2, 1000)))

        assert found == sorted(digest for digest in there if digest.startswith(prefix))


@pytest.mark.usefixtures("indexed")
async def test_while_the_index_is_made_pages_come_empty_and_say_so(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_listing_module, "_CATCH_UP_SECONDS", 0.0)
    infos = [await put(bucket.store, b"%d" % number) for number in range(20)]

    page = await bucket.store.list_blobs(prefix=infos[0].digest[:5], cursor=None, limit=10)
    assert (page.entries, page.cursor) == ([], "d")
    monkeypatch.setattr(object_listing_module, "_CATCH_UP_SECONDS", 20.0)
    while page.cursor is not None:
        page = await bucket.store.list_blobs(
            prefix=infos[0].digest[:5], cursor=page.cursor, limit=10
        )

    assert page.entries == [infos[0]]


@pytest.mark.usefixtures("indexed")
async def test_a_stream_that_was_made_anew_is_indexed_anew(bucket: Bucket) -> None:
    await asyncio.gather(*(put(bucket.store, b"%d" % number) for number in range(20)))
    before = await put(bucket.store, b"before")
    assert await listed([bucket.store], before.digest[:4], 10) == [before.digest]
    await bucket.remove()
    location = BucketLocation(bucket=bucket.name)
    await ensure_stream(bucket.js, object_stream(bucket.name, location))

    after = await put(bucket.store, b"after")

    assert await listed([bucket.store], after.digest[:4], 10) == [after.digest]
    assert await listed([bucket.store], before.digest[:4], 10) == []


@pytest.mark.usefixtures("indexed")
async def test_beyond_what_an_index_holds_the_bucket_is_looked_through(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    infos = [await put(bucket.store, b"%d" % number) for number in range(20)]
    for most in (5, 30):  # of digests, and of subjects, which are twice as many
        monkeypatch.setattr(object_listing_module, "MAX_INDEXED", most)
        for info in infos[:4]:
            assert await listed([bucket.open()], info.digest[:6], 3) == [info.digest]


@pytest.mark.usefixtures("indexed")
async def test_a_row_that_a_replica_lacks_or_has_in_an_older_form_is_the_leaders(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = await put(bucket.store, b"again")
    await bucket.store.delete(again.digest)
    real = bucket.js.direct_batch
    stale: list[StoredMessage] = []
    for subject in (f"$O.{bucket.name}.M.>",):
        stale += (await real(bucket.stream, {"batch": 9, "seq": 1, "next_by_subj": subject}))[0]
    await put(bucket.store, b"again")
    fresh = await put(bucket.store, b"fresh")

    async def direct_batch(
        stream: str, query: Mapping[str, Any], **options: Any
    ) -> tuple[list[StoredMessage], int]:
        if "multi_last" in query:
            return stale, 0
        return await real(stream, query, **options)

    monkeypatch.setattr(bucket.js, "direct_batch", direct_batch)

    assert await listed([bucket.store], again.digest[:9], 10) == [again.digest]
    assert await listed([bucket.store], fresh.digest[:9], 10) == [fresh.digest]


@pytest.mark.parametrize("cursor", ["0", "dd", "d0", "d" + "0" * 63, "dx", "1d", "D", "-1"])
@pytest.mark.parametrize("prefix", ["", "ab"])
async def test_a_cursor_of_another_form_is_invalid(
    bucket: Bucket, cursor: str, prefix: str
) -> None:
    with pytest.raises(InvalidError):
        await bucket.store.list_blobs(prefix=prefix, cursor=cursor, limit=1)


async def test_a_cursor_by_digits_is_none_of_a_listing_of_all(bucket: Bucket) -> None:
    with pytest.raises(InvalidError):
        await bucket.store.list_blobs(prefix="", cursor="d", limit=1)
