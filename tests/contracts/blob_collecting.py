"""The promises of every blob store to a collector: run beside `BlobStoreContract`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import (
    ATTRIBUTES,
    FAR_AHEAD,
    LONG_AGO,
    UNPINNED,
    fresh_staging,
    is_surely_whole,
    put,
    put_staged,
    said,
    some_bytes,
)

from holdfast.domain.digest import digest_of
from holdfast.errors import InvalidError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobStore, SurveyedBlob

BLOBS = [some_bytes(size, seed=size) for size in (0, 1, 1024, 2500, 5000)]
DATA = some_bytes(2500, seed=7)


async def survey(store: BlobStore, *, limit: int = 500) -> dict[Digest, SurveyedBlob]:
    """All blobs, as they were met last."""
    met: dict[Digest, SurveyedBlob] = {}
    cursor = None
    while True:
        page = await store.survey(cursor, limit=limit)
        assert len(page.blobs) <= limit
        met |= {blob.digest: blob for blob in page.blobs}
        cursor = page.cursor
        if cursor is None:
            return met


async def surveyed(store: BlobStore, data: bytes) -> SurveyedBlob:
    """The blob of ``data`` as a survey meets it."""
    return (await survey(store))[digest_of(data)]


class BlobCollectingContract(ABC):
    """Subclass it beside `BlobStoreContract`, whose fixtures and hooks it uses."""

    @abstractmethod
    async def leftovers(self, store: BlobStore) -> int:
        """How many stored pieces belong to no blob."""

    @pytest.mark.parametrize("limit", [1, 2, 500])
    async def test_a_survey_meets_every_blob_with_what_is_recorded(
        self, store: BlobStore, limit: int
    ) -> None:
        infos = [(await put_staged(store, data)).info for data in BLOBS]

        met = await survey(store, limit=limit)

        assert {
            (blob.digest, blob.generation, blob.size, blob.pinned) for blob in met.values()
        } == {(info.digest, info.generation, info.size, True) for info in infos}

    async def test_a_survey_does_not_meet_what_is_deleted(self, store: BlobStore) -> None:
        await put(store, DATA)
        await store.delete(digest_of(DATA))

        assert await survey(store) == {}

    async def test_a_blob_is_seen_when_it_is_put_and_later_when_it_is_touched(
        self, store: BlobStore
    ) -> None:
        before = await store.now()
        await put(store, DATA)
        first = (await surveyed(store, DATA)).seen_at
        await store.touch(digest_of(DATA), unless_seen_since=FAR_AHEAD)
        second = (await surveyed(store, DATA)).seen_at

        assert before <= first <= second <= await store.now()

    async def test_a_touch_leaves_a_blob_as_it_was_met_that_was_seen_late_enough(
        self, store: BlobStore
    ) -> None:
        await put(store, DATA)
        met = await surveyed(store, DATA)

        before = met.seen_at - timedelta(seconds=1)
        assert await store.touch(digest_of(DATA), unless_seen_since=before)
        assert (await surveyed(store, DATA)).mark == met.mark
        assert await store.touch(digest_of(DATA), unless_seen_since=FAR_AHEAD)
        assert (await surveyed(store, DATA)).mark != met.mark

    @pytest.mark.parametrize("data", BLOBS)
    async def test_a_collected_blob_is_gone_and_nothing_is_left_of_it(
        self, store: BlobStore, data: bytes
    ) -> None:
        await put_staged(store, data, UNPINNED)
        other = await put(store, b"another")

        assert await store.collect(await surveyed(store, data))

        with pytest.raises(NotFoundError):
            await store.stat(digest_of(data), sure=True)
        assert await store.missing([digest_of(data)]) == [digest_of(data)]
        assert await store.get(other) == b"another"
        assert await self.leftovers(store) == 0

    async def test_what_was_collected_is_refused_and_can_be_put_again(
        self, store: BlobStore
    ) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)
        await store.collect(blob)

        assert not await store.collect(blob)
        again = await store.put(digest_of(DATA), DATA, UNPINNED)
        assert not await store.collect(blob)

        assert again.created
        assert await store.get(again.info) == DATA

    async def test_a_blob_that_was_touched_since_stays(self, store: BlobStore) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)
        await store.touch(digest_of(DATA), unless_seen_since=FAR_AHEAD)

        assert not await store.collect(blob)
        assert await is_surely_whole(store, digest_of(DATA))

    async def test_a_look_that_touches_nothing_leaves_it_to_the_collector(
        self, store: BlobStore
    ) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)
        if blob.seen_at < LONG_AGO:
            pytest.skip("this store has no time")
        await store.touch(digest_of(DATA), unless_seen_since=LONG_AGO)

        assert await store.collect(blob)

    async def test_a_blob_that_was_pinned_since_stays(self, store: BlobStore) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)
        await put(store, DATA, ATTRIBUTES)

        assert not await store.collect(blob)
        assert (await store.stat(digest_of(DATA), sure=True)).pinned

    async def test_a_blob_that_was_unpinned_since_is_refused(self, store: BlobStore) -> None:
        await put(store, DATA, ATTRIBUTES)
        blob = await surveyed(store, DATA)
        await store.delete(digest_of(DATA), kept=said(True))

        assert not await store.collect(blob)
        assert await store.collect(await surveyed(store, DATA))

    async def test_a_blob_that_was_deleted_and_put_again_since_stays(
        self, store: BlobStore
    ) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)
        await store.delete(digest_of(DATA))
        info = await put(store, DATA, UNPINNED)

        assert not await store.collect(blob)
        assert await store.get(info) == DATA

    async def test_of_racing_collectors_one_removes_it(self, store: BlobStore) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)

        removed = await asyncio.gather(*(store.collect(blob) for _ in range(8)))

        assert sum(removed) == 1
        assert await self.leftovers(store) == 0

    async def test_a_touch_that_says_it_is_there_wins_over_a_collector(
        self, store: BlobStore
    ) -> None:
        for number in range(16):
            data = some_bytes(700, seed=100 + number)
            await put(store, data, UNPINNED)
            blob = await surveyed(store, data)

            is_there, is_gone = await asyncio.gather(
                store.touch(digest_of(data), unless_seen_since=FAR_AHEAD), store.collect(blob)
            )

            assert is_there != is_gone
            assert await is_surely_whole(store, digest_of(data)) == is_there

    async def test_a_put_that_touches_wins_over_a_collector_or_puts_anew(
        self, store: BlobStore
    ) -> None:
        touching = UNPINNED.__class__(
            type=UNPINNED.type, created_at=UNPINNED.created_at, pinned=False, touches=True
        )
        for number in range(16):
            data = some_bytes(700, seed=200 + number)
            await put(store, data, UNPINNED)
            blob = await surveyed(store, data)
            staged = store.stage(fresh_staging(), 1024)
            await staged.write(0, data)

            await asyncio.gather(
                staged.commit(digest_of(data), len(data), touching), store.collect(blob)
            )

            assert await store.get(await store.stat(digest_of(data), sure=True)) == data

    async def test_a_foreign_cursor_is_invalid(self, store: BlobStore) -> None:
        with pytest.raises(InvalidError):
            await store.survey("?", limit=10)

    async def test_a_store_that_is_not_reached_removes_nothing(
        self, store: BlobStore, unreachable_store: BlobStore
    ) -> None:
        await put(store, DATA, UNPINNED)
        blob = await surveyed(store, DATA)

        with pytest.raises(UnavailableError):
            await unreachable_store.survey(None, limit=10)
        with pytest.raises(UnavailableError):
            await unreachable_store.collect(blob)

        assert await is_surely_whole(store, digest_of(DATA))
