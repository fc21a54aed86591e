"""The promises of every blob store: one class of tests that each of them runs.

A subclass gives the fixtures ``store`` (fresh and empty) and ``unreachable_store``, and the two
hooks by which a test looks behind the store's back. Passing this is what makes the memory store a
fake one can trust, and the addresses of all stores the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
from abc import ABC, abstractmethod
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace

from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.op_id import bind_op_id
from holdfast.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from holdfast.stores.ports import Attributes, BlobInfo, Fetched, Stored, UnreadableObject, freely

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.stores.ports import BlobStore, Keeping, StagedBlob

    Putting = Callable[[BlobStore, bytes], Awaitable[BlobInfo]]
    Storing = Callable[[BlobStore, bytes, Attributes], Awaitable[Stored]]

CREATED_AT: Final = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)
ATTRIBUTES: Final = Attributes(type="application/octet-stream", created_at=CREATED_AT)
UNPINNED: Final = replace(ATTRIBUTES, pinned=False)
PART_BYTES: Final = 1024
LONG_AGO: Final = datetime(1971, 1, 1, tzinfo=UTC)
FAR_AHEAD: Final = datetime(2200, 1, 1, tzinfo=UTC)
RACERS: Final = 16

# FIPS 180-4 and NIST's examples: the address is SHA-256 and nothing else.
KNOWN_ADDRESSES: Final = {
    b"": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    b"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    b"a" * 5000: "c526c6222044dab5674de9c4ac7f4566ebb5e4d8bf9d8ea34c9cc8a7cc3c869c",
}


def some_bytes(size: int, seed: int = 1) -> bytes:
    """``size`` bytes that repeat nowhere, the same for the same ``seed``."""
    return random.Random(seed).randbytes(size)  # noqa: S311  (test data, not secrets)


def fresh_staging() -> str:
    """An identifier of a staged blob."""
    return secrets.token_hex(11)


async def put(store: BlobStore, data: bytes, attributes: Attributes = ATTRIBUTES) -> BlobInfo:
    """Put ``data`` and return what is recorded of it."""
    return (await store.put(digest_of(data), data, attributes)).info


async def write_parts(staged: StagedBlob, data: bytes) -> None:
    """Write ``data`` in parts, as an upload does: several under way, begun in order."""
    parts = range(-(-len(data) // PART_BYTES))
    await asyncio.gather(
        *(staged.write(n, data[n * PART_BYTES : (n + 1) * PART_BYTES]) for n in parts)
    )


async def put_staged(store: BlobStore, data: bytes, attributes: Attributes = ATTRIBUTES) -> Stored:
    """Put ``data`` part by part."""
    staged = store.stage(fresh_staging(), PART_BYTES)
    await write_parts(staged, data)
    return await staged.commit(digest_of(data), len(data), attributes)


async def put_whole(store: BlobStore, data: bytes, attributes: Attributes = ATTRIBUTES) -> Stored:
    """Put ``data`` in one go."""
    return await store.put(digest_of(data), data, attributes)


async def put_in_parts(store: BlobStore, data: bytes) -> BlobInfo:
    """As `put`, part by part."""
    return (await put_staged(store, data)).info


def wherever(info: BlobInfo) -> BlobInfo:
    """``info`` without where the copy lies: that of a blob that is deleted and kept may move."""
    return replace(info, generation="", index=None)


def said(answer: bool) -> Keeping:
    """Who is asked whether a blob is kept says this."""

    async def kept() -> bool:
        return answer

    return kept


async def never_asked() -> bool:
    """For what is not there."""
    pytest.fail("nobody is to be asked")


async def is_surely_whole(store: BlobStore, digest: Digest) -> bool:
    """Whether the blob is there, and nobody knows of any damage."""
    try:
        return not (await store.stat(digest, sure=True)).damaged
    except NotFoundError:
        return False


async def read(store: BlobStore, info: BlobInfo, start: int, stop: int) -> bytes:
    """A range, in one piece."""
    return b"".join(await read_pieces(store, info, start, stop))


async def read_pieces(store: BlobStore, info: BlobInfo, start: int, stop: int) -> list[bytes]:
    """A range, in the pieces that the store gives."""
    async with aclosing(store.read(info, start, stop)) as reading:
        return [bytes(piece) async for piece in reading]


async def staged_bytes(store: BlobStore, staging: str) -> list[bytes]:
    """The parts that can be read back."""
    return [bytes(piece) async for piece in store.staged_parts(staging)]


def flip_middle(data: bytes) -> bytes:
    """``data`` with one bit changed."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def flip_last(data: bytes) -> bytes:
    """``data`` with one bit of the last byte changed."""
    return data[:-1] + bytes([data[-1] ^ 1])


def truncate(data: bytes) -> bytes:
    """``data`` without its last byte."""
    return data[:-1]


def lose_everything(data: bytes) -> bytes:
    """No bytes at all."""
    return data[:0]


def extend(data: bytes) -> bytes:
    """``data`` and one byte more."""
    return data + b"\0"


ALTERATIONS: Final = (flip_middle, flip_last, truncate, lose_everything, extend)


