"""Reading small blobs where they were: never wrong bytes, deleted ones for a moment at most."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_collecting import surveyed
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    PART_BYTES,
    put,
    put_staged,
    said,
    some_bytes,
)
from tests.nats.buckets import Bucket
from tests.nats.tools import FlakyJetStream, From, Times

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import CorruptError, NotFoundError, OutcomeUnknownError
from holdfast.stores.jetstream.blobs.groups import LEAST_PUTS
from holdfast.stores.jetstream.blobs.places import REMEMBERED_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats

DATA = some_bytes(4096)
DIGEST = digest_of(DATA)


class Requests:
    """The requests to JetStream."""

    def __init__(self, bucket: Bucket) -> None:
        self.subjects: list[str] = []
        bucket.js.lose_request = self._note

    def _note(self, subject: str, _headers: Mapping[str, str]) -> bool:
        self.subjects.append(subject.removeprefix("$JS.API.").partition(".OBJ_")[0])
        return False

    def taken(self) -> list[str]:
        subjects, self.subjects = self.subjects, []
        return subjects


async def fetch(store: ObjectBlobStore, digest: Digest = DIGEST) -> bytes | None:
    fetched = await store.fetch(digest, 10**6)
    return bytes(fetched.data) if fetched.data is not None else None


def outlast(store: ObjectBlobStore) -> None:
    """As if the seconds had passed for which ``store`` remembers places."""
    now = store._places._monotonic
    store._places._monotonic = lambda: now() + REMEMBERED_SECONDS


def is_purge(subject: str, _headers: Mapping[str, str]) -> bool:
    return ".STREAM.PURGE." in subject


async def test_what_this_worker_put_is_read_by_one_request(bucket: Bucket) -> None:
    await put(bucket.store, DATA)
    requests = Requests(bucket)

    assert await fetch(bucket.store) == DATA
    assert requests.taken() == ["DIRECT.GET"]


async def test_what_another_put_is_read_by_two_requests_and_then_by_one(bucket: Bucket) -> None:
    await put(bucket.open(), DATA)
    requests = Requests(bucket)

    assert await fetch(bucket.store) == DATA
    assert len(requests.taken()) == 2
    assert await fetch(bucket.store) == DATA
    assert requests.taken() == ["DIRECT.GET"]


async def put_alone(bucket: Bucket) -> None:
    await put(bucket.store, DATA)


async def put_in_a_group(bucket: Bucket) -> None:
    store = bucket.open()
    store.group_puts()
    others = [some_bytes(50, seed=number) for number in range(2 * LEAST_PUTS)]
    await asyncio.gather(*(put(store, data) for data in [*others, DATA]))


async def touched(bucket: Bucket) -> None:
    assert await bucket.store.touch(DIGEST, unless_seen_since=FAR_AHEAD)


async def deleted_and_put_again(bucket: Bucket) -> None:
    await bucket.open().delete(DIGEST, kept=said(True))
    await put(bucket.open(), DATA)


async def deleted_and_touched(bucket: Bucket) -> None:
    await bucket.store.delete(DIGEST, kept=said(True))
    await touched(bucket)


async def healed(bucket: Bucket) -> None:
    assert await bucket.store.report_damage(await bucket.store.stat(DIGEST, sure=True))


async def repacked_and_put_again(bucket: Bucket) -> None:
    listed = await surveyed(bucket.store, DATA)
    assert await bucket.store.repack(listed, ((0, 10),)) is not None
    await put(bucket.store, DATA)


@pytest.mark.parametrize("made", [put_alone, put_in_a_group])
@pytest.mark.parametrize(
    "changed",
    [touched, deleted_and_put_again, deleted_and_touched, healed, repacked_and_put_again],
)
async def test_a_blob_that_others_changed_is_read_by_one_request_once_its_record_was_read(
    bucket: Bucket,
    made: Callable[[Bucket], Awaitable[None]],
    changed: Callable[[Bucket], Awaitable[None]],
) -> None:
    other = bucket.open()
    await made(bucket)
    for change in (changed, touched):
        await put(bucket.store, b"something else")
        await change(bucket)

    assert await fetch(other) == DATA
    requests = Requests(bucket)
    assert other.deliver_bare(DIGEST, len(DATA)) is not None
    assert await fetch(other) == DATA
    assert requests.taken() == ["DIRECT.GET"]


async def test_only_the_record_is_read_of_what_is_more_than_is_wanted(bucket: Bucket) -> None:
    info = await put(bucket.store, DATA)

    fetched = await bucket.store.fetch(DIGEST, len(DATA) - 1)

    assert (fetched.info, fetched.data) == (info, None)


@pytest.mark.parametrize("data", [b"", some_bytes(3 * PART_BYTES + 1)], ids=["none", "several"])
async def test_blobs_of_another_number_of_chunks_are_fetched_too(
    bucket: Bucket, data: bytes
) -> None:
    stored = await put_staged(bucket.store, data)

    fetched = await bucket.store.fetch(stored.info.digest, len(data))

    assert (fetched.info, fetched.data) == (stored.info, data)


@pytest.mark.fault("P09")
async def test_a_blob_that_another_worker_deleted_is_not_found_at_once(bucket: Bucket) -> None:
    await put(bucket.store, DATA)
    await bucket.open().delete(DIGEST)

    with pytest.raises(NotFoundError):
        await fetch(bucket.store)


@pytest.mark.fault("P09")
async def test_a_blob_that_was_deleted_and_put_again_elsewhere_is_found(bucket: Bucket) -> None:
    first = await put(bucket.store, DATA)
    other = bucket.open()
    await other.delete(DIGEST)
    await put(other, DATA)

    assert await fetch(bucket.store) == DATA
    assert (await bucket.store.fetch(DIGEST, len(DATA))).info.generation != first.generation


async def test_a_blob_is_fetched_however_often_its_chunk_is_moved_before_it_is_read(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(bucket.store, DATA)
    mover, moves = Bucket(bucket.js.connection, bucket.name), 3

    async def moved_before(stream: str, subject: str) -> StoredMessage | None:
        nonlocal moves
        if moves and ".C." in subject:
            moves -= 1
            await deleted_and_put_again(mover)
        return await FlakyJetStream.direct_last(bucket.js, stream, subject)

    monkeypatch.setattr(bucket.js, "direct_last", moved_before)

    assert await fetch(bucket.open()) == DATA
    assert moves == 0


@pytest.mark.fault("P09")
async def test_that_a_blob_was_deleted_and_is_kept_is_known_to_other_workers_at_once(
    bucket: Bucket,
) -> None:
    other = bucket.open()
    await put(bucket.store, DATA)
    assert await fetch(other) == DATA

    await bucket.store.delete(DIGEST, kept=said(True))

    fetched = await other.fetch(DIGEST, 10**6)
    assert fetched.info.deleted
    assert fetched.data == DATA


async def test_other_bytes_at_the_remembered_place_are_not_given_out(bucket: Bucket) -> None:
    info = await put(bucket.store, DATA)
    await put(bucket.store, some_bytes(4096, seed=2))
    place = bucket.store._places.find(DIGEST)
    assert place is not None

    for wrong in (1, place.sequence + 1, place.sequence + 2, place.sequence + 1000):
        bucket.store._places.remember(info, wrong, known_at=bucket.store._places.now())
        assert await fetch(bucket.store) == DATA


async def test_bytes_that_were_altered_in_their_place_are_corrupt(bucket: Bucket) -> None:
    info = await put(bucket.store, DATA)
    await bucket.replace_chunks(info.generation, [DATA[:-1] + b"?"])
    place = (await bucket.chunks(info.generation))[0].sequence
    bucket.store._places.remember(info, place, known_at=bucket.store._places.now())

    with pytest.raises(CorruptError):
        await fetch(bucket.store)


@pytest.mark.fault("P09")
async def test_a_read_that_began_before_a_deletion_does_not_bring_the_blob_back(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(bucket.open(), DATA)
    read, go_on = asyncio.Event(), asyncio.Event()

    async def paused(stream: str, subject: str) -> StoredMessage | None:
        message = await FlakyJetStream.direct_last(bucket.js, stream, subject)
        read.set()
        await go_on.wait()
        return message

    with monkeypatch.context() as slow:
        slow.setattr(bucket.js, "direct_last", paused)
        reading = asyncio.create_task(bucket.store.stat(DIGEST))
        await read.wait()
        bucket.js.lose_request = Times(9, is_purge)
        with pytest.raises(OutcomeUnknownError):
            await bucket.store.delete(DIGEST)
        go_on.set()
        await reading

    with pytest.raises(NotFoundError):
        await fetch(bucket.store)


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_deletion_that_may_have_left_the_bytes_says_so_and_is_finished_by_its_repeat(
    bucket: Bucket, lost: str
) -> None:
    await put(bucket.store, DATA)
    setattr(bucket.js, f"lose_{lost}", From(is_purge))

    with pytest.raises(OutcomeUnknownError, match="deleted"):
        await bucket.store.delete(DIGEST, op_id="mine")
    setattr(bucket.js, f"lose_{lost}", Times(0, is_purge))

    assert await bucket.store.delete(DIGEST, op_id="mine") is True
    assert await bucket.store.delete(DIGEST, op_id="other") is False
    assert await bucket.messages() == 1  # the tombstone


async def test_a_deleted_blob_whose_bytes_could_not_be_removed_is_served_for_some_seconds_at_most(
    bucket: Bucket,
) -> None:
    await put(bucket.store, DATA)
    other = bucket.open()
    await fetch(other)
    bucket.js.lose_request = Times(9, is_purge)
    with pytest.raises(OutcomeUnknownError):
        await bucket.store.delete(DIGEST)

    with pytest.raises(NotFoundError):  # where it was deleted: at once
        await fetch(bucket.store)
    assert await fetch(other) == DATA
    with pytest.raises(NotFoundError):  # what decides something never looks at places
        await other.stat(DIGEST)
    outlast(other)
    with pytest.raises(NotFoundError):
        await fetch(other)


async def test_a_remembered_place_never_says_that_a_blob_is_there_already(bucket: Bucket) -> None:
    await put(bucket.store, DATA)
    bucket.js.lose_request = Times(9, is_purge)
    with pytest.raises(OutcomeUnknownError):
        await bucket.open().delete(DIGEST)
    assert bucket.store._places.find(DIGEST) is not None

    stored = await bucket.store.put(DIGEST, DATA, ATTRIBUTES)

    assert stored.created
    assert await fetch(bucket.store) == DATA
