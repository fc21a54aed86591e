"""Pins in an Object Store bucket, and deleting with a look in between: one record, told apart."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    UNPINNED,
    fresh_staging,
    put,
    put_staged,
    put_whole,
    said,
    some_bytes,
    wherever,
)
from tests.nats.buckets import Bucket, Paused
from tests.nats.tools import Times

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import NotFoundError, OutcomeUnknownError
from holdfast.stores.jetstream.blobs.meta import meta_subject
from holdfast.stores.jetstream.blobs.object_records import CHANGE
from holdfast.stores.ports import Attributes, Stored

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
    from holdfast.transport.message import Message

    type Putting = Callable[[ObjectBlobStore, bytes], Awaitable[Stored]]
    type Matching = Callable[[str, Mapping[str, str]], bool]

pytestmark = pytest.mark.nats

DATA = some_bytes(3000)
DIGEST = digest_of(DATA)


def writes_record(subject: str, _: Mapping[str, str]) -> bool:
    return subject.startswith("$O.") and ".M." in subject


def writes_chunk(subject: str, _: Mapping[str, str]) -> bool:
    return subject.startswith("$O.") and ".C." in subject


WAYS_TO_HIDE = [
    pytest.param(put_whole, writes_chunk, "_send_batch", id="moved"),
    pytest.param(put_staged, writes_record, "_request", id="in-place"),
]
"""A blob of one chunk, whose batch begins with it, and one of several, whose record is written."""


async def change(bucket: Bucket, digest: Digest = DIGEST) -> str | None:
    """The change that the last message of the blob's record names."""
    message = await bucket.js.last_message(bucket.stream, meta_subject(bucket.name, digest))
    assert message is not None
    return message.headers.get(CHANGE)


async def test_a_put_of_one_chunk_that_is_expected_to_be_new_is_two_publishes(
    bucket: Bucket,
) -> None:
    bucket.store.leave_young(timedelta(hours=1))
    asked: list[str] = []

    def note(subject: str, _: Mapping[str, str]) -> bool:
        asked.append(subject)
        return False

    bucket.store.leave_young(timedelta(days=1))
    bucket.js.lose_request = note
    staging = fresh_staging()
    staged = bucket.store.stage(staging, len(DATA))
    await staged.write(0, DATA)

    stored = await staged.commit(DIGEST, len(DATA), UNPINNED, likely_new=True)

    assert stored.created
    assert asked == [f"$O.{bucket.name}.C.{staging}", meta_subject(bucket.name, DIGEST)]


async def test_a_record_says_what_was_changed_of_a_blob_that_stays(bucket: Bucket) -> None:
    store = bucket.store
    said_of_it = []
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: put_whole(store, DATA, UNPINNED),
        lambda: put_whole(store, DATA),
        lambda: store.touch(DIGEST, unless_seen_since=FAR_AHEAD),
        lambda: store.delete(DIGEST, kept=said(True)),
        lambda: put_staged(store, DATA),
        lambda: store.delete(DIGEST, kept=said(False)),
        lambda: put_staged(store, DATA),
    ]

    for act in acts:
        await act()
        said_of_it.append(await change(bucket))
    info = await store.stat(DIGEST)
    assert await store.report_damage(info)
    healed = await change(bucket)
    info = await store.stat(DIGEST, sure=True)
    await bucket.replace_chunks(info.generation, [DATA[::-1]])
    assert not await store.report_damage(info)

    assert healed == "heal"
    assert said_of_it == [None, "pin", "touch", "unpin", "pin", None, None]
    assert await change(bucket) == "damaged"


@pytest.mark.parametrize("again", [put_whole, put_staged], ids=["whole", "in-parts"])
@pytest.mark.parametrize("reported", [True, False])
async def test_a_blob_that_is_healed_by_a_put_without_a_pin_keeps_its_own(
    bucket: Bucket, again: Callable[..., Awaitable[Stored]], reported: bool
) -> None:
    info = await put(bucket.store, DATA)
    if reported:
        await bucket.replace_chunks(info.generation, [DATA[::-1]])
        await bucket.store.report_damage(info)
    else:
        await bucket.lose_chunks(DIGEST)

    stored = await again(bucket.store, DATA, UNPINNED)

    assert stored.created
    assert stored.info.pinned
    assert await bucket.store.stat(DIGEST, sure=True) == stored.info


async def test_a_blob_that_was_deleted_and_is_put_without_a_pin_has_none(bucket: Bucket) -> None:
    await put(bucket.store, DATA)
    await bucket.store.delete(DIGEST)

    assert not (await put_whole(bucket.store, DATA, UNPINNED)).info.pinned
    assert not (await bucket.store.stat(DIGEST, sure=True)).pinned


@pytest.mark.fault("P05")
@pytest.mark.parametrize("op_id", [None, "op"])
@pytest.mark.parametrize(("puts", "writes", "_"), WAYS_TO_HIDE)
async def test_a_pin_is_taken_once_although_the_answer_was_lost(
    bucket: Bucket, puts: Putting, writes: Matching, _: str, op_id: str | None
) -> None:
    info = (await puts(bucket.store, DATA)).info
    lost = bucket.js.lose_answer = Times(1, writes)

    assert await bucket.store.delete(DIGEST, op_id=op_id, kept=said(True))

    hidden = wherever(replace(info, pinned=False, deleted=True))
    assert lost.left == 0
    assert wherever(await bucket.store.stat(DIGEST, sure=True)) == hidden