class BlobStoreContract(ABC):
    """Subclass it as ``TestMyBlobStore`` with the fixtures ``store`` and ``unreachable_store``."""

    @abstractmethod
    async def alter(
        self, store: BlobStore, digest: Digest, mutate: Callable[[bytes], bytes]
    ) -> None:
        """Replace the stored bytes of a blob by ``mutate`` of them, and nothing else of it.

        What is recorded about the blob (size, digest, chunks) stays as it was.
        """

    @abstractmethod
    async def lose(self, store: BlobStore, digest: Digest) -> None:
        """Remove the stored bytes of a blob behind the store's back, as a lost block does."""

    @abstractmethod
    async def leftovers(self, store: BlobStore) -> int:
        """How many chunks, parts or files there are that belong to no blob."""

    # Addresses

    @pytest.mark.parametrize("data", KNOWN_ADDRESSES, ids=["empty", "abc", "5000-bytes"])
    async def test_identical_bytes_have_the_identical_address_in_every_store(
        self, store: BlobStore, data: bytes
    ) -> None:
        address = Digest(KNOWN_ADDRESSES[data])

        await put(store, data)

        info = await store.stat(address)
        assert (info.digest, info.size) == (address, len(data))
        assert await store.get(info) == data

    async def test_a_blob_put_in_parts_has_the_same_address_as_one_put_whole(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(5 * PART_BYTES + 7)
        staged = await put_staged(store, data)

        whole = await store.put(digest_of(data), data, ATTRIBUTES)

        assert staged.created
        assert not whole.created
        assert whole.info == staged.info

    # There, not there, not reached

    async def test_what_was_never_put_is_not_found(self, store: BlobStore) -> None:
        with pytest.raises(NotFoundError):
            await store.stat(digest_of(b"never put"))

    @pytest.mark.parametrize("size", [0, 1, 3000])
    async def test_what_is_fetched_is_the_record_and_the_bytes_up_to_a_size(
        self, store: BlobStore, size: int
    ) -> None:
        data = some_bytes(size)
        info = await put(store, data)

        assert await store.fetch(info.digest, size) == Fetched(info=info, data=data)
        if size:
            assert await store.fetch(info.digest, size - 1) == Fetched(info=info, data=None)
        await store.delete(info.digest)
        with pytest.raises(NotFoundError):
            await store.fetch(info.digest, size)

    async def test_a_copy_that_was_deleted_and_put_again_is_another_one(
        self, store: BlobStore
    ) -> None:
        before = await put(store, b"again")
        await store.delete(before.digest)
        after = await put(store, b"again")

        assert after.generation != before.generation
        assert await store.get(after) == b"again"
        with pytest.raises(NotFoundError):
            await store.get(before)
        with pytest.raises(NotFoundError):
            await read(store, before, 1, 3)

    async def test_a_store_that_cannot_be_reached_is_unavailable_not_empty(
        self, unreachable_store: BlobStore
    ) -> None:
        store, digest = unreachable_store, digest_of(b"unreached")
        info = BlobInfo(
            digest=digest,
            size=9,
            chunks=1,
            part_size=9,
            type="",
            created_at=CREATED_AT,
            pinned=True,
            generation=fresh_staging(),
        )

        with pytest.raises(UnavailableError):
            await store.stat(digest)
        with pytest.raises(UnavailableError):
            await store.get(info)
        with pytest.raises(UnavailableError):
            await read(store, info, 0, 9)
        with pytest.raises(UnavailableError):
            await store.missing([digest])
        with pytest.raises(UnavailableError):
            await store.put(digest, b"unreached", ATTRIBUTES)
        with pytest.raises(UnavailableError):
            await store.stage(fresh_staging(), PART_BYTES).write(0, b"unreached")
        with pytest.raises(UnavailableError):
            await store.delete(digest)
        with pytest.raises(UnavailableError):
            await store.list_blobs(prefix="", cursor=None, limit=10)
        with pytest.raises(UnavailableError):
            await staged_bytes(store, fresh_staging())
        with pytest.raises(UnavailableError):
            await store.check()

    async def test_a_store_that_is_there_passes_its_check(self, store: BlobStore) -> None:
        await store.check()

        assert (await store.list_blobs(prefix="", cursor=None, limit=10)).entries == []

    # Put

    @pytest.mark.parametrize("size", [0, 1, PART_BYTES, 100_000])
    async def test_what_is_put_can_be_read(self, store: BlobStore, size: int) -> None:
        data = some_bytes(size)

        stored = await store.put(digest_of(data), data, ATTRIBUTES)

        assert stored.created
        assert await store.stat(digest_of(data)) == stored.info
        assert await store.get(stored.info) == data
        assert await read(store, stored.info, 0, size) == data

    async def test_any_buffer_can_be_put(self, store: BlobStore) -> None:
        data = bytearray(some_bytes(3000))

        stored = await store.put(digest_of(data), memoryview(data), ATTRIBUTES)
        data[:] = bytes(3000)  # the caller reuses its buffer

        assert await store.get(stored.info) == some_bytes(3000)

    @pytest.mark.parametrize(
        "size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 8 * PART_BYTES]
    )
    async def test_what_is_put_in_parts_can_be_read(self, store: BlobStore, size: int) -> None:
        data = some_bytes(size)

        stored = await put_staged(store, data)

        assert stored.created
        assert stored.info.size == size
        assert stored.info.chunks == -(-size // PART_BYTES)
        assert await store.stat(digest_of(data)) == stored.info
        assert await store.get(stored.info) == data
        assert await read(store, stored.info, 0, size) == data
        assert await self.leftovers(store) == 0

    async def test_putting_twice_stores_once(self, store: BlobStore) -> None:
        first = await store.put(digest_of(b"twice"), b"twice", ATTRIBUTES)

        second = await store.put(digest_of(b"twice"), b"twice", ATTRIBUTES)

        assert (first.created, second.created) == (True, False)
        assert second.info == first.info
        assert await self.leftovers(store) == 0

    async def test_the_attributes_of_the_first_putter_stay(self, store: BlobStore) -> None:
        first = Attributes(type="text/plain; charset=utf-8", created_at=CREATED_AT, pinned=False)
        later = datetime(2027, 1, 1, tzinfo=UTC)
        second = Attributes(type="image/png", created_at=later, pinned=False)
        await put(store, b"whose", first)

        stored = await store.put(digest_of(b"whose"), b"whose", second)
        staged = await put_staged(store, b"whose", second)

        for info in (stored.info, staged.info, await store.stat(digest_of(b"whose"))):
            assert (info.type, info.created_at, info.pinned) == (
                first.type,
                first.created_at,
                first.pinned,
            )

    @pytest.mark.parametrize("again", [put_whole, put_staged], ids=["whole", "in-parts"])
    async def test_a_put_that_pins_pins_what_it_finds_and_changes_nothing_else(
        self, store: BlobStore, again: Storing
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        before = await put(store, data, UNPINNED)

        stored = await again(store, data, replace(ATTRIBUTES, type="image/png"))

        assert stored == Stored(info=replace(before, pinned=True), created=False)
        assert await store.stat(before.digest, sure=True) == stored.info
        assert await store.get(before) == await store.get(stored.info) == data
        assert await self.leftovers(store) == 0

    @pytest.mark.parametrize("again", [put_whole, put_staged], ids=["whole", "in-parts"])
    async def test_a_put_that_does_not_pin_leaves_a_pin(
        self, store: BlobStore, again: Storing
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        before = await put(store, data)

        assert await again(store, data, UNPINNED) == Stored(info=before, created=False)

    async def test_of_racing_puts_that_pin_all_answer_that_it_is_pinned(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        before = await put(store, data, UNPINNED)

        stored = await asyncio.gather(
            *(storing(store, data) for storing in (put_whole, put_staged) for _ in range(4)),
            *(store.touch(before.digest, unless_seen_since=FAR_AHEAD) for _ in range(2)),
        )

        pinned = Stored(info=replace(before, pinned=True), created=False)
        assert stored == [pinned] * 8 + [True] * 2
        assert await store.get(await store.stat(before.digest, sure=True)) == data
        assert await self.leftovers(store) == 0

    async def test_a_put_that_pins_while_the_blob_is_deleted_brings_nothing_half_back(
        self, store: BlobStore
    ) -> None:
        for number in range(RACERS):
            data = b"%d" % number
            before = await put(store, data, UNPINNED)

            stored, deleted = await asyncio.gather(
                put_whole(store, data), store.delete(before.digest)
            )

            assert deleted
            assert stored.info.pinned
            if stored.created:  # it was deleted before
                assert await store.get(stored.info) == data
            elif await is_surely_whole(store, before.digest):
                assert (await store.stat(before.digest, sure=True)).pinned

    async def test_repeating_the_put_that_created_a_blob_says_created_again(
        self, store: BlobStore
    ) -> None:
        mine = Attributes(type="", created_at=CREATED_AT, op_id="op-1")
        other = Attributes(type="", created_at=CREATED_AT, op_id="op-2")

        answers = [
            (await store.put(digest_of(b"op"), b"op", attributes)).created
            for attributes in (mine, mine, other, ATTRIBUTES, mine)
        ]

        assert answers == [True, True, False, False, True]

    async def test_an_op_id_stands_for_one_request_to_a_blob(self, store: BlobStore) -> None:
        putting = bind_op_id("op", "put", b"")
        deleting = bind_op_id("op", "delete", b"")
        other = Attributes(type="", created_at=CREATED_AT, op_id=bind_op_id("op", "put", b"other"))
        mine = Attributes(type="", created_at=CREATED_AT, op_id=putting)
        data = b"op"

        assert (await store.put(digest_of(data), data, mine)).created
        with pytest.raises(ConflictError):
            await store.put(digest_of(data), data, other)
        with pytest.raises(ConflictError):
            await store.delete(digest_of(data), op_id=deleting)
        assert (await store.put(digest_of(data), data, mine)).created
        assert await store.delete(digest_of(data), op_id="another")

        assert await self.leftovers(store) == 0

    async def test_an_op_id_without_a_request_is_compared_as_it_is(self, store: BlobStore) -> None:
        bound = Attributes(type="", created_at=CREATED_AT, op_id=bind_op_id("op", "put", b""))
        old = Attributes(type="", created_at=CREATED_AT, op_id="op")

        answers = [
            (await store.put(digest_of(data), data, attributes)).created
            for data, attributes in ((b"a", old), (b"a", bound), (b"b", bound), (b"b", old))
        ]

        assert answers == [True] * 4

    @pytest.mark.fault("P08")
    async def test_of_racing_puts_exactly_one_creates_and_nothing_is_left_of_the_others(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(3000)

        stored = await asyncio.gather(
            *(store.put(digest_of(data), data, ATTRIBUTES) for _ in range(RACERS))
        )

        assert sorted(one.created for one in stored) == [False] * (RACERS - 1) + [True]
        assert len({one.info.generation for one in stored}) == 1
        assert await store.get(stored[0].info) == data
        assert await self.leftovers(store) == 0

    @pytest.mark.fault("P08")
    async def test_of_racing_commits_exactly_one_creates_and_nothing_is_left_of_the_others(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(3 * PART_BYTES + 5)
        staged = [store.stage(fresh_staging(), PART_BYTES) for _ in range(RACERS)]
        for one in staged:
            await write_parts(one, data)

        stored = await asyncio.gather(
            *(one.commit(digest_of(data), len(data), ATTRIBUTES) for one in staged)
        )

        assert sorted(one.created for one in stored) == [False] * (RACERS - 1) + [True]
        assert len({one.info.generation for one in stored}) == 1
        assert await store.get(stored[0].info) == data
        assert await self.leftovers(store) == 0

    # Damage

    @pytest.mark.fault("D02", "D03")
    @pytest.mark.parametrize("mutate", ALTERATIONS)
    @pytest.mark.parametrize("parts", [1, 4])
    async def test_an_altered_blob_is_corrupt_and_not_got(
        self, store: BlobStore, mutate: Callable[[bytes], bytes], parts: int
    ) -> None:
        data = some_bytes(parts * PART_BYTES)
        info = (await put_staged(store, data)).info
        await self.alter(store, info.digest, mutate)

        with pytest.raises(CorruptError):
            await store.get(info)

    @pytest.mark.fault("D02", "D03")
    @pytest.mark.parametrize("mutate", ALTERATIONS)
    @pytest.mark.parametrize("parts", [1, 4])
    async def test_reading_an_altered_blob_never_reaches_its_end(
        self, store: BlobStore, mutate: Callable[[bytes], bytes], parts: int
    ) -> None:
        data = some_bytes(parts * PART_BYTES)
        info = (await put_staged(store, data)).info
        await self.alter(store, info.digest, mutate)

        received = 0

        async def read_to_the_end() -> None:
            nonlocal received
            async with aclosing(store.read(info, 0, info.size)) as reading:
                async for piece in reading:
                    received += len(bytes(piece))

        with pytest.raises(CorruptError):
            await read_to_the_end()
        assert received < len(data)

    # A put heals

    @pytest.mark.fault("D01")
    @pytest.mark.parametrize("parts", [1, 4])
    @pytest.mark.parametrize("again", [put, put_in_parts], ids=["whole", "in-parts"])
    async def test_a_put_of_the_right_bytes_makes_a_blob_whole_that_had_lost_them(
        self, store: BlobStore, parts: int, again: Putting
    ) -> None:
        data = some_bytes(parts * PART_BYTES)
        digest = (await put_staged(store, data)).info.digest
        await self.lose(store, digest)

        assert not await store.touch(digest, unless_seen_since=LONG_AGO)
        assert await store.missing([digest], counted=True) == [digest]
        info = await again(store, data)

        assert await store.stat(digest) == info
        assert await store.get(info) == data
        assert await read(store, info, 10, 20) == data[10:20]
        assert await store.touch(digest, unless_seen_since=FAR_AHEAD)
        assert await store.missing([digest], counted=True) == []
        assert await self.leftovers(store) == 0
        assert (await store.list_blobs(prefix="", cursor=None, limit=10)).entries == [info]
        assert not (await store.put(digest, data, ATTRIBUTES)).created

    @pytest.mark.fault("D02", "D03")
    @pytest.mark.parametrize("mutate", ALTERATIONS)
    @pytest.mark.parametrize("again", [put, put_in_parts], ids=["whole", "in-parts"])
    async def test_damage_that_was_reported_makes_a_blob_missing_until_it_is_put_again(
        self, store: BlobStore, mutate: Callable[[bytes], bytes], again: Putting
    ) -> None:
        data = some_bytes(4 * PART_BYTES)
        before = (await put_staged(store, data)).info
        other = await put(store, b"untouched")
        await self.alter(store, before.digest, mutate)

        await store.report_damage(before)
        await store.report_damage(before)

        assert await store.missing([other.digest, before.digest]) == [before.digest]
        assert not await store.touch(before.digest, unless_seen_since=LONG_AGO)
        assert not await is_surely_whole(store, before.digest)
        info = await again(store, data)
        assert await store.missing([before.digest]) == []
        assert await is_surely_whole(store, before.digest)
        assert await store.get(await store.stat(before.digest)) == data
        assert info.generation != before.generation
        assert await self.leftovers(store) == 0

    @pytest.mark.fault("D02")
    @pytest.mark.parametrize("mutate", ALTERATIONS)
    async def test_reading_back_tells_intact_from_damaged_and_from_gone(
        self, store: BlobStore, mutate: Callable[[bytes], bytes]
    ) -> None:
        info = (await put_staged(store, some_bytes(4 * PART_BYTES))).info
        empty, small = await put(store, b""), await put(store, b"small")
        for one in (info, empty, small):
            await store.read_back(one, freely)
        await self.alter(store, info.digest, mutate)
        await store.delete(small.digest)

        with pytest.raises(CorruptError):
            await store.read_back(info, freely)
        with pytest.raises(NotFoundError):
            await store.read_back(small, freely)
        assert not await store.report_damage(info)

    async def test_what_is_counted_never_gets_less(self, store: BlobStore) -> None:
        counts = [await store.count()]
        info = await put(store, b"counted")
        counts.append(await store.count())
        await store.delete(info.digest)
        counts.append(await store.count())

        assert counts in ([(0, 0), (1, 1), (1, 1)], [None, None, None])

    async def test_a_report_about_a_copy_that_is_gone_changes_nothing(
        self, store: BlobStore
    ) -> None:
        before = await put(store, b"again")
        await store.delete(before.digest)
        await store.report_damage(before)
        assert await store.missing([before.digest]) == [before.digest]
        after = await put(store, b"again")

        await store.report_damage(before)

        assert await store.stat(before.digest, sure=True) == after
        assert await store.missing([before.digest]) == []
        assert not (await store.put(before.digest, b"again", ATTRIBUTES)).created

    async def test_a_damaged_blob_can_be_deleted(self, store: BlobStore) -> None:
        info = (await put_staged(store, some_bytes(3000))).info
        await self.lose(store, info.digest)

        await store.delete(info.digest)

        with pytest.raises(NotFoundError):
            await store.stat(info.digest, sure=True)
        assert (await put_staged(store, some_bytes(3000))).created

    @pytest.mark.fault("P08")
    async def test_of_racing_puts_that_heal_a_blob_all_find_it_whole(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        info = (await put_staged(store, data)).info
        await self.lose(store, info.digest)

        stored = await asyncio.gather(*(put_staged(store, data) for _ in range(RACERS)))

        assert sum(one.created for one in stored) == 1
        assert {one.info.generation for one in stored} == {
            (await store.stat(info.digest)).generation
        }
        assert await store.get(await store.stat(info.digest)) == data
        assert await self.leftovers(store) == 0

    # Ranges

    @pytest.mark.parametrize("staged", [False, True], ids=["whole", "in-parts"])
    async def test_a_range_is_exactly_what_was_asked_for(
        self, store: BlobStore, staged: bool
    ) -> None:
        data = some_bytes(3 * PART_BYTES + 100)
        info = (await put_staged(store, data)).info if staged else await put(store, data)
        edges = [0, 1, 1023, 1024, 1025, 2048, 3071, 3072, 3073, len(data) - 1, len(data)]

        for start in edges:
            for stop in (stop for stop in edges if stop >= start):
                assert await read(store, info, start, stop) == data[start:stop], (start, stop)

    async def test_a_range_comes_in_one_piece_per_part_that_it_touches(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(3 * PART_BYTES + 100)
        info = (await put_staged(store, data)).info

        everything = await read_pieces(store, info, 0, len(data))
        middle = await read_pieces(store, info, 1000, 2 * PART_BYTES + 1)

        assert [len(piece) for piece in everything] == [1024, 1024, 1024, 100]
        assert [len(piece) for piece in middle] == [24, 1024, 1]
        assert b"".join(middle) == data[1000 : 2 * PART_BYTES + 1]

    async def test_a_reader_may_stop_early(self, store: BlobStore) -> None:
        data = some_bytes(4 * PART_BYTES)
        info = (await put_staged(store, data)).info
        reading = store.read(info, 0, len(data))

        first = bytes(await anext(reading))
        await reading.aclose()

        assert data.startswith(first)
        assert await store.get(info) == data

    # Delete

    # Touching

    @pytest.mark.parametrize("since", [LONG_AGO, FAR_AHEAD], ids=["seen-since", "not-seen-since"])
    async def test_a_blob_that_is_touched_stays_as_it_is(
        self, store: BlobStore, since: datetime
    ) -> None:
        data = some_bytes(3 * PART_BYTES + 7)
        info = (await put_staged(store, data)).info

        for _ in range(2):
            assert await store.touch(info.digest, unless_seen_since=since)

        assert await store.stat(info.digest) == info
        assert await store.get(info) == data
        assert await read(store, info, 1000, 2000) == data[1000:2000]
        page = await store.list_blobs(prefix="", cursor=None, limit=10)
        assert list(page.entries) == [info]
        assert await store.delete(info.digest)

    async def test_touching_what_is_not_there_says_so_and_makes_nothing(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"gone")
        await store.delete(info.digest)

        for digest in (info.digest, digest_of(b"never put")):
            assert not await store.touch(digest, unless_seen_since=LONG_AGO)
            assert not await store.touch(digest, unless_seen_since=FAR_AHEAD)

        assert await store.missing([info.digest]) == [info.digest]
        page = await store.list_blobs(prefix="", cursor=None, limit=10)
        assert list(page.entries) == []

    async def test_what_was_put_since_a_time_of_the_stores_own_was_seen_since_then(
        self, store: BlobStore
    ) -> None:
        before = await store.now()
        info = await put(store, b"seen")

        assert await store.touch(info.digest, unless_seen_since=before)
        assert before.tzinfo is not None
        assert before <= await store.now()

    async def test_of_racing_touches_all_succeed(self, store: BlobStore) -> None:
        info = await put(store, b"touched")

        touched = await asyncio.gather(
            *(store.touch(info.digest, unless_seen_since=FAR_AHEAD) for _ in range(4))
        )

        assert touched == [True] * 4
        assert await store.get(info) == b"touched"

    async def test_a_touch_brings_nothing_back_that_is_being_deleted(
        self, store: BlobStore
    ) -> None:
        for number in range(RACERS):
            info = await put(store, b"%d" % number)

            await asyncio.gather(
                store.touch(info.digest, unless_seen_since=FAR_AHEAD), store.delete(info.digest)
            )

            assert not await store.touch(info.digest, unless_seen_since=FAR_AHEAD)
            assert await store.missing([info.digest]) == [info.digest]

    # Deleting

    async def test_a_deleted_blob_is_gone(self, store: BlobStore) -> None:
        info = (await put_staged(store, some_bytes(3000))).info

        assert await store.delete(info.digest) is True

        with pytest.raises(NotFoundError):
            await store.stat(info.digest)
        with pytest.raises(NotFoundError):
            await store.get(info)
        with pytest.raises(NotFoundError):
            await read(store, info, 0, 10)
        assert await store.missing([info.digest]) == [info.digest]
        assert (await store.list_blobs(prefix="", cursor=None, limit=10)).entries == []
        assert await self.leftovers(store) == 0

    async def test_deleting_what_is_not_there_says_so(self, store: BlobStore) -> None:
        info = await put(store, b"once")

        answers = [await store.delete(info.digest) for _ in range(3)]

        assert answers == [True, False, False]
        assert await store.delete(digest_of(b"never put")) is False

    async def test_repeating_the_delete_that_removed_a_blob_says_deleted_again(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"op")

        answers = [
            await store.delete(info.digest, op_id=op_id) for op_id in ("mine", "mine", "other")
        ]

        assert answers == [True, True, False]

    async def test_no_deletion_of_before_undoes_the_put_since_when_it_comes_again(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(PART_BYTES)
        op_ids = [bind_op_id(f"op-{n}", "delete", b"") for n in range(4)]
        for op_id in op_ids:
            await store.put(digest_of(data), data, ATTRIBUTES)
            assert await store.delete(digest_of(data), op_id=op_id) is True
        info = (await store.put(digest_of(data), data, ATTRIBUTES)).info

        late = [await store.delete(info.digest, op_id=op_id) for op_id in op_ids]

        assert late == [True] * 4
        assert await store.get(info) == data
        assert await store.delete(info.digest, op_id="another") is True
        assert [await store.delete(info.digest, op_id=op_id) for op_id in op_ids] == [True] * 4
        assert await store.missing([info.digest]) == [info.digest]

    async def test_the_op_id_of_a_deletion_is_not_that_of_another_request(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"op")
        mine, other = bind_op_id("op", "delete", b""), bind_op_id("op", "other", b"")
        assert await store.delete(info.digest, op_id=mine)

        with pytest.raises(ConflictError):
            await store.delete(info.digest, op_id=other)

        assert await store.delete(info.digest, op_id=mine)

    async def test_of_racing_deletes_all_succeed_and_the_blob_is_gone(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"gone")

        answers = await asyncio.gather(*(store.delete(info.digest) for _ in range(RACERS)))

        assert True in answers
        assert await store.missing([info.digest]) == [info.digest]

    @pytest.mark.fault("P11")
    async def test_getting_while_deleting_gives_all_bytes_or_not_found(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(4 * PART_BYTES)

        async def get_or_none(info: BlobInfo) -> bytes | None:
            try:
                return await store.get(info)
            except NotFoundError:
                return None

        for _ in range(5):
            info = (await put_staged(store, data)).info
            *results, deleted = await asyncio.gather(
                *(get_or_none(info) for _ in range(4)), store.delete(info.digest)
            )
            assert deleted
            assert set(results) <= {data, None}

    async def test_a_blob_that_is_kept_stays_when_it_is_deleted_marked_and_without_its_pin(
        self, store: BlobStore
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        before = (await put_staged(store, data)).info

        answers = [await store.delete(before.digest, kept=said(True)) for _ in range(2)]

        assert answers == [True, False]
        after = await store.stat(before.digest, sure=True)
        assert after == replace(before, pinned=False, deleted=True)
        assert await store.get(after) == data
        assert await store.missing([before.digest]) == [before.digest]
        assert (await put_whole(store, data)).info == before
        assert await store.missing([before.digest]) == []
        assert await store.delete(before.digest, kept=said(False))
        assert await store.missing([before.digest]) == [before.digest]
        assert await self.leftovers(store) == 0

    @pytest.mark.parametrize("pinned", [True, False])
    async def test_the_mark_of_a_deleted_blob_goes_when_it_is_put_hit_or_touched(
        self, store: BlobStore, pinned: bool
    ) -> None:
        data = some_bytes(PART_BYTES)
        info = await put(store, data, replace(ATTRIBUTES, pinned=pinned))
        unpinned = wherever(replace(info, pinned=False))

        async def delete() -> None:
            assert await store.delete(info.digest, kept=said(True))
            assert (await store.stat(info.digest, sure=True)).deleted

        await delete()
        assert await store.touch(info.digest, unless_seen_since=LONG_AGO)
        assert wherever(await store.stat(info.digest, sure=True)) == unpinned

        for attributes in (UNPINNED, replace(UNPINNED, touches=True)):
            await delete()
            again = await store.put(info.digest, data, attributes)
            assert (wherever(again.info), again.created) == (unpinned, False)
            assert wherever(await store.stat(info.digest, sure=True)) == unpinned

        await delete()
        place = store.stage(fresh_staging(), PART_BYTES)
        await place.write(0, data)
        stored = await place.commit(info.digest, len(data), ATTRIBUTES)
        assert not stored.created
        assert wherever(stored.info) == replace(unpinned, pinned=True)

    async def test_what_was_deleted_and_kept_goes_once_nothing_keeps_it(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"kept")
        op_id = bind_op_id("op", "delete", b"")
        await store.delete(info.digest, kept=said(True))

        answers = [await store.delete(info.digest, op_id=op_id, kept=said(False)) for _ in range(2)]

        assert answers == [False, False]
        with pytest.raises(NotFoundError):
            await store.stat(info.digest, sure=True)
        assert await self.leftovers(store) == 0

    async def test_of_what_is_not_there_nobody_is_asked_whether_it_is_kept(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"gone")
        await store.delete(info.digest)

        for digest in (info.digest, digest_of(b"never put")):
            assert await store.delete(digest, kept=never_asked) is False

    async def test_a_blob_stays_as_it_is_when_nothing_tells_whether_it_is_kept(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"kept")

        async def kept() -> bool:
            raise UnavailableError

        with pytest.raises(UnavailableError):
            await store.delete(info.digest, kept=kept)

        assert await store.stat(info.digest, sure=True) == info

    @pytest.mark.parametrize("pinned", [True, False])
    async def test_a_blob_stays_that_a_writer_announces_and_touches_between_look_and_burial(
        self, store: BlobStore, pinned: bool
    ) -> None:
        info = await put(store, b"named", replace(ATTRIBUTES, pinned=pinned))
        announced = False

        async def kept() -> bool:
            nonlocal announced
            if announced:
                return True
            announced = True  # by somebody else, as soon as it was looked for
            assert await store.touch(info.digest, unless_seen_since=FAR_AHEAD)
            return False

        assert await store.delete(info.digest, kept=kept)

        after = await store.stat(info.digest, sure=True)
        assert wherever(after) == wherever(replace(info, pinned=False, deleted=True))
        assert await store.get(after) == b"named"

    @pytest.mark.parametrize("staged", [False, True])
    async def test_a_put_that_touches_what_it_finds_saves_it_from_who_looked_before(
        self, store: BlobStore, staged: bool
    ) -> None:
        data = b"named"
        info = await put(store, data, UNPINNED)
        attributes = replace(UNPINNED, touches=True)
        asked = 0

        async def kept() -> bool:
            nonlocal asked
            asked += 1
            if asked == 1:  # somebody announces it, as soon as it was looked for
                if staged:
                    place = store.stage("t" * 22, PART_BYTES)
                    await place.write(0, data)
                    stored = await place.commit(info.digest, len(data), attributes)
                else:
                    stored = await store.put(info.digest, data, attributes)
                assert stored == Stored(info=info, created=False)
            return asked > 1

        await store.delete(info.digest, kept=kept)

        assert asked == 2
        after = await store.stat(info.digest, sure=True)
        assert wherever(after) == wherever(replace(info, deleted=True))

    @pytest.mark.parametrize("is_kept", [True, False])
    async def test_a_blob_that_was_put_again_since_is_looked_at_again(
        self, store: BlobStore, is_kept: bool
    ) -> None:
        data = some_bytes(PART_BYTES)
        before = await put(store, data)
        put_again: list[BlobInfo] = []

        async def kept() -> bool:
            if put_again:
                return True
            await store.delete(before.digest)
            put_again.append(await put(store, data))
            return is_kept

        assert await store.delete(before.digest, kept=kept) is True

        after = await store.stat(before.digest, sure=True)
        assert wherever(after) == wherever(replace(put_again[0], pinned=False, deleted=True))
        assert await store.get(after) == data

    async def test_a_put_that_pins_since_the_look_has_it_looked_for_again(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"pinned", UNPINNED)
        asked = 0

        async def kept() -> bool:
            nonlocal asked
            asked += 1
            if asked == 1:
                assert (await put(store, b"pinned")).pinned
            return asked > 1

        assert await store.delete(info.digest, kept=kept) is True

        assert asked == 2
        after = await store.stat(info.digest, sure=True)
        assert wherever(after) == wherever(replace(info, deleted=True))

    async def test_a_repeat_of_the_delete_that_took_the_pin_answers_the_same_and_takes_no_other(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"op")
        op_id = bind_op_id("op", "delete", b"")

        assert await store.delete(info.digest, op_id=op_id, kept=said(True))
        assert await store.delete(info.digest, op_id=op_id, kept=said(True))
        assert (await put(store, b"op")).pinned
        assert await store.delete(info.digest, op_id=op_id, kept=said(True))

        assert wherever(await store.stat(info.digest, sure=True)) == wherever(info)

    async def test_of_racing_deletes_of_a_kept_blob_one_takes_the_pin(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"kept")

        answers = await asyncio.gather(
            *(store.delete(info.digest, kept=said(True)) for _ in range(4))
        )

        assert sorted(answers) == [False] * 3 + [True]
        assert (await store.fetch(info.digest, PART_BYTES)).data == b"kept"

    # List

    async def test_every_blob_is_listed_once_page_by_page(self, store: BlobStore) -> None:
        infos = [await put(store, f"blob {n}".encode()) for n in range(23)]

        listed: list[object] = []
        cursor = None
        pages = 0
        while True:
            page = await store.list_blobs(prefix="", cursor=cursor, limit=5)
            assert len(page.entries) <= 5
            listed.extend(page.entries)
            cursor = page.cursor
            pages += 1
            assert pages < 100
            if cursor is None:
                break

        assert len(listed) == len(infos)
        assert all(info in listed for info in infos)

    async def test_a_listing_by_prefix_has_only_what_starts_with_it(self, store: BlobStore) -> None:
        infos = [await put(store, f"blob {n}".encode()) for n in range(40)]
        digest = infos[0].digest

        for length in (1, 2, 3, 64):
            prefix = digest[:length]
            page = await store.list_blobs(prefix=prefix, cursor=None, limit=1000)
            expected = {info.digest for info in infos if info.digest.startswith(prefix)}
            found = [entry.digest for entry in page.entries if isinstance(entry, BlobInfo)]
            assert len(found) == len(page.entries)
            assert sorted(found) == sorted(expected)

    async def test_blobs_put_or_deleted_between_pages_do_not_disturb_the_rest(
        self, store: BlobStore
    ) -> None:
        infos = [await put(store, f"blob {n}".encode()) for n in range(12)]
        page = await store.list_blobs(prefix="", cursor=None, limit=4)
        seen = {entry.digest for entry in page.entries if isinstance(entry, BlobInfo)}
        victim = next(info.digest for info in infos if info.digest not in seen)

        await store.delete(victim)
        await put(store, b"a newcomer")
        found = [entry.digest for entry in page.entries if isinstance(entry, BlobInfo)]
        while page.cursor is not None:
            page = await store.list_blobs(prefix="", cursor=page.cursor, limit=4)
            found += [entry.digest for entry in page.entries if isinstance(entry, BlobInfo)]

        stayed = [info.digest for info in infos if info.digest != victim]
        assert [digest for digest in stayed if found.count(digest) != 1] == []
        assert victim not in found

    @pytest.mark.parametrize("cursor", ["x", "../../etc/passwd", "0" * 63, "é", ""])
    async def test_a_cursor_the_store_did_not_make_is_invalid(
        self, store: BlobStore, cursor: str
    ) -> None:
        with pytest.raises(InvalidError):
            await store.list_blobs(prefix="", cursor=cursor, limit=10)

    async def test_a_listing_goes_on_behind_any_of_its_entries(self, store: BlobStore) -> None:
        infos = [await put(store, f"blob {n}".encode()) for n in range(7)]
        whole = await store.list_blobs(prefix="", cursor=None, limit=100)

        for number, cursor in enumerate(whole.after, 1):
            rest = await store.list_blobs(prefix="", cursor=cursor, limit=100)
            assert list(rest.entries) == list(whole.entries)[number:]
        assert len(whole.entries) == len(infos)

    # Which are missing

    async def test_missing_keeps_the_order_and_names_each_once(self, store: BlobStore) -> None:
        stored = [(await put(store, f"here {n}".encode())).digest for n in range(3)]
        absent = [digest_of(f"absent {n}".encode()) for n in range(3)]

        answer = await store.missing(
            [absent[2], stored[0], absent[0], absent[2], stored[0], stored[1], absent[1]]
        )

        assert answer == [absent[2], absent[0], absent[1]]
        assert await store.missing([]) == []
        assert await store.missing(stored) == []

    async def test_missing_takes_1024_digests(self, store: BlobStore) -> None:
        stored = [(await put(store, f"here {n}".encode())).digest for n in range(8)]
        absent = [digest_of(f"absent {n}".encode()) for n in range(1016)]

        assert await store.missing([*absent[:500], *stored, *absent[500:]]) == absent

    # Parts that are not a blob yet

    async def test_parts_are_no_blob_before_the_commit(self, store: BlobStore) -> None:
        data = some_bytes(3 * PART_BYTES)

        await write_parts(store.stage(fresh_staging(), PART_BYTES), data)

        assert await store.missing([digest_of(data)]) == [digest_of(data)]
        assert (await store.list_blobs(prefix="", cursor=None, limit=10)).entries == []
        assert await self.leftovers(store) > 0

    async def test_parts_can_be_read_back_to_go_on_elsewhere(self, store: BlobStore) -> None:
        data = some_bytes(3 * PART_BYTES)
        old, new = fresh_staging(), fresh_staging()
        await write_parts(store.stage(old, PART_BYTES), data)
        last = b"the rest"

        staged = store.stage(new, PART_BYTES)
        hasher = hashlib.sha256()
        for number, part in enumerate([*await staged_bytes(store, old), last]):
            hasher.update(part)
            await staged.write(number, part)
        digest = Digest(hasher.hexdigest())
        stored = await staged.commit(digest, len(data) + len(last), ATTRIBUTES)
        await store.discard_staged(old)

        assert await store.get(stored.info) == data + last
        assert await self.leftovers(store) == 0

    async def test_parts_after_a_gap_are_not_read_back(self, store: BlobStore) -> None:
        staging = fresh_staging()
        staged = store.stage(staging, PART_BYTES)
        for part in (0, 1, 3):
            await staged.write(part, some_bytes(PART_BYTES, seed=part))

        assert await staged_bytes(store, staging) == [some_bytes(PART_BYTES, n) for n in (0, 1)]

    async def test_without_its_first_part_nothing_is_read_back(self, store: BlobStore) -> None:
        staging = fresh_staging()
        await store.stage(staging, PART_BYTES).write(1, b"second")

        assert await staged_bytes(store, staging) == []
        assert await staged_bytes(store, fresh_staging()) == []

    async def test_discarded_parts_are_gone(self, store: BlobStore) -> None:
        mine, other = fresh_staging(), fresh_staging()
        staged = store.stage(mine, PART_BYTES)
        await write_parts(staged, some_bytes(3000))
        await write_parts(store.stage(other, PART_BYTES), some_bytes(3000))

        await staged.discard()
        await staged.discard()
        await store.discard_staged(other)
        await store.discard_staged(other)

        assert await staged_bytes(store, mine) == []
        assert await self.leftovers(store) == 0

    async def test_discarding_after_the_commit_keeps_the_blob(self, store: BlobStore) -> None:
        data = some_bytes(3 * PART_BYTES)
        staged = store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)
        stored = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        await staged.discard()

        assert await store.get(await store.stat(stored.info.digest)) == data

    async def test_a_commit_may_be_repeated(self, store: BlobStore) -> None:
        data = some_bytes(3 * PART_BYTES)
        staged = store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)

        first = await staged.commit(digest_of(data), len(data), ATTRIBUTES)
        second = await staged.commit(digest_of(data), len(data), ATTRIBUTES)

        assert first == second
        assert first.created
        assert await store.get(second.info) == data
        assert await self.leftovers(store) == 0

    @pytest.mark.parametrize("parts", [0, 1, 3])
    async def test_what_a_commit_expects_to_be_new_need_not_be(
        self, store: BlobStore, parts: int
    ) -> None:
        data = some_bytes(parts * PART_BYTES)

        async def commit() -> Stored:
            staged = store.stage(fresh_staging(), PART_BYTES)
            await write_parts(staged, data)
            return await staged.commit(digest_of(data), len(data), ATTRIBUTES, likely_new=True)

        first, second = await commit(), await commit()
        await store.delete(digest_of(data))
        third = await commit()
        racing = await asyncio.gather(*(commit() for _ in range(4)))

        assert [one.created for one in (first, second, third, *racing)] == [
            *(True, False, True),
            *(False for _ in racing),
        ]
        assert second.info == first.info
        assert await store.get(third.info) == data
        assert await self.leftovers(store) == 0

    async def test_a_commit_is_claimed_unless_the_blob_is_there(self, store: BlobStore) -> None:
        data = some_bytes(3 * PART_BYTES)
        claimed: list[str] = []

        async def claim(staging: str) -> None:
            claimed.append(staging)

        stagings = [fresh_staging(), fresh_staging()]
        for staging in stagings:
            staged = store.stage(staging, PART_BYTES)
            await write_parts(staged, data)
            await staged.commit(digest_of(data), len(data), ATTRIBUTES, claim=claim)

        assert claimed == stagings[:1]
        assert await self.leftovers(store) == 0

    async def test_a_commit_whose_claim_is_refused_makes_no_blob(self, store: BlobStore) -> None:
        data = some_bytes(3 * PART_BYTES)
        staged = store.stage(fresh_staging(), PART_BYTES)
        await write_parts(staged, data)

        async def claim(_: str) -> None:
            msg = "it is another's by now"
            raise ConflictError(msg)

        with pytest.raises(ConflictError, match="another's"):
            await staged.commit(digest_of(data), len(data), ATTRIBUTES, claim=claim)

        assert await store.missing([digest_of(data)]) == [digest_of(data)]
        assert (await staged.commit(digest_of(data), len(data), ATTRIBUTES)).created

    @pytest.mark.fault("P06")
    async def test_parts_may_be_discarded_once_the_blob_is_there_of_others_and_nothing_is_spoilt(
        self, store: BlobStore
    ) -> None:
        """A commit is held up after it was claimed, and the blob is deleted again meanwhile."""
        data = some_bytes(3 * PART_BYTES)
        staging = fresh_staging()
        staged = store.stage(staging, PART_BYTES)
        await write_parts(staged, data)
        held_up = False

        async def claim(_: str) -> None:
            nonlocal held_up
            if held_up:
                msg = "it is another's by now"
                raise ConflictError(msg)
            held_up = True
            await put_staged(store, data)
            assert (await store.stat(digest_of(data), sure=True)).generation != staging
            await store.delete(digest_of(data))
            await store.discard_staged(staging)

        with suppress(ConflictError, CorruptError):
            await staged.commit(digest_of(data), len(data), ATTRIBUTES, claim=claim)

        assert held_up
        info = await put(store, data)
        assert await store.get(info) == data

    async def test_what_is_recorded_now_is_told(self, store: BlobStore) -> None:
        with pytest.raises(NotFoundError):
            await store.stat(digest_of(b"now"), sure=True)
        info = await put(store, b"now")
        assert await store.stat(info.digest, sure=True) == info
        await store.delete(info.digest)
        with pytest.raises(NotFoundError):
            await store.stat(info.digest, sure=True)

    async def test_committing_what_is_there_removes_the_parts(self, store: BlobStore) -> None:
        data = some_bytes(3 * PART_BYTES)
        before = await put(store, data)

        stored = await put_staged(store, data)

        assert not stored.created
        assert stored.info == before
        assert await self.leftovers(store) == 0

    async def test_closing_twice_is_fine(self, store: BlobStore) -> None:
        await store.aclose()
        await store.aclose()


class SpoiltRecordContract(ABC):
    """For stores whose record of a blob can be damaged: run beside `BlobStoreContract`."""

    @abstractmethod
    async def spoil_record(self, store: BlobStore, digest: Digest) -> None:
        """Make what is recorded about a blob unreadable, behind the store's back."""

    @pytest.mark.fault("D02")
    async def test_a_record_that_cannot_be_read_is_listed_so_that_it_is_seen(
        self, store: BlobStore
    ) -> None:
        other = await put(store, b"other")
        spoilt = await put(store, b"spoilt")
        await self.spoil_record(store, spoilt.digest)

        page = await store.list_blobs(prefix="", cursor=None, limit=10)

        rows = [entry for entry in page.entries if isinstance(entry, UnreadableObject)]
        assert [row.name for row in rows] == [spoilt.digest]
        assert [entry for entry in page.entries if entry not in rows] == [other]

    @pytest.mark.fault("D02")
    async def test_a_record_that_cannot_be_read_can_be_deleted_unless_it_is_kept(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"spoilt")
        await self.spoil_record(store, info.digest)

        assert await store.delete(info.digest, kept=said(True)) is False
        assert await store.delete(info.digest, kept=said(False)) is True
        assert await store.delete(info.digest, kept=never_asked) is False
        assert (await put_whole(store, b"spoilt")).created

    @pytest.mark.fault("D02")
    async def test_a_record_that_cannot_be_read_is_no_blob(self, store: BlobStore) -> None:
        info = await put(store, b"spoilt")
        await self.spoil_record(store, info.digest)

        with pytest.raises(CorruptError):
            await store.stat(info.digest, sure=True)
        assert await store.missing([info.digest]) == [info.digest]
        assert not await store.touch(info.digest, unless_seen_since=LONG_AGO)

    @pytest.mark.fault("D02")
    @pytest.mark.parametrize("again", [put, put_in_parts], ids=["whole", "in-parts"])
    async def test_a_put_mends_a_record_that_cannot_be_read(
        self, store: BlobStore, again: Putting
    ) -> None:
        data = some_bytes(3 * PART_BYTES)
        digest = (await put_staged(store, data)).info.digest
        await self.spoil_record(store, digest)

        info = await again(store, data)

        assert await store.stat(digest) == info
        assert await store.get(info) == data
        assert await store.missing([digest]) == []

    @pytest.mark.fault("D02")
    async def test_a_delete_removes_a_record_that_cannot_be_read(self, store: BlobStore) -> None:
        info = await put(store, b"spoilt")
        await self.spoil_record(store, info.digest)

        assert await store.delete(info.digest, op_id="mine") is True

        assert await store.delete(info.digest, op_id="mine") is True
        assert await store.delete(info.digest) is False
        with pytest.raises(NotFoundError):
            await store.stat(info.digest, sure=True)
        assert (await store.list_blobs(prefix="", cursor=None, limit=10)).entries == []
        assert (await store.put(info.digest, b"spoilt", ATTRIBUTES)).created
