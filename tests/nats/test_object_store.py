"""Blobs in a JetStream Object Store beyond the contract: form, other users, lost answers."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

import nats
import pytest
import pytest_asyncio
from nats.js.errors import NotFoundError as StockNotFoundError
from nats.js.errors import ObjectDeletedError
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    PART_BYTES,
    fresh_staging,
    put,
    put_staged,
    read,
    said,
    some_bytes,
    staged_bytes,
    write_parts,
)
from tests.nats.buckets import Bucket
from tests.nats.tools import Times, connected, kill, until

from holdfast.domain.chunk_index import build_index
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.stores.jetstream.blobs import chunks as object_chunks_module
from holdfast.stores.jetstream.blobs import staging as object_staging_module
from holdfast.stores.jetstream.blobs.meta import chunk_subject, meta_subject
from holdfast.stores.ports import Attributes, BlobInfo, ForeignObject, UnreadableObject
from holdfast.transport import jetstream_calls as jetstream_calls_module
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from nats.js.object_store import ObjectStore
    from tests.conftest import StartServer

    from holdfast.stores.ports import BlobStore, StagedBlob
    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats

KIB = 1024
MIB = 1024 * KIB


@pytest_asyncio.fixture
async def stock(nats_url: str, bucket: Bucket) -> AsyncIterator[ObjectStore]:
    """The same bucket through nats-py's own client."""
    client = await nats.connect(nats_url)
    yield await client.jetstream().object_store(bucket.name)
    await client.close()


async def listed(store: BlobStore) -> list[BlobInfo | ForeignObject]:
    page = await store.list_blobs(prefix="", cursor=None, limit=100)
    assert page.cursor is None
    return list(page.entries)


def is_record(subject: str, headers: Mapping[str, str]) -> bool:
    return ".M." in subject and bool(headers)


def is_part(number: int) -> Callable[[str, Mapping[str, str]], bool]:
    return lambda _subject, headers: headers.get("Blob-Part") == str(number)


