"""The promises of every blob store about partial blobs: run beside `BlobStoreContract`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_collecting import surveyed
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    UNPINNED,
    flip_middle,
    is_surely_whole,
    put,
    put_staged,
    put_whole,
    read,
    some_bytes,
)

from holdfast.domain.digest import digest_of
from holdfast.domain.kept import PartialBytes
from holdfast.errors import CorruptError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Range, Ranges
    from holdfast.stores.ports import BlobInfo, BlobStore, Stored

DATA = some_bytes(5000, seed=70)
DIGEST = digest_of(DATA)
RANGES: Ranges = ((0, 10), (1000, 2500), (4990, 5000))
LEFT = b"".join(DATA[start:stop] for start, stop in RANGES)


async def repacked(store: BlobStore, ranges: Ranges = RANGES) -> BlobInfo:
    """The blob of DATA, of which only ``ranges`` are kept."""
    await put(store, DATA, UNPINNED)
    assert await store.repack(await surveyed(store, DATA), ranges) is not None
    return await store.stat(DIGEST, partial=True)


class BlobRepackingContract(ABC):
    """Subclass it beside `BlobCollectingContract`, whose fixtures and hooks it uses."""

    @abstractmethod
    async def alter(
        self, store: BlobStore, digest: Digest, mutate: Callable[[bytes], bytes]
    ) -> None:
        """Replace the stored bytes of a blob by ``mutate`` of them."""

    @abstractmethod
    async def leftovers(self, store: BlobStore) -> int:
        """How many stored pieces belong to no blob."""

    async def test_of_a_partial_blob_the_bytes_needed_are_there(self, store: BlobStore) -> None:
        other = await put(store, b"another")

        info = await repacked(store)

        assert (info.digest, info.size, info.damaged) == (DIGEST, len(LEFT), False)
        assert info.kept is not None
        assert info.kept.ranges == RANGES
        data = await store.get(info)
        assert data == LEFT
        assert PartialBytes(data, info.kept).cut(1200, 1300) == DATA[1200:1300]
        assert await read(store, info, 5, 700) == LEFT[5:700]
        assert await read(store, info, 0, info.size) == LEFT
        assert (await store.stat(DIGEST, sure=True, partial=True)).generation == info.generation
        assert await store.get(other) == b"another"
        assert await self.leftovers(store) == 0

    async def test_to_whoever_asks_for_the_blob_a_partial_one_is_not_there(
        self, store: BlobStore
    ) -> None:
        await repacked(store)

        for sure in False, True:
            with pytest.raises(NotFoundError):
                await store.stat(DIGEST, sure=sure)
        with pytest.raises(NotFoundError):
            await store.fetch(DIGEST, 10_000)
        assert await store.missing([DIGEST]) == [DIGEST]
        assert await store.missing([DIGEST], partial=True) == []

    async def test_a_survey_meets_it_with_what_is_stored(self, store: BlobStore) -> None:
        before = await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)

        left = await store.repack(blob, RANGES)

        met = await surveyed(store, DATA)
        assert (left, met.size) == (len(LEFT), len(LEFT))
        assert met.mark != blob.mark
        assert met.seen_at >= blob.seen_at
        with pytest.raises(NotFoundError):
            await store.get(before)

    async def test_it_can_be_repacked_again_and_brings_nothing_back(self, store: BlobStore) -> None:
        await repacked(store)

        left = await store.repack(await surveyed(store, DATA), ((5, 1001), (2400, 5000)))

        info = await store.stat(DIGEST, partial=True)
        assert info.kept is not None
        assert info.kept.ranges == ((5, 10), (1000, 1001), (2400, 2500), (4990, 5000))
        assert left == info.size == 5 + 1 + 100 + 10
        assert await store.get(info) == DATA[5:10] + DATA[1000:1001] + DATA[2400:2500] + DATA[-10:]
        assert await self.leftovers(store) == 0

    @pytest.mark.parametrize("put_again", [put_whole, put_staged])
    async def test_a_put_makes_it_whole_again(
        self, store: BlobStore, put_again: Callable[[BlobStore, bytes], Awaitable[Stored]]
    ) -> None:
        await repacked(store)

        stored = await put_again(store, DATA)

        assert stored.created
        assert await is_surely_whole(store, DIGEST)
        assert await store.get(await store.stat(DIGEST)) == DATA
        assert await store.missing([DIGEST]) == []
        assert await self.leftovers(store) == 0

    async def test_a_pin_that_a_put_asks_for_is_there(self, store: BlobStore) -> None:
        await repacked(store)

        assert (await store.put(DIGEST, DATA, ATTRIBUTES)).created
        assert (await store.stat(DIGEST, sure=True)).pinned

    @pytest.mark.parametrize(
        ("needed", "is_there"),
        [
            (None, False),
            ((), True),
            (((0, 10), (1500, 2500)), True),
            (((999, 1001),), False),
            (((2000, 2501),), False),
            (((4989, 4990),), False),
            (((3000, 3001),), False),
        ],
    )
    async def test_a_touch_finds_it_if_it_keeps_what_is_needed(
        self, store: BlobStore, needed: Ranges | None, *, is_there: bool
    ) -> None:
        await repacked(store)
        blob = await surveyed(store, DATA)

        found = await store.touch(DIGEST, unless_seen_since=FAR_AHEAD, needed=needed)

        assert found == is_there
        assert (await store.repack(blob, ((0, 5),)) is None) == is_there

    async def test_a_whole_blob_has_whatever_is_needed(self, store: BlobStore) -> None:
        await put(store, DATA, UNPINNED)

        assert await store.touch(DIGEST, unless_seen_since=FAR_AHEAD, needed=((1, 2),))

    async def test_one_that_was_touched_put_anew_or_collected_since_is_refused(
        self, store: BlobStore
    ) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)
        await store.touch(DIGEST, unless_seen_since=FAR_AHEAD)
        assert await store.repack(blob, RANGES) is None
        assert await is_surely_whole(store, DIGEST)

        await repacked(store)
        blob = await surveyed(store, DATA)
        await put(store, DATA, UNPINNED)
        assert await store.repack(blob, ((0, 1),)) is None
        assert not await store.collect(blob)
        assert await store.get(await store.stat(DIGEST)) == DATA

        blob = await surveyed(store, DATA)
        assert await store.collect(blob)
        assert await store.repack(blob, RANGES) is None
        assert await store.missing([DIGEST], partial=True) == [DIGEST]
        assert await self.leftovers(store) == 0

    async def test_a_partial_blob_can_be_collected(self, store: BlobStore) -> None:
        await repacked(store)

        assert await store.collect(await surveyed(store, DATA))

        with pytest.raises(NotFoundError):
            await store.stat(DIGEST, sure=True, partial=True)
        assert await self.leftovers(store) == 0

    async def test_of_racing_repacks_and_collections_one_is_done(self, store: BlobStore) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)

        async def repack(ranges: Ranges) -> bool:
            return await store.repack(blob, ranges) is not None

        done = await asyncio.gather(
            repack(RANGES), store.collect(blob), repack(((0, 1),)), store.collect(blob)
        )

        assert sum(done) == 1
        assert await self.leftovers(store) == 0

    async def test_a_touch_that_says_it_is_there_wins_over_a_repack(self, store: BlobStore) -> None:
        for number in range(8):
            data = some_bytes(700, seed=300 + number)
            await put(store, data, UNPINNED)
            blob = await surveyed(store, data)

            is_there, left = await asyncio.gather(
                store.touch(digest_of(data), unless_seen_since=FAR_AHEAD),
                store.repack(blob, ((0, 100),)),
            )

            assert is_there == (left is None)
            assert await is_surely_whole(store, digest_of(data)) == is_there

    async def test_a_put_beside_a_repack_leaves_a_whole_blob_or_finds_one(
        self, store: BlobStore
    ) -> None:
        for number in range(8):
            data = some_bytes(700, seed=400 + number)
            await put(store, data, UNPINNED)
            first = await surveyed(store, data)
            await store.repack(first, ((0, 600),))
            blob = await surveyed(store, data)

            _, left = await asyncio.gather(
                store.put(digest_of(data), data, UNPINNED), store.repack(blob, ((0, 100),))
            )

            assert left in {None, 100}
            assert await store.get(await store.stat(digest_of(data), sure=True)) == data
            assert await self.leftovers(store) == 0

    async def test_a_reader_that_finds_its_copy_gone_finds_the_next(self, store: BlobStore) -> None:
        before = await put(store, DATA, UNPINNED)
        await store.repack(await surveyed(store, DATA), RANGES)
        with pytest.raises(NotFoundError):
            await store.get(before)

        latest = await store.stat(DIGEST, sure=True, partial=True)

        assert latest.generation != before.generation
        assert await store.get(latest) == LEFT

    async def test_what_cannot_be_read_back_is_not_repacked(self, store: BlobStore) -> None:
        await put(store, DATA, UNPINNED)
        await self.alter(store, DIGEST, flip_middle)

        with pytest.raises(CorruptError):
            await store.repack(await surveyed(store, DATA), RANGES)

    async def test_a_damaged_partial_blob_is_corrupt_and_a_put_heals_it(
        self, store: BlobStore
    ) -> None:
        info = await repacked(store)
        await self.alter(store, DIGEST, flip_middle)

        with pytest.raises((CorruptError, NotFoundError)):
            await store.get(info)
        await store.report_damage(info)

        assert await store.missing([DIGEST], partial=True) == [DIGEST]
        assert not await store.touch(DIGEST, unless_seen_since=FAR_AHEAD, needed=())
        await put(store, DATA, UNPINNED)
        assert await store.get(await store.stat(DIGEST)) == DATA

    async def test_very_many_ranges_are_kept(self, store: BlobStore) -> None:
        data = some_bytes(800_000, seed=71)
        ranges: list[Range] = [(at, at + 200) for at in range(0, len(data), 500)]
        await put(store, data, UNPINNED)

        await store.repack(await surveyed(store, data), tuple(ranges))

        info = await store.stat(digest_of(data), partial=True)
        assert info.kept is not None
        partial = PartialBytes(await store.get(info), info.kept)
        assert all(partial.cut(start, stop) == data[start:stop] for start, stop in ranges)
        assert not partial.cut(200, 201)

    async def test_a_store_that_is_not_reached_repacks_nothing(
        self, store: BlobStore, unreachable_store: BlobStore
    ) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)

        with pytest.raises(UnavailableError):
            await unreachable_store.repack(blob, RANGES)

        assert await is_surely_whole(store, DIGEST)
