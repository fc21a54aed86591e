"""Touching in an Object Store bucket: the record gets another sequence, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import FAR_AHEAD, LONG_AGO, put, put_staged, some_bytes
from tests.nats.buckets import NOW, Bucket
from tests.nats.tools import Times

from holdfast.errors import OutcomeUnknownError
from holdfast.stores.jetstream.blobs.meta import meta_subject, tombstone
from holdfast.transport.jetstream_messages import EXPECTED_SUBJECT_SEQUENCE, ROLLUP, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.domain.digest import Digest
    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats


async def record(bucket: Bucket, digest: Digest) -> StoredMessage:
    message = await bucket.js.last_message(bucket.stream, meta_subject(bucket.name, digest))
    assert message is not None
    return message


def writes(subject: str, _: Mapping[str, str]) -> bool:
    return subject.startswith("$O.")


async def test_only_the_sequence_of_the_record_changes(bucket: Bucket) -> None:
    info = (await put_staged(bucket.store, some_bytes(5000))).info
    before, messages = await record(bucket, info.digest), await bucket.messages()

    assert await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)

    after = await record(bucket, info.digest)
    assert after.sequence > before.sequence
    assert after.data == before.data
    assert await bucket.messages() == messages


async def test_a_record_that_was_written_late_enough_is_left_alone(bucket: Bucket) -> None:
    info = await put(bucket.store, b"x")
    before = await record(bucket, info.digest)
    assert before.stored_at is not None
    assert abs(before.stored_at - datetime.now(UTC)) < timedelta(minutes=5)  # noqa: TID251

    assert await bucket.store.touch(info.digest, unless_seen_since=LONG_AGO)
    assert await bucket.store.touch(info.digest, unless_seen_since=before.stored_at)
    assert (await record(bucket, info.digest)).sequence == before.sequence

    later = before.stored_at + timedelta(milliseconds=1)
    assert await bucket.store.touch(info.digest, unless_seen_since=later)
    assert (await record(bucket, info.digest)).sequence > before.sequence


@pytest.mark.fault("P07")
async def test_a_collector_that_listed_the_blob_before_cannot_remove_it(bucket: Bucket) -> None:
    info = await put(bucket.store, b"x")
    listed = await record(bucket, info.digest)

    await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)
    headers = {ROLLUP: "sub", EXPECTED_SUBJECT_SEQUENCE: str(listed.sequence)}
    grave = tombstone(bucket.name, info.digest, info.generation, NOW, None)
    with pytest.raises(RefusedError) as refused:
        await bucket.js.publish(listed.subject, grave, headers)

    assert refused.value.conflict
    assert refused.value.certain
    assert await bucket.store.get(info) == b"x"


@pytest.mark.fault("P05")
async def test_a_touch_whose_answer_is_lost_is_done_once(bucket: Bucket) -> None:
    info = await put(bucket.store, b"x")
    before = await record(bucket, info.digest)
    bucket.js.lose_answer = Times(1, writes)

    assert await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)

    assert (await record(bucket, info.digest)).sequence == before.sequence + 1


@pytest.mark.fault("P05")
async def test_a_touch_without_any_answer_is_unknown(bucket: Bucket) -> None:
    info = await put(bucket.store, b"x")
    bucket.js.lose_answer = Times(3, writes)

    with pytest.raises(OutcomeUnknownError):
        await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)


async def test_what_others_put_is_neither_touched_nor_called_a_blob(bucket: Bucket) -> None:
    info = await put(bucket.store, b"x")
    theirs = {"name": info.digest, "bucket": bucket.name, "nuid": "theirs", "chunks": 0, "size": 0}
    await bucket.write_record(info.digest, theirs)
    before = await record(bucket, info.digest)

    assert not await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)
    assert (await record(bucket, info.digest)).sequence == before.sequence

    await bucket.write_record(info.digest, b"{")
    assert not await bucket.store.touch(info.digest, unless_seen_since=FAR_AHEAD)


async def test_the_stores_time_is_that_of_its_messages(bucket: Bucket) -> None:
    """So two times of one stream are compared, whatever the clock of who compares them."""
    before = await bucket.store.now()
    info = await put(bucket.store, b"x")
    after = await bucket.store.now()
    first = await record(bucket, info.digest)

    assert first.stored_at is not None
    assert before <= first.stored_at <= after
    assert await bucket.store.touch(info.digest, unless_seen_since=before)
    assert (await record(bucket, info.digest)).sequence == first.sequence
    assert await bucket.store.touch(info.digest, unless_seen_since=after)
    assert (await record(bucket, info.digest)).sequence > first.sequence