async def stage_in_parts(bucket: Bucket, data: bytes, part_size: int) -> BlobInfo:
    staged = bucket.store.stage(fresh_staging(), part_size)
    parts = range(-(-len(data) // part_size))
    await asyncio.gather(
        *(staged.write(n, data[n * part_size : (n + 1) * part_size]) for n in parts)
    )
    return (await staged.commit(digest_of(data), len(data), ATTRIBUTES)).info


class TestForm:
    """Other clients' object stores read it."""

    @pytest.mark.parametrize("size", [0, 1, 900 * KIB])
    async def test_a_stock_client_reads_what_was_put(
        self, bucket: Bucket, stock: ObjectStore, size: int
    ) -> None:
        data = some_bytes(size)
        info = await put(bucket.store, data)

        result = await asyncio.wait_for(stock.get(info.digest), 20)

        assert result.data == data
        assert (result.info.size, result.info.chunks) == (size, min(size, 1))

    @pytest.mark.parametrize("size", [MIB + 1, 3 * MIB])
    async def test_a_stock_client_reads_what_was_put_in_parts(
        self, bucket: Bucket, stock: ObjectStore, size: int
    ) -> None:
        data = some_bytes(size)
        info = await stage_in_parts(bucket, data, 256 * KIB)

        result = await asyncio.wait_for(stock.get(info.digest), 20)

        assert result.data == data
        assert (result.info.size, result.info.chunks) == (size, -(-size // (256 * KIB)))

    async def test_a_stock_client_lists_what_is_there_and_not_what_was_deleted(
        self, bucket: Bucket, stock: ObjectStore
    ) -> None:
        kept, gone = await put(bucket.store, b"kept"), await put(bucket.store, b"gone")
        await bucket.store.delete(gone.digest)

        names = [one.name for one in await stock.list(ignore_deletes=True)]

        assert names == [kept.digest]
        with pytest.raises((ObjectDeletedError, StockNotFoundError)):
            await asyncio.wait_for(stock.get(gone.digest), 20)

    async def test_a_stock_client_may_delete(self, bucket: Bucket, stock: ObjectStore) -> None:
        info = await put_staged(bucket.store, some_bytes(3000))

        await stock.delete(info.info.digest)

        with pytest.raises(NotFoundError):
            await bucket.store.stat(info.info.digest)
        with pytest.raises(NotFoundError):
            await bucket.store.get(info.info)
        assert await listed(bucket.store) == []
        assert (await put_staged(bucket.store, some_bytes(3000))).created

    async def test_a_deleted_blob_leaves_a_tombstone_that_has_no_end(self, bucket: Bucket) -> None:
        info = (await put_staged(bucket.store, some_bytes(3000))).info

        await bucket.store.delete(info.digest)

        subject = meta_subject(bucket.name, info.digest)
        message = await bucket.js.last_message(bucket.stream, subject)
        record = await bucket.record(info.digest)
        assert message is not None
        assert record["deleted"]
        assert "Nats-TTL" not in message.headers
        assert await bucket.messages() == 1

    @pytest.mark.fault("P08")
    async def test_of_racing_puts_the_stream_keeps_one_chunk_and_one_record(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(3000)

        stored = await asyncio.gather(
            *(bucket.open().put(digest_of(data), data, ATTRIBUTES) for _ in range(16))
        )

        assert sum(one.created for one in stored) == 1
        assert await bucket.messages() == 2

    @pytest.mark.fault("P08")
    async def test_of_racing_uploads_the_stream_keeps_one_set_of_chunks_and_one_record(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(3 * PART_BYTES + 1)

        stored = await asyncio.gather(*(put_staged(bucket.open(), data) for _ in range(16)))

        assert sum(one.created for one in stored) == 1
        assert await bucket.messages() == 4 + 1


class TestForeignObjects:
    async def test_they_are_listed_and_never_served_or_removed(
        self, bucket: Bucket, stock: ObjectStore
    ) -> None:
        name = digest_of(b"ours?")
        await stock.put("photo.jpg", bytes(300 * KIB))
        await stock.put(name, b"theirs")

        assert await listed(bucket.store) == [
            ForeignObject(name="photo.jpg", size=300 * KIB),
            ForeignObject(name=name, size=6),
        ]
        with pytest.raises(NotFoundError):
            await bucket.store.stat(name)
        assert await bucket.store.missing([name]) == [name]
        assert await bucket.store.delete(name) is False
        with pytest.raises(ConflictError):
            await put(bucket.store, b"ours?")
        with pytest.raises(ConflictError):
            await put_staged(bucket.store, b"ours?")
        assert (await stock.get(name)).data == b"theirs"
        assert (await stock.get("photo.jpg")).data == bytes(300 * KIB)

    @pytest.mark.fault("T08")
    async def test_a_link_is_listed_and_not_followed(self, bucket: Bucket) -> None:
        name = digest_of(b"linked")
        link = {
            "name": name,
            "bucket": bucket.name,
            "nuid": "n",
            "options": {"link": {"bucket": "x"}},
        }
        await bucket.write_record(name, link)

        assert await listed(bucket.store) == [ForeignObject(name=name, size=0)]
        with pytest.raises(NotFoundError):
            await bucket.store.stat(name)

    async def test_a_prefix_leaves_them_out(self, bucket: Bucket, stock: ObjectStore) -> None:
        await stock.put(digest_of(b"a"), b"theirs")
        info = await put(bucket.store, b"a mine")

        page = await bucket.store.list_blobs(prefix=digest_of(b"a")[:1], cursor=None, limit=10)

        assert [one for one in page.entries if isinstance(one, ForeignObject)] == []
        page = await bucket.store.list_blobs(prefix=info.digest[:4], cursor=None, limit=10)
        assert list(page.entries) == [info]


def changed(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda record: {**record, **fields}


def with_metadata(**fields: str | None) -> Callable[[dict[str, Any]], Any]:
    def change(record: dict[str, Any]) -> dict[str, Any]:
        metadata = {**record["metadata"], **{f"hf-{k}": v for k, v in fields.items()}}
        kept = {key: value for key, value in metadata.items() if value is not None}
        return {**record, "metadata": kept}

    return change


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no-json": lambda _: b"\x00\xff not json",
    "cut-off": lambda record: str(record).encode()[:40],
    "a-list": lambda _: [1, 2],
    "nested": lambda _: b'{"name":' + b"[" * 100_000,
    "nested-extra": lambda record: (
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"name":"' + record["name"].encode() + b'"}'
    ),
    "invalid-utf8": lambda _: b'{"name":"\xff\xfe","bucket":"b","nuid":"n"}',
    "no-nuid": lambda record: {key: value for key, value in record.items() if key != "nuid"},
    "nuid-number": changed(nuid=7),
    "nuid-everything": changed(nuid=">"),
    "nuid-wildcard": changed(nuid="*"),
    "nuid-space": changed(nuid="a b\r\n"),
    "nuid-empty": changed(nuid=""),
    "link": changed(options={"link": {"bucket": "other", "name": "secret"}}),
    "link-bucket": changed(options={"link": {"bucket": "other"}}),
    "negative-size": changed(size=-1),
    "float-size": changed(size=3000.5),
    "huge-size": changed(size=2**63),
    "too-many-chunks": changed(chunks=10**9),
    "too-few-chunks": changed(chunks=1),
    "another-name": changed(name=digest_of(b"another")),
    "another-digest": changed(digest="SHA-256=AAAA"),
    "format": with_metadata(format="2"),
    "no-part-size": with_metadata(**{"part-size": None}),
    "zero-part-size": with_metadata(**{"part-size": "0"}),
    "negative-part-size": with_metadata(**{"part-size": "-1024"}),
    "part-size-text": with_metadata(**{"part-size": "many"}),
    "part-size-huge": with_metadata(**{"part-size": "9" * 5000}),
    "created": with_metadata(created="yesterday"),
}

BAD_HINTS = {
    "no-index": "1;;;",
    "short": "1;5;1",
    "bomb": "1;1;1x999999",
    "empty": "1;0;",
    "before": "1;1;1x3",
    "behind": "1;900000;1x3",
    "no-stride": "0;1;1x3",
}


@pytest.mark.fault("T08")
class TestHostileRecords:
    @pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
    async def test_a_record_that_contradicts_itself_is_corrupt_and_touches_nothing_else(
        self, bucket: Bucket, change: Callable[[dict[str, Any]], Any]
    ) -> None:
        other = (await put_staged(bucket.store, some_bytes(2000, seed=2))).info
        info = (await put_staged(bucket.store, some_bytes(3000))).info
        await bucket.write_record(info.digest, change(await bucket.record(info.digest)))

        with pytest.raises(CorruptError):
            await bucket.store.stat(info.digest)
        assert await bucket.store.missing([other.digest, info.digest]) == [info.digest]
        rows = [one for one in await listed(bucket.store) if isinstance(one, UnreadableObject)]
        assert [row.name for row in rows] == [info.digest]
        assert other in await listed(bucket.store)
        assert await bucket.store.get(other) == some_bytes(2000, seed=2)

    @pytest.mark.parametrize(
        "change",
        [pytest.param(change, id=name) for name, change in HOSTILE.items() if name != "format"],
    )
    async def test_a_put_and_a_delete_mend_it_and_touch_nothing_else(
        self, bucket: Bucket, change: Callable[[dict[str, Any]], Any]
    ) -> None:
        other = (await put_staged(bucket.store, some_bytes(2000, seed=2))).info
        data = some_bytes(3000)
        info = (await put_staged(bucket.store, data)).info
        spoilt = change(await bucket.record(info.digest))

        await bucket.write_record(info.digest, spoilt)
        assert await bucket.store.get(await put(bucket.store, data)) == data
        await bucket.write_record(info.digest, spoilt)
        assert await bucket.store.delete(info.digest)
        assert await bucket.store.missing([info.digest]) == [info.digest]
        await bucket.write_record(info.digest, spoilt)
        again = (await put_staged(bucket.store, data)).info

        assert await bucket.store.get(again) == data
        assert sorted(await listed(bucket.store), key=str) == sorted([other, again], key=str)
        assert await bucket.store.get(other) == some_bytes(2000, seed=2)

    async def test_what_a_later_version_wrote_is_not_replaced(self, bucket: Bucket) -> None:
        data = some_bytes(3000)
        info = (await put_staged(bucket.store, data)).info
        newer = with_metadata(format="3")(await bucket.record(info.digest))
        await bucket.write_record(info.digest, newer)

        with pytest.raises(CorruptError, match="does not know"):
            await put(bucket.store, data)
        with pytest.raises(CorruptError, match="does not know"):
            await put_staged(bucket.store, data)
        with pytest.raises(CorruptError, match="does not know"):
            await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)

        assert await bucket.record(info.digest) == newer
        assert len(await bucket.chunks(info.generation)) == 3

    @pytest.mark.parametrize("hint", BAD_HINTS.values(), ids=BAD_HINTS)
    async def test_an_index_that_misleads_is_found_out(self, bucket: Bucket, hint: str) -> None:
        await put(bucket.store, b"first")
        data = some_bytes(4 * PART_BYTES)
        info = (await put_staged(bucket.store, data)).info
        change = with_metadata(index=hint)
        await bucket.write_record(info.digest, change(await bucket.record(info.digest)))

        info = await bucket.store.stat(info.digest)

        assert await bucket.store.get(info) == data
        for start in (0, 1000, 2048, 3000, 4000):
            assert await read(bucket.store, info, start, start + 50) == data[start : start + 50]
        assert await read(bucket.open(), info, 2048, 4096) == data[2048:]

    async def test_a_record_under_another_digests_subject_is_not_that_blob(
        self, bucket: Bucket
    ) -> None:
        info = (await put_staged(bucket.store, some_bytes(3000))).info
        claimed = digest_of(b"claimed")
        await bucket.write_record(claimed, await bucket.record(info.digest))

        with pytest.raises(CorruptError):
            await bucket.store.stat(claimed)
        assert await bucket.store.missing([claimed]) == [claimed]
        assert (await put(bucket.store, b"claimed")).digest == claimed
        assert [one for one in await listed(bucket.store) if one == info] == [info]
        assert await bucket.store.get(info) == some_bytes(3000)


async def outcome[T](attempt: Awaitable[T]) -> T | HoldfastError:
    """The outcome; anything but a listed error is a failure of the test."""
    try:
        return await attempt
    except HoldfastError as error:
        return error


class TestDamagedChunks:
    @pytest.mark.parametrize("part", [0, 2, 3])
    async def test_a_lost_chunk_is_corrupt_and_not_left_out(
        self, bucket: Bucket, part: int
    ) -> None:
        data = some_bytes(4 * PART_BYTES)
        info = (await put_staged(bucket.store, data)).info
        sequence = (await bucket.chunks(info.generation))[part].sequence
        await bucket.js.api(f"STREAM.MSG.DELETE.{bucket.stream}", {"seq": sequence})

        with pytest.raises(CorruptError):
            await bucket.store.get(info)
        with pytest.raises(CorruptError):
            await read(bucket.store, info, part * PART_BYTES, (part + 1) * PART_BYTES)

    async def test_chunks_in_another_order_are_corrupt(self, bucket: Bucket) -> None:
        data = some_bytes(3 * PART_BYTES)
        info = (await put_staged(bucket.store, data)).info
        subject = chunk_subject(bucket.name, info.generation)
        first, *rest = await bucket.chunks(info.generation)
        await bucket.js.purge(bucket.stream, subject)
        for chunk in (*rest, first):
            await bucket.js.publish(subject, chunk.data, {"Blob-Part": chunk.headers["Blob-Part"]})

        with pytest.raises(CorruptError):
            await bucket.store.get(info)

    @pytest.mark.parametrize("number", ["", "x", "-1", "٣", "9" * 5000])
    async def test_a_chunk_that_does_not_say_which_part_it_is_is_corrupt(
        self, bucket: Bucket, number: str
    ) -> None:
        info = (await put_staged(bucket.store, some_bytes(2 * PART_BYTES))).info
        subject = chunk_subject(bucket.name, info.generation)
        chunks = await bucket.chunks(info.generation)
        await bucket.js.purge(bucket.stream, subject)
        for chunk in chunks:
            await bucket.js.publish(subject, chunk.data, {"Blob-Part": number})

        with pytest.raises(CorruptError):
            await bucket.store.get(info)


class TestOrder:
    """A chunk that was lost and sent again lies behind its successors."""

    async def test_chunks_out_of_order_are_copied_into_order(
        self, bucket: Bucket, stock: ObjectStore
    ) -> None:
        data = some_bytes(5 * PART_BYTES + 3)
        bucket.js.lose_request = Times(1, is_part(1))
        staging = fresh_staging()
        staged = bucket.store.stage(staging, PART_BYTES)
        await write_parts(staged, data)
        order = [one.headers["Blob-Part"] for one in await bucket.chunks(staging)]
        assert order == ["0", "2", "3", "4", "5", "1"]

        first = await staged.commit(digest_of(data), len(data), ATTRIBUTES)
        again = await staged.commit(digest_of(data), len(data), ATTRIBUTES)
        await staged.discard()

        assert first.created
        assert again == first
        assert first.info.generation != staging
        assert await bucket.store.get(first.info) == data
        assert await read(bucket.store, first.info, 1000, 2500) == data[1000:2500]
        assert (await stock.get(first.info.digest)).data == data
        assert await bucket.messages() == 6 + 1

    async def test_parts_out_of_order_can_be_read_back(self, bucket: Bucket) -> None:
        data = some_bytes(20 * PART_BYTES)
        bucket.js.lose_request = Times(1, is_part(1))
        staging = fresh_staging()

        await write_parts(bucket.store.stage(staging, PART_BYTES), data)

        assert b"".join(await staged_bytes(bucket.store, staging)) == data

    async def test_a_copy_that_fails_half_way_may_be_begun_again(self, bucket: Bucket) -> None:
        data = some_bytes(4 * PART_BYTES)
        bucket.js.lose_request = Times(1, is_part(1))
        staged = bucket.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        bucket.js.lose_request = Times(3, is_part(2))

        with pytest.raises(OutcomeUnknownError):
            await staged.commit(digest_of(data), len(data), ATTRIBUTES)
        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert stored.created
        assert await bucket.store.get(await bucket.store.stat(digest_of(data))) == data

    async def test_an_upload_that_lost_answers_has_each_chunk_once(self, bucket: Bucket) -> None:
        data = some_bytes(4 * PART_BYTES)
        bucket.js.lose_answer = Times(2, is_part(1))
        staging = fresh_staging()

        staged = bucket.store.stage(staging, PART_BYTES)
        await write_parts(staged, data)
        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert stored.info.generation == staging
        assert await bucket.messages() == 4 + 1


class TestChunkIndex:
    @pytest.mark.parametrize("entries", [1, 3, 64])
    async def test_every_part_is_found_among_interleaved_uploads(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, entries: int
    ) -> None:
        per_window, parts = 4, 61
        monkeypatch.setattr(object_chunks_module, "WINDOW_BYTES", per_window * PART_BYTES)
        monkeypatch.setattr(
            object_staging_module, "build_index", partial(build_index, max_entries=entries)
        )
        data = some_bytes(parts * PART_BYTES - 7)
        info = await interleaved(bucket, data, random.Random(entries))  # noqa: S311  (test data)
        assert info.index is not None
        assert len(info.index.sequences) <= entries

        for part in range(parts):
            first, position = await bucket.store.locate(info, part)
            subject = chunk_subject(bucket.name, info.generation)
            message = await bucket.js.next_message(bucket.stream, subject, position)
            assert message is not None
            assert message.headers["Blob-Part"] == str(first)
            assert part - per_window < first <= part
            start, stop = part * PART_BYTES + 5, min((part + 2) * PART_BYTES - 5, len(data))
            assert await read(bucket.store, info, start, stop) == data[start:stop]
        assert await bucket.store.get(info) == data

    async def test_a_part_that_is_gone_is_corrupt_or_not_found_and_looked_for_no_longer(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(object_chunks_module, "WINDOW_BYTES", PART_BYTES)
        monkeypatch.setattr(
            object_staging_module, "build_index", partial(build_index, max_entries=1)
        )
        info = await interleaved(bucket, some_bytes(30 * PART_BYTES), random.Random(5))  # noqa: S311
        chunks = await bucket.chunks(info.generation)
        for lost in (29, 17):
            body = {"seq": chunks[lost].sequence}
            await bucket.js.api(f"STREAM.MSG.DELETE.{bucket.stream}", body)
            with pytest.raises(CorruptError):
                await asyncio.wait_for(bucket.store.locate(info, lost), 20)

        await bucket.store.delete(info.digest)

        for part in (1, 17, 29):
            with pytest.raises(NotFoundError):
                await asyncio.wait_for(bucket.store.locate(info, part), 20)

    async def test_chunks_are_delivered_to_whoever_waits_for_them(
        self, bucket: Bucket, connection: Connection, fresh_name: str
    ) -> None:
        data = some_bytes(6 * PART_BYTES)
        info = (await put_staged(bucket.store, data)).info
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        connection.route(fresh_name, arrived.put_nowait)
        await connection.wait_flushed(30)
        delivery = bucket.store.direct_delivery()

        first, position = await delivery.locate(info, 2)
        await delivery.deliver(info, position, 3 + (2 - first), fresh_name)

        async with asyncio.timeout(30):
            chunks = [bytes((await arrived.get()).data) for _ in range(3 + (2 - first))]
            end = await arrived.get()
        assert b"".join(chunks) == data[first * PART_BYTES : 5 * PART_BYTES]
        assert end.headers["Status"] == "204"

    async def test_one_chunk_is_delivered_as_one_message_without_an_end(
        self, bucket: Bucket, connection: Connection, fresh_name: str
    ) -> None:
        data = some_bytes(PART_BYTES)
        info = (await put_staged(bucket.store, data)).info
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        connection.route(fresh_name, arrived.put_nowait)
        await connection.wait_flushed(30)

        await bucket.store.deliver(info, 1, 1, fresh_name)
        async with asyncio.timeout(20):
            chunk = await arrived.get()
            connection.send(fresh_name, b"behind it")
            behind = await arrived.get()

        assert (bytes(chunk.data), bytes(behind.data)) == (data, b"behind it")


async def interleaved(bucket: Bucket, data: bytes, rng: random.Random) -> BlobInfo:
    """Store ``data`` while somebody else's chunks come in between."""
    mine = bucket.store.stage(fresh_staging(), PART_BYTES)
    other: StagedBlob = bucket.store.stage(fresh_staging(), PART_BYTES)
    noise = 0
    for part in range(-(-len(data) // PART_BYTES)):
        for _ in range(rng.choice((0, 0, 1, 9))):
            await other.write(noise, b"noise")
            noise += 1
        await mine.write(part, data[part * PART_BYTES : (part + 1) * PART_BYTES])
    return (await mine.commit(digest_of(data), len(data), ATTRIBUTES)).info


@pytest.mark.fault("P05")
class TestLostAnswers:
    @pytest.mark.parametrize("lost", [1, 2, 3])
    async def test_a_put_whose_record_was_written_is_known_to_have_created_the_blob(
        self, bucket: Bucket, lost: int
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        bucket.js.lose_answer = Times(lost, is_record)

        stored = await put_staged(bucket.store, data)

        assert stored.created
        assert await bucket.store.get(stored.info) == data
        assert await bucket.messages() == 3 + 1

    async def test_a_put_whose_record_was_never_written_is_unknown_and_may_be_repeated(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        staged = bucket.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        bucket.js.lose_request = Times(3, is_record)

        with pytest.raises(OutcomeUnknownError):
            await staged.commit(digest_of(data), len(data), ATTRIBUTES)
        assert await bucket.messages() == 3
        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert stored.created
        assert await bucket.store.get(stored.info) == data

    async def test_who_lost_a_race_after_a_time_out_leaves_the_chunks_to_the_collector(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(2 * PART_BYTES)
        staged = bucket.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        other = Bucket(bucket.js.connection, bucket.name)
        winning: list[asyncio.Task[BlobInfo]] = []

        def lose_and_let_another_win(subject: str, headers: Mapping[str, str]) -> bool:
            if winning or not is_record(subject, headers):
                return False
            winning.append(asyncio.create_task(put(other.store, data)))
            return True

        bucket.js.lose_request = lose_and_let_another_win

        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert (stored.created, stored.info) == (False, await winning[0])
        assert await bucket.orphans() == 2
        assert await bucket.store.get(stored.info) == data

    async def test_what_cannot_be_removed_after_a_lost_race_does_not_fail_the_put(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(2 * PART_BYTES)
        staged = bucket.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        info = await put(bucket.store, data)
        bucket.js.lose_request = Times(9, lambda subject, _: ".STREAM.PURGE." in subject)

        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert (stored.created, stored.info) == (False, info)
        assert await bucket.orphans() == 2

    async def test_a_delete_whose_answer_was_lost_is_answered_again_by_its_operation(
        self, bucket: Bucket
    ) -> None:
        info = (await put_staged(bucket.store, some_bytes(3000))).info
        bucket.js.lose_answer = Times(3, is_record)

        with pytest.raises(OutcomeUnknownError):
            await bucket.store.delete(info.digest, op_id="mine")

        assert await bucket.store.delete(info.digest, op_id="mine") is True
        assert await bucket.store.delete(info.digest, op_id="other") is False

    async def test_a_delete_that_was_never_written_leaves_every_chunk(self, bucket: Bucket) -> None:
        data = some_bytes(3000)
        info = (await put_staged(bucket.store, data)).info
        bucket.js.lose_request = Times(3, is_record)

        with pytest.raises(OutcomeUnknownError):
            await bucket.store.delete(info.digest)

        assert await bucket.store.get(info) == data


class TestReadingWhileOthersChange:
    @pytest.mark.fault("P11")
    async def test_a_read_whose_blob_is_deleted_ends_in_not_found_and_not_early(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(object_chunks_module, "WINDOW_BYTES", PART_BYTES)
        data = some_bytes(4 * PART_BYTES)
        info = (await put_staged(bucket.store, data)).info

        async with aclosing(bucket.store.read(info, 0, info.size)) as reading:
            first = bytes(await anext(reading))
            await bucket.store.delete(info.digest)
            with pytest.raises(NotFoundError):
                await anext(reading)

        assert first == data[:PART_BYTES]

    @pytest.mark.fault("P11")
    async def test_a_read_goes_on_for_the_copy_it_began_with(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(object_chunks_module, "WINDOW_BYTES", PART_BYTES)
        data = some_bytes(4 * PART_BYTES)
        info = (await put_staged(bucket.store, data)).info

        async with aclosing(bucket.store.read(info, 0, info.size)) as reading:
            await anext(reading)
            await bucket.store.delete(info.digest)
            again = (await put_staged(bucket.store, data)).info
            with pytest.raises(NotFoundError):
                await anext(reading)

        assert await bucket.store.get(again) == data

    @pytest.mark.fault("P09")
    async def test_puts_and_deletes_at_once_leave_a_whole_blob_or_none(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(2 * PART_BYTES)
        digest = digest_of(data)

        async def put_often(attributes: Attributes) -> None:
            for _ in range(6):
                await put_staged(bucket.open(), data, attributes)

        async def delete_often() -> None:
            for _ in range(6):
                await bucket.open().delete(digest)

        await asyncio.gather(
            put_often(ATTRIBUTES), put_often(ATTRIBUTES), delete_often(), delete_often()
        )

        stored = await put_staged(bucket.store, data)
        assert await bucket.store.get(stored.info) == data
        assert await bucket.orphans() == 0


class TestContent:
    @pytest.mark.parametrize(
        "data",
        [b'{"error":"not found"}', b'x: "error" y', b'{"error":{"err_code":10008}}'],
        ids=["json", "text", "answer"],
    )
    async def test_what_looks_like_an_answer_of_jetstream_is_a_blob_like_any_other(
        self, bucket: Bucket, data: bytes
    ) -> None:
        info = await put(bucket.store, data)

        assert await bucket.store.get(info) == data
        assert bucket.js.connection.counters.left == 0


class TestUnreachable:
    async def test_a_stopped_server_is_unavailable_and_back_after_its_restart(
        self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = start_server()
        async with connected(NatsOptions(servers=(server.url,))) as connection:
            bucket = await Bucket.create(connection)
            info = (await put_staged(bucket.store, some_bytes(3000))).info
            directory, port = server.log_file.parent, server.port
            kill(server)
            await until(lambda: not connection.is_connected)
            monkeypatch.setattr(jetstream_calls_module, "ATTEMPT_SECONDS", 0.1)

            with pytest.raises(UnavailableError):
                await bucket.store.stat(info.digest)
            with pytest.raises(UnavailableError):
                await bucket.store.get(info)
            with pytest.raises(UnavailableError):
                await bucket.store.missing([info.digest])
            with pytest.raises(UnavailableError):
                await put(bucket.store, b"new")
            with pytest.raises(UnavailableError):
                await bucket.store.delete(info.digest)
            monkeypatch.undo()
            start_server(directory=directory, port=port)
            await connection.wait_connected(60)

            assert await bucket.store.get(await bucket.store.stat(info.digest)) == some_bytes(3000)

    async def test_a_bucket_that_was_deleted_is_unavailable_and_not_made_again(
        self, bucket: Bucket
    ) -> None:
        gone = await Bucket.create(bucket.js.connection)
        info = await put(gone.store, b"gone with its bucket")
        await gone.remove()

        for attempt in (
            gone.store.stat(info.digest),
            gone.store.get(info),
            gone.store.missing([info.digest]),
            put(gone.store, b"new"),
            gone.store.delete(info.digest),
            gone.store.list_blobs(prefix="", cursor=None, limit=10),
        ):
            assert isinstance(await outcome(attempt), UnavailableError)
        with pytest.raises(UnavailableError, match="holdfast admin init"):
            await gone.store.check()
        with pytest.raises(NotFoundError):
            await gone.js.api(f"STREAM.INFO.{gone.stream}")

    async def test_a_full_bucket_is_a_quota_and_keeps_what_it_has(
        self, connection: Connection
    ) -> None:
        bucket = await Bucket.create(connection, max_bytes=64 * KIB)
        kept = await put(bucket.store, some_bytes(40 * KIB))

        with pytest.raises(QuotaExceededError):
            await put(bucket.store, some_bytes(40 * KIB, seed=2))

        assert await bucket.store.get(kept) == some_bytes(40 * KIB)
        assert await listed(bucket.store) == [kept]
        assert await bucket.store.delete(kept.digest)
        await put(bucket.store, some_bytes(40 * KIB, seed=2))
        await bucket.remove()

    async def test_a_blob_that_is_kept_can_be_deleted_where_there_is_no_room_for_it_again(
        self, connection: Connection
    ) -> None:
        bucket = await Bucket.create(connection, max_bytes=64 * KIB)
        kept = await put(bucket.store, some_bytes(40 * KIB))

        assert await bucket.store.delete(kept.digest, kept=said(True))

        assert (await bucket.store.stat(kept.digest)).deleted
        assert await bucket.store.get(kept) == some_bytes(40 * KIB)
        await bucket.remove()


async def test_a_thousand_digests_are_looked_up_at_once(bucket: Bucket) -> None:
    present = await asyncio.gather(*(put(bucket.store, b"%d" % n) for n in range(512)))
    absent = [digest_of(b"absent %d" % n) for n in range(512)]
    both: list[Digest] = [*(info.digest for info in present), *absent]

    assert await bucket.store.missing(both) == absent
