"""A record never stays without its chunks: paused writers, doubled and dropped chunks, copies."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    LONG_AGO,
    PART_BYTES,
    fresh_staging,
    put,
    put_staged,
    read,
    some_bytes,
    write_parts,
)
from tests.nats.buckets import NOW, Bucket, Paused
from tests.nats.tools import Times

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import digest_of
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.protocol.headers import BLOB_PART
from holdfast.repository.blobs import BLOBS, Bare, BlobRepository, Content
from holdfast.stores.jetstream.blobs import chunks as object_chunks_module
from holdfast.stores.jetstream.blobs import commits as object_commits_module
from holdfast.stores.jetstream.blobs import staging as object_staging_module
from holdfast.stores.jetstream.blobs.meta import chunk_subject, meta_subject
from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobInfo
    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats


def is_record(subject: str, headers: Mapping[str, str]) -> bool:
    return ".M." in subject and bool(headers)


async def lone_read(bucket: Bucket, digest: Digest) -> bytes | None:
    """The blob as anybody reads it; None where there is none. Corrupt is a failure."""
    try:
        return await bucket.store.get(await bucket.store.stat(digest, sure=True))
    except NotFoundError:
        return None


@pytest.mark.fault("P06")
class TestPausedWriters:
    """Who else was there while a writer was paused for an hour, between any two of its messages?"""

    @pytest.mark.parametrize("before", [0, 1])
    @pytest.mark.parametrize("had_been_there", [False, True])
    async def test_one_whose_parts_were_removed_brings_nothing_back(
        self, bucket: Bucket, before: int, had_been_there: bool
    ) -> None:
        data = some_bytes(4 * PART_BYTES)
        digest = digest_of(data)
        if had_been_there:
            await put_staged(bucket.store, data)
            await bucket.store.delete(digest)
        former, staging = Paused(bucket), fresh_staging()
        staged = former.bucket.store.stage(staging, PART_BYTES)
        await write_parts(staged, data)
        former.stop_before(before)
        commit = asyncio.create_task(staged.commit(digest, len(data), ATTRIBUTES))
        await former.reached.wait()

        await put_staged(bucket.store, data)
        await bucket.store.discard_staged(staging)
        await bucket.store.delete(digest)
        former.gate.set()
        with pytest.raises(ConflictError):
            await commit

        assert await lone_read(bucket, digest) is None
        assert await bucket.store.missing([digest]) == [digest]
        assert (await put(bucket.store, data)).generation != staging
        assert await lone_read(bucket, digest) == data

    async def test_a_record_that_was_published_without_chunks_is_withdrawn(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(4 * PART_BYTES)
        digest = digest_of(data)
        await put_staged(bucket.store, data)
        await bucket.store.delete(digest)
        former, staging = Paused(bucket), fresh_staging()
        staged = former.bucket.store.stage(staging, PART_BYTES)
        await write_parts(staged, data)
        former.stop_before(1)  # between the count of the chunks and the record
        commit = asyncio.create_task(staged.commit(digest, len(data), ATTRIBUTES))
        await former.reached.wait()

        await bucket.store.discard_staged(staging)
        former.gate.set()
        with pytest.raises(ConflictError):
            await commit
        with pytest.raises(ConflictError):
            await staged.commit(digest, len(data), ATTRIBUTES)

        assert await lone_read(bucket, digest) is None
        assert (await put_staged(bucket.store, data)).created

    @pytest.mark.parametrize("is_staged", [False, True])
    async def test_a_deletion_that_comes_late_does_not_undo_the_put_since(
        self, bucket: Bucket, is_staged: bool
    ) -> None:
        data = some_bytes(PART_BYTES)
        digest = digest_of(data)
        store = bucket.store
        await store.put(digest, data, ATTRIBUTES)
        assert await store.delete(digest, op_id="mine")
        if is_staged:
            await put_staged(store, data)
        else:
            await store.put(digest, data, ATTRIBUTES)
        await store.touch(digest, unless_seen_since=await store.now() + timedelta(hours=1))

        assert await store.delete(digest, op_id="mine")  # by a worker that was stopped meanwhile

        assert await lone_read(bucket, digest) == data
        assert await store.delete(digest, op_id="another")
        assert await lone_read(bucket, digest) is None

    async def test_whoever_made_the_blob_that_was_deleted_since_is_told_that_he_did(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(2 * PART_BYTES)
        digest = digest_of(data)
        writer = Bucket(bucket.js.connection, bucket.name)
        staged = writer.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        first = await staged.commit(digest, len(data), ATTRIBUTES)
        await bucket.store.delete(digest)

        again = await staged.commit(digest, len(data), ATTRIBUTES)

        assert again == first
        assert await lone_read(bucket, digest) is None

    @pytest.mark.parametrize("seed", range(6))
    async def test_whatever_happens_between_two_messages_every_record_has_its_chunks(
        self, bucket: Bucket, seed: int
    ) -> None:
        rng = random.Random(seed)  # noqa: S311  (test data)
        data = some_bytes(2 * PART_BYTES)
        digest = digest_of(data)
        for _ in range(6):
            former, staging = Paused(bucket), fresh_staging()
            staged = former.bucket.store.stage(staging, PART_BYTES)
            await write_parts(staged, data)
            former.stop_before(rng.randrange(4))
            commit = asyncio.create_task(staged.commit(digest, len(data), ATTRIBUTES))
            reached = asyncio.create_task(former.reached.wait())
            await asyncio.wait([commit, reached], return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            for _ in range(0 if commit.done() else rng.randrange(3)):
                act = rng.choice(["put", "delete", "lose", "touch"])
                if act == "put":
                    await put_staged(bucket.store, data)
                elif act == "delete":
                    await bucket.store.delete(digest)
                elif act == "lose" and not await bucket.store.missing([digest]):
                    await bucket.lose_chunks(digest)
                elif act == "touch":
                    await bucket.store.touch(digest, unless_seen_since=FAR_AHEAD)
            former.gate.set()
            created = await outcome(commit)

            if not isinstance(created, HoldfastError):
                assert await lone_read(bucket, digest) == data
        assert await lone_read(bucket, (await put_staged(bucket.store, data)).info.digest) == data


async def outcome[T](task: asyncio.Task[T]) -> T | HoldfastError:
    """The outcome; anything but a listed error is a failure of the test."""
    try:
        return await task
    except HoldfastError as error:
        return error


class TestCounts:
    """A commit counts the messages of its subject."""

    async def test_a_chunk_that_was_stored_twice_is_stored_once_in_the_blob(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(5 * PART_BYTES)
        staging = fresh_staging()
        staged = bucket.store.stage(staging, PART_BYTES)
        await write_parts(staged, data)
        subject = chunk_subject(bucket.name, staging)
        await bucket.js.publish(subject, data[: 2 * PART_BYTES][PART_BYTES:], {BLOB_PART: "1"})

        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert await bucket.store.get(stored.info) == data
        assert len(await bucket.chunks(stored.info.generation)) == 5
        assert await bucket.orphans() == 0

    async def test_a_lone_chunk_of_which_that_is_doubtful_is_counted(self, bucket: Bucket) -> None:
        data = some_bytes(PART_BYTES)
        staging = fresh_staging()
        staged = bucket.store.stage(staging, PART_BYTES)
        bucket.js.lose_request = Times(1, lambda _, headers: BLOB_PART in headers)
        await staged.write(0, data)
        subject = chunk_subject(bucket.name, staging)
        await bucket.js.publish(subject, data, {BLOB_PART: "0"})

        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert len(await bucket.chunks(stored.info.generation)) == 1
        assert await bucket.orphans() == 0

    async def test_a_stream_that_drops_chunks_has_no_blob_acknowledged(
        self, bucket: Bucket
    ) -> None:
        found = await bucket.js.api(f"STREAM.INFO.{bucket.stream}")
        changed = {**found["config"], "max_msgs_per_subject": 1}
        await bucket.js.api(f"STREAM.UPDATE.{bucket.stream}", changed)
        data = some_bytes(4 * PART_BYTES)

        with pytest.raises(ConflictError):
            await put_staged(bucket.store, data)

        assert await bucket.store.missing([digest_of(data)]) == [digest_of(data)]

    async def test_a_doubled_chunk_of_an_older_version_is_read_past(self, bucket: Bucket) -> None:
        data = some_bytes(5 * PART_BYTES)
        info = (await put_staged(bucket.store, data)).info
        chunks = [bytes(chunk.data) for chunk in await bucket.chunks(info.generation)]
        subject = chunk_subject(bucket.name, info.generation)
        await bucket.js.purge(bucket.stream, subject)
        for part in (0, 1, 1, 2, 3, 3, 4):
            await bucket.js.publish(subject, chunks[part], {BLOB_PART: str(part)})

        assert await bucket.store.get(info) == data
        assert await read(bucket.open(), info, 2000, 3500) == data[2000:3500]


class TestPartsThatMove:
    """Parts are written again where one was sent twice: others must know of them before."""

    async def test_their_new_place_is_told_before_anything_is_there(self, bucket: Bucket) -> None:
        data = some_bytes(4 * PART_BYTES)
        bucket.js.lose_request = Times(1, lambda _, headers: headers.get(BLOB_PART) == "1")
        staged = bucket.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        told: list[str] = []

        async def claim(nuid: str) -> None:
            assert told or nuid not in await bucket.chunk_counts()
            told.append(nuid)

        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES, claim=claim)

        assert told == [stored.info.generation] * 2  # before it is written, and before it counts
        assert await bucket.store.get(stored.info) == data

    async def test_it_is_told_again_while_they_are_written(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(object_staging_module, "_PARTS_PER_CLAIM", 2)
        data = some_bytes(5 * PART_BYTES)
        bucket.js.lose_request = Times(1, lambda _, headers: headers.get(BLOB_PART) == "1")
        staged = bucket.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        written: list[int] = []

        async def claim(nuid: str) -> None:
            written.append((await bucket.chunk_counts()).get(nuid, 0))

        await staged.commit(digest_of(data), len(data), ATTRIBUTES, claim=claim)

        assert written == [0, 2, 4, 5]

    async def test_where_it_cannot_be_told_nothing_is_written(self, bucket: Bucket) -> None:
        data = some_bytes(4 * PART_BYTES)
        bucket.js.lose_request = Times(1, lambda _, headers: headers.get(BLOB_PART) == "1")
        staging = fresh_staging()
        staged = bucket.store.stage(staging, PART_BYTES)
        await write_parts(staged, data)

        async def claim(_: str) -> None:
            raise UnavailableError

        with pytest.raises(UnavailableError):
            await staged.commit(digest_of(data), len(data), ATTRIBUTES, claim=claim)

        assert await bucket.chunk_counts() == {staging: 4}
        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)
        assert await bucket.store.get(stored.info) == data


async def copied(bucket: Bucket) -> Bucket:
    """Another bucket with the same messages under other sequences, as an operator moves one."""
    copy = await Bucket.create(bucket.js.connection)
    await copy.js.purge(copy.stream, ">")
    for _ in range(3):
        await copy.js.publish(chunk_subject(copy.name, "before"), b"", {BLOB_PART: "0"})
    query = {"batch": 1000, "seq": 1, "next_by_subj": ">"}
    messages, _ = await bucket.js.direct_batch(bucket.stream, query)
    for message in messages:
        subject = message.subject.replace(f".{bucket.name}.", f".{copy.name}.")
        headers = {key: message.headers[key] for key in (BLOB_PART,) if key in message.headers}
        await copy.js.publish(subject, message.data, headers)
    return copy


class TestCopiedBuckets:
    @pytest.mark.parametrize("per_window", [1, 4, 64])
    async def test_every_range_of_a_blob_in_a_copy_is_right(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, per_window: int
    ) -> None:
        monkeypatch.setattr(object_chunks_module, "WINDOW_BYTES", per_window * PART_BYTES)
        data = some_bytes(23 * PART_BYTES - 5)
        await bucket.store.delete((await put(bucket.store, b"a hole")).digest)
        one, other = bucket.store, bucket.open()
        staged = one.stage(fresh_staging(), PART_BYTES)
        noise = other.stage(fresh_staging(), PART_BYTES)
        for part in range(23):
            await noise.write(part, b"noise")
            await staged.write(part, data[part * PART_BYTES : (part + 1) * PART_BYTES])
        digest = (await staged.commit(digest_of(data), len(data), ATTRIBUTES)).info.digest
        copy = await copied(bucket)
        info = await copy.store.stat(digest)

        assert await copy.open().get(info) == data
        for part in range(23):
            start, stop = part * PART_BYTES + 3, min((part + 2) * PART_BYTES, len(data))
            assert await read(copy.store, info, start, stop) == data[start:stop]
        for part in range(0, 23, 5):  # and what was found out once is known to the next window
            first, position = await copy.store.locate(info, part)
            subject = chunk_subject(copy.name, info.generation)
            message = await copy.js.next_message(copy.stream, subject, position)
            assert message is not None
            assert message.headers[BLOB_PART] == str(first)
            assert part - per_window < first <= part
        assert (await copy.store.stat(digest, sure=True)).damaged is False
        await copy.remove()


class TestStaleReplicas:
    """Deleted and put again: a replica that lags shows the former record, the chunks are gone."""

    @pytest.mark.parametrize("size", [1000, 5 * PART_BYTES])
    @pytest.mark.parametrize("proxy", [False, True])
    async def test_a_blob_that_was_put_again_is_found(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, size: int, proxy: bool
    ) -> None:
        data = some_bytes(size)
        digest = (await put_staged(bucket.store, data)).info.digest
        subject = meta_subject(bucket.name, digest)
        stale = await bucket.js.direct_last(bucket.stream, subject)
        await bucket.store.delete(digest)
        await put_staged(bucket.store, data)

        async def direct_last(_: str, asked: str) -> StoredMessage | None:
            return stale if asked == subject else None

        monkeypatch.setattr(bucket.js, "direct_last", direct_last)
        repository = BlobRepository({BLOBS: bucket.store}, max_inline_bytes=2 * PART_BYTES)

        found = await repository.read(digest, length=PART_BYTES, proxy=proxy)
        assert isinstance(found, Content)
        assert bytes(found.data) == data[:PART_BYTES]
        if proxy:
            window = await repository.read(digest, proxy=True)
            assert bytes(await whole(window)) == data

    async def test_a_blob_that_was_deleted_is_not_found(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        info = await put(bucket.store, b"gone")
        stale = await bucket.js.direct_last(bucket.stream, meta_subject(bucket.name, info.digest))
        await bucket.store.delete(info.digest)
        subject = meta_subject(bucket.name, info.digest)

        async def direct_last(_: str, asked: str) -> StoredMessage | None:
            return stale if asked == subject else None

        monkeypatch.setattr(bucket.js, "direct_last", direct_last)
        repository = BlobRepository({BLOBS: bucket.store}, max_inline_bytes=1000)

        with pytest.raises(NotFoundError):
            await repository.read(info.digest)
        with pytest.raises(NotFoundError):
            await bucket.store.stat(info.digest, sure=True)


async def whole(found: Content | Bare) -> bytes:
    """All bytes of an answer that is not delivered by the store."""
    assert isinstance(found, Content)
    if found.pieces is None:
        return bytes(found.data)
    return b"".join([bytes(piece) async for piece in found.pieces])


class TestRecordsThatMustFit:
    async def test_the_index_is_as_coarse_as_the_record_must_be(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        room = 900
        headroom = bucket.js.connection.max_payload - room
        monkeypatch.setattr(object_commits_module, "_RECORD_HEADROOM_BYTES", headroom)
        rng = random.Random(3)  # noqa: S311  (test data)
        size = 16
        data = some_bytes(300 * size)
        staged = bucket.store.stage(fresh_staging(), size)
        noise = bucket.open().stage(fresh_staging(), size)
        writes: list[Callable[[], Awaitable[None]]] = []
        for part in range(300):
            for _ in range(rng.randrange(3)):
                writes.append(partial(noise.write, len(writes), b"noise"))
            writes.append(partial(staged.write, part, data[part * size : (part + 1) * size]))
        for write in writes:
            await write()

        info = (await staged.commit(digest_of(data), len(data), ATTRIBUTES)).info

        assert info.index is not None
        assert info.index.stride > 1
        subject = meta_subject(bucket.name, info.digest)
        record = await bucket.js.last_message(bucket.stream, subject)
        assert record is not None
        assert len(record.data) <= room
        assert await bucket.store.stat(info.digest) == info
        assert await bucket.store.get(info) == data
        assert await read(bucket.store, info, 1000, 1500) == data[1000:1500]

    async def test_without_room_for_any_index_there_is_none(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        headroom = bucket.js.connection.max_payload
        monkeypatch.setattr(object_commits_module, "_RECORD_HEADROOM_BYTES", headroom)
        data = some_bytes(9 * PART_BYTES)

        info = (await put_staged(bucket.store, data)).info

        assert info.index is None
        assert await read(bucket.store, info, 5000, 7000) == data[5000:7000]


@pytest.mark.fault("P05")
class TestHealingWithLostAnswers:
    @pytest.mark.parametrize("lost", [1, 2, 3])
    async def test_a_put_that_healed_is_known_to_have_done_so(
        self, bucket: Bucket, lost: int
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        digest = (await put_staged(bucket.store, data)).info.digest
        await bucket.lose_chunks(digest)
        bucket.js.lose_answer = Times(lost, is_record)

        stored = await put_staged(bucket.store, data)

        assert stored.created
        assert await lone_read(bucket, digest) == data
        assert await bucket.orphans() == 0

    async def test_what_was_published_and_could_not_be_counted_is_unknown(
        self, bucket: Bucket
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        digest = (await put_staged(bucket.store, data)).info.digest
        await bucket.lose_chunks(digest)
        staged = bucket.store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        published = Times(1, is_record)

        def lose(subject: str, headers: Mapping[str, str]) -> bool:
            published(subject, headers)
            return not published.left and ".STREAM.INFO." in subject

        bucket.js.lose_request = lose

        with pytest.raises(OutcomeUnknownError):
            await staged.commit(digest, len(data), ATTRIBUTES)
        bucket.js.lose_request = lambda *_: False
        stored = await staged.commit(digest, len(data), ATTRIBUTES)

        assert stored.created
        assert await lone_read(bucket, digest) == data


async def test_a_damaged_blob_is_verified_put_again_and_verified(bucket: Bucket) -> None:
    data = some_bytes(3 * PART_BYTES)
    intact = await put(bucket.store, b"intact")
    lost = (await put_staged(bucket.store, data)).info
    flipped = (await put_staged(bucket.store, some_bytes(2500, seed=9))).info
    unreadable = await put(bucket.store, b"unreadable")
    await bucket.lose_chunks(lost.digest)
    chunks = [bytes(chunk.data) for chunk in await bucket.chunks(flipped.generation)]
    await bucket.replace_chunks(flipped.generation, [*chunks[:-1], chunks[-1][::-1]])
    await bucket.write_record(unreadable.digest, b"{")
    await bucket.write_record("somebody's", b"{")
    repository = BlobRepository({BLOBS: bucket.store}, max_inline_bytes=PART_BYTES)

    report = await repository.verify_page(cursor=None, limit=100, has_time=lambda: True)

    bad = {lost.digest, flipped.digest, unreadable.digest}
    assert (report.checked, report.cursor) == (4, None)
    assert {row.digest for row in report.damaged} == bad
    assert {row.code for row in report.damaged} == {"corrupt"}
    assert set(await bucket.open().missing([intact.digest, *bad])) == bad
    for digest in bad:
        assert not await bucket.open().touch(digest, unless_seen_since=LONG_AGO)
        assert len((await repository.verify(digest)).damaged) == 1
    for content in (data, some_bytes(2500, seed=9), b"unreadable"):
        assert (await put_staged(bucket.open(), content)).created
    report = await repository.verify_page(cursor=None, limit=100, has_time=lambda: True)
    assert (report.checked, report.damaged) == (4, [])


def opened(bucket: Bucket) -> ObjectBlobStore:
    """A store over the plain connection of a bucket."""
    return ObjectBlobStore(bucket.js, bucket.name, sources=replace(SOURCES, clock=lambda: NOW))


async def test_a_report_of_damage_is_not_lost_among_other_changes(bucket: Bucket) -> None:
    infos: list[BlobInfo] = [await put(bucket.store, b"%d" % n) for n in range(8)]
    for info in infos:
        await bucket.replace_chunks(info.generation, [b"x"])

    await asyncio.gather(
        *(opened(bucket).report_damage(info) for info in infos),
        *(opened(bucket).touch(info.digest, unless_seen_since=FAR_AHEAD) for info in infos),
        *(opened(bucket).delete(info.digest) for info in infos[:4]),
    )

    assert await bucket.store.missing([info.digest for info in infos]) == [i.digest for i in infos]
    for info in infos[:4]:
        with pytest.raises(NotFoundError):
            await bucket.store.stat(info.digest, sure=True)
    for info in infos[4:]:
        assert (await bucket.store.stat(info.digest)).damaged
