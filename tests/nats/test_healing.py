"""A copy that one place has lost and another has: it is put anew, in the place of that record."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.blob_store import FAR_AHEAD, PART_BYTES, put, put_staged, some_bytes
from tests.nats.buckets import Bucket, Paused

from holdfast.errors import CorruptError, HoldfastError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.stores.ports import BlobInfo
    from holdfast.transport.jetstream_messages import BatchMessage, StoredMessage
    from holdfast.transport.message import Message

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


@pytest.mark.parametrize("size", SIZES[1:])
async def test_what_a_replica_has_a_moment_later_is_not_told_damaged(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """It applies the chunks once it has answered that it has none."""
    info = await put_of(bucket, size)
    direct_told = bucket.js.direct_told

    async def none_yet(*_: object) -> tuple[list[StoredMessage], str]:
        monkeypatch.setattr(bucket.js, "direct_told", direct_told)
        return [], ""

    monkeypatch.setattr(bucket.js, "direct_told", none_yet)
    read: list[int] = []

    async def spend(size: int) -> None:
        read.append(size)

    await bucket.store.read_back(info, spend)

    assert sum(read) == size


async def test_what_no_replica_has_is_told_damaged_or_not_there(bucket: Bucket) -> None:
    async def spend(_: int) -> None:
        pass

    info = await put_of(bucket, 3 * PART_BYTES)
    await bucket.lose_chunks(info.digest)

    with pytest.raises(CorruptError):
        await bucket.store.read_back(info, spend)
    await bucket.store.delete(info.digest)
    with pytest.raises(NotFoundError):
        await bucket.store.read_back(info, spend)


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


async def test_a_lost_answer_leaves_the_blob_whole_and_no_chunk_behind(bucket: Bucket) -> None:
    """The batch was stored, and its answer was lost; or it was not stored."""
    for is_stored in (True, False):
        info = await put_of(bucket, 3 * PART_BYTES + is_stored)
        healer = Bucket(bucket.js.connection, bucket.name)
        lose_an_answer(healer, is_stored=is_stored)

        assert await healer.store.report_damage(info)

        after = await bucket.open().stat(info.digest, sure=True)
        assert after.generation != info.generation
        assert await bucket.open().get(after) == some_bytes(info.size)
        assert await bucket.orphans() == 0
        assert info.generation not in await bucket.chunk_counts()


def lose_an_answer(bucket: Bucket, *, is_stored: bool) -> None:
    """The first batch times out."""
    send = bucket.js._send_batch
    left = [1]

    async def lost(messages: Sequence[BatchMessage], batch: str) -> Message:
        if not left:
            return await send(messages, batch)
        left.pop()
        if is_stored:
            await send(messages, batch)
        raise TimeoutError

    bucket.js._send_batch = lost  # type: ignore[method-assign]


@pytest.mark.parametrize("seen", ["claimed", "claimed and listed", "removed"])
async def test_a_sweeper_that_takes_the_fresh_chunks_never_leaves_the_blob_without_its_bytes(
    bucket: Bucket, seen: str
) -> None:
    """Who heals stops before each of its requests, and goes on in the midst of a sweep.

    The sweeper takes every claim for an abandoned one.
    """
    leftovers = bucket.store.leftovers()
    ends: list[bool | None] = []
    was_stopped = True
    while was_stopped:
        data = some_bytes(3 * PART_BYTES, seed=len(ends))
        before = (await put_staged(bucket.store, data)).info
        healer = Stopped(bucket, len(ends))
        healing = asyncio.create_task(healer.bucket.store.report_damage(before))
        was_stopped = await healer.stands(healing)
        marks: dict[str, str] = {}
        for copy in await unnamed(bucket) if was_stopped else []:
            mark = await leftovers.claim(copy, abandoned=lambda _: True)
            if mark is not None:
                marks[copy] = mark
        going = await unnamed(bucket) if seen != "claimed" else set()
        if seen == "removed":
            for copy in going & marks.keys():
                await leftovers.remove(copy, marks[copy])
        ends.append(await healer.go_on(healing))
        if seen == "claimed":
            going = await unnamed(bucket)
        for copy in going & marks.keys():
            await leftovers.remove(copy, marks[copy])

        there = await bucket.open().stat(before.digest, sure=True)
        assert await bucket.open().get(there) == data
        assert (there.generation != before.generation) is bool(ends[-1])
    assert len(ends) > 8
    assert None in ends
    assert ends[-1]


async def unnamed(bucket: Bucket) -> set[str]:
    """The copies that no record names, as a sweeper finds them."""
    leftovers = bucket.store.leftovers()
    copies = set(await leftovers.copies(0))
    async for met in leftovers.named(0):
        copies -= set(met.copies)
    return copies


class Stopped:
    """Another store on a bucket, that stops before its ``number``-th request; a batch is one."""

    def __init__(self, bucket: Bucket, number: int) -> None:
        self.bucket = Bucket(bucket.js.connection, bucket.name)
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self.left = number
        js = self.bucket.js
        request, send = js._request, js._send_batch

        async def gated(subject: str, data: Any, headers: Mapping[str, str] | None) -> Message:
            await self._pass()
            return await request(subject, data, headers)

        async def gated_batch(messages: Sequence[BatchMessage], batch: str) -> Message:
            await self._pass()
            return await send(messages, batch)

        js._request = gated  # type: ignore[method-assign]
        js._send_batch = gated_batch  # type: ignore[method-assign]

    async def _pass(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.reached.set()
            await self.gate.wait()

    async def stands(self, task: asyncio.Task[bool]) -> bool:
        """Whether ``task`` was stopped, and did not end before."""
        waiting = asyncio.create_task(self.reached.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return self.reached.is_set()

    async def go_on(self, task: asyncio.Task[bool]) -> bool | None:
        """Go on to the end; the result, or None where it failed."""
        self.gate.set()
        try:
            return await task
        except HoldfastError:
            return None