@pytest.mark.fault("P05")
@pytest.mark.parametrize("op_id", [None, "op"])
@pytest.mark.parametrize(("puts", "writes", "sender"), WAYS_TO_HIDE)
async def test_who_took_a_pin_knows_it_although_others_have_written_since(
    bucket: Bucket, puts: Putting, writes: Matching, sender: str, op_id: str | None
) -> None:
    """The deletion's record is stored, and replaced before it is sent again."""
    await puts(bucket.store, DATA)
    losing = Bucket(bucket.js.connection, bucket.name)
    lost = losing.js.lose_answer = Times(1, writes)
    send, touches = getattr(losing.js, sender), 0

    async def touched_before_it_is_sent_again(*asked: Any) -> Message:
        nonlocal touches
        if lost.left == 0 and not touches:
            touches += await bucket.store.touch(DIGEST, unless_seen_since=FAR_AHEAD)
        answer: Message = await send(*asked)
        return answer

    setattr(losing.js, sender, touched_before_it_is_sent_again)

    assert await losing.store.delete(DIGEST, op_id=op_id, kept=said(True))

    assert touches == 1
    now = await bucket.store.stat(DIGEST, sure=True)
    assert not now.pinned
    assert not now.deleted


@pytest.mark.fault("P05")
@pytest.mark.parametrize("op_id", [None, "op"])
async def test_a_pin_without_any_answer_is_unknown_and_its_repeat_settles_it(
    bucket: Bucket, op_id: str | None
) -> None:
    attributes = replace(ATTRIBUTES, op_id=op_id)
    info = await put(bucket.store, DATA, UNPINNED)
    bucket.js.lose_answer = Times(
        3, lambda subject, _: subject == meta_subject(bucket.name, DIGEST)
    )

    with pytest.raises(OutcomeUnknownError):
        await put_staged(bucket.store, DATA, attributes)
    stored = await put_staged(bucket.store, DATA, attributes)

    assert stored == Stored(info=replace(info, pinned=True), created=False)


async def announced_and_touched(bucket: Bucket) -> None:
    """Do what a writer of a name does for its blob, once the name is announced."""
    if not await bucket.store.touch(DIGEST, unless_seen_since=FAR_AHEAD):
        await put_whole(bucket.store, DATA, UNPINNED)


async def pinned(bucket: Bucket) -> None:
    await put_whole(bucket.store, DATA)


async def put_without_a_pin(bucket: Bucket) -> None:
    await put_whole(bucket.store, DATA, UNPINNED)
    await announced_and_touched(bucket)


@pytest.mark.fault("P07")
@pytest.mark.parametrize(
    ("before", "act"),
    [
        (UNPINNED, announced_and_touched),
        (UNPINNED, put_without_a_pin),
        (UNPINNED, pinned),
        (ATTRIBUTES, announced_and_touched),
        (ATTRIBUTES, put_without_a_pin),
    ],
)
async def test_a_blob_stays_that_is_announced_between_any_two_messages_of_its_deletion(
    bucket: Bucket, act: Callable[[Bucket], Awaitable[None]], before: Attributes
) -> None:
    step = 0
    while True:
        await put(bucket.store, DATA, before)
        deleter = Paused(bucket)
        deleter.stop_before(step)
        announced = False

        async def kept() -> bool:
            return announced  # noqa: B023

        deleting = asyncio.create_task(deleter.bucket.store.delete(DIGEST, kept=kept))
        reached = asyncio.create_task(deleter.reached.wait())
        await asyncio.wait([deleting, reached], return_when=asyncio.FIRST_COMPLETED)
        if deleting.done():
            reached.cancel()
            break
        announced = True
        await act(bucket)
        deleter.gate.set()
        await deleting

        info = await bucket.store.stat(DIGEST, sure=True)
        assert not info.damaged
        assert await bucket.store.get(info) == DATA
        await bucket.store.delete(DIGEST)
        step += 1

    assert step == 2  # it is read, and replaced
    with pytest.raises(NotFoundError):
        await bucket.store.stat(DIGEST, sure=True)
    assert await bucket.orphans() == 0


@pytest.mark.fault("P06")
@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("act", [announced_and_touched, pinned])
async def test_a_blob_that_is_kept_has_its_bytes_wherever_its_deletion_is_stopped(
    bucket: Bucket, act: Callable[[Bucket], Awaitable[None]], goes_on: bool
) -> None:
    step = 0
    while True:
        await put(bucket.store, DATA)
        deleter = Paused(bucket)
        deleter.stop_before(step, about="")
        deleting = asyncio.create_task(deleter.bucket.store.delete(DIGEST, kept=said(True)))
        reached = asyncio.create_task(deleter.reached.wait())
        await asyncio.wait([deleting, reached], return_when=asyncio.FIRST_COMPLETED)
        if deleting.done():
            reached.cancel()
            break
        await act(bucket)
        if goes_on:
            deleter.gate.set()
            await deleting
        else:
            deleting.cancel()
            await asyncio.wait([deleting])

        assert await bucket.store.get(await bucket.store.stat(DIGEST, sure=True)) == DATA
        await bucket.store.delete(DIGEST)
        step += 1

    assert step > 4  # it, the leader and its chunk are read, both are replaced, the former goes
