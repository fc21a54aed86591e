"""The promises of every blob store to followers of its changes: beside `BlobStoreContract`."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import (
    FAR_AHEAD,
    PART_BYTES,
    UNPINNED,
    fresh_staging,
    put,
    put_staged,
    said,
    some_bytes,
    write_parts,
)

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, InvalidError, UnavailableError
from holdfast.stores.ports import BlobInfo
from holdfast.stores.record_ports import MAX_CHANGES

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobChanged, BlobStore

BLOBS = [some_bytes(size, seed=size) for size in (0, 1, 1024, 2500, 5000)]


async def follow(
    store: BlobStore, after: int = 0, *, limit: int = 500
) -> tuple[list[BlobChanged], int]:
    """All changes behind ``after``, and where they end."""
    told: list[BlobChanged] = []
    last = (await store.extent()).last
    while True:
        page = await store.changes(after, limit=limit)
        assert len(page.changes) <= limit
        assert page.position >= after
        assert all(after < one.revision <= page.position for one in page.changes)
        told += page.changes
        after = page.position
        if page.is_end:
            assert after >= last
            return told, after


async def change_somehow(store: BlobStore, data: bytes, rng: random.Random) -> None:
    """Put, delete or touch a blob."""
    act = rng.choice(["put", "put", "staged", "delete", "touch"])
    if act == "put":
        await put(store, data, UNPINNED)
    elif act == "staged":
        await put_staged(store, data)
    elif act == "delete":
        await store.delete(digest_of(data))
    else:
        await store.touch(digest_of(data), unless_seen_since=FAR_AHEAD)


def for_watchers(told: list[BlobChanged]) -> list[tuple[str, Digest]]:
    """The events that a watcher gets."""
    return [(one.kind, one.digest) for one in told if one.kind != "changed"]


class BlobChangesContract:
    """Subclass it beside `BlobStoreContract`, whose fixtures it uses."""

    async def test_a_fresh_store_has_no_changes(self, store: BlobStore) -> None:
        assert await follow(store) == ([], (await store.extent()).last)

    async def test_every_put_is_told_with_what_is_recorded_and_every_deletion_without(
        self, store: BlobStore
    ) -> None:
        seen = 0
        for data in BLOBS:
            info = (await put_staged(store, data)).info
            [change], seen = await follow(store, seen)
            assert (change.kind, change.digest, change.info) == ("put", info.digest, info)
            assert change.at.tzinfo is not None
        for data in BLOBS:
            await store.delete(digest_of(data))
            [change], seen = await follow(store, seen)
            assert (change.kind, change.digest, change.info) == ("deleted", digest_of(data), None)

        assert await follow(store, seen) == ([], seen)

    async def test_each_blob_is_told_once_in_ascending_order_also_page_by_page(
        self, store: BlobStore
    ) -> None:
        infos = [await put(store, b"%d" % number) for number in range(12)]

        told, end = await follow(store)
        by_pages, _ = await follow(store, limit=5)
        rest, _ = await follow(store, told[6].revision)

        assert sorted(one.digest for one in told) == sorted(info.digest for info in infos)
        revisions = [one.revision for one in told]
        assert revisions == sorted(set(revisions))
        assert by_pages == told
        assert rest == told[7:]
        assert end >= revisions[-1]

    async def test_a_put_is_told_although_the_blob_was_touched_and_pinned_before_anybody_asked(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"new", UNPINNED)
        await store.touch(info.digest, unless_seen_since=FAR_AHEAD)
        pinned = await put(store, b"new")
        await store.touch(info.digest, unless_seen_since=FAR_AHEAD)

        [change], _ = await follow(store)

        assert (change.kind, change.digest, change.info) == ("put", info.digest, pinned)

    async def test_what_stays_is_not_told_again_as_put(self, store: BlobStore) -> None:
        info = await put(store, b"stays", UNPINNED)
        _, seen = await follow(store)

        await store.touch(info.digest, unless_seen_since=FAR_AHEAD)
        await put(store, b"stays")
        await store.delete(info.digest, kept=said(True))
        told, _ = await follow(store, seen)

        assert for_watchers(told) == []

    async def test_a_change_says_when_the_blob_was_put_that_is_there(
        self, store: BlobStore
    ) -> None:
        digest = (await put(store, b"x", UNPINNED)).digest
        [first], _ = await follow(store)

        await store.touch(digest, unless_seen_since=FAR_AHEAD)
        [touched], seen = await follow(store)
        await store.delete(digest)
        _, seen = await follow(store, seen)
        await put(store, b"x")
        [again], _ = await follow(store, seen)

        assert first.put_at == touched.put_at == first.revision
        assert again.put_at == again.revision

    async def test_of_a_blob_that_was_deleted_and_put_again_the_put_may_be_told_last(
        self, store: BlobStore
    ) -> None:
        info = await put(store, b"again")
        told, seen = await follow(store)
        await store.delete(info.digest)
        deleted, seen = await follow(store, seen)
        await put(store, b"again")
        again, _ = await follow(store, seen)

        assert for_watchers([*told, *deleted, *again]) == [
            ("put", info.digest),
            ("deleted", info.digest),
            ("put", info.digest),
        ]

    async def test_parts_that_are_no_blob_are_not_told(self, store: BlobStore) -> None:
        await write_parts(store.stage(fresh_staging(), PART_BYTES), some_bytes(5 * PART_BYTES))

        told, seen = await follow(store)

        assert told == []
        assert await follow(store, seen) == ([], seen)

    @pytest.mark.parametrize("limit", [0, -1, MAX_CHANGES + 1])
    async def test_so_many_changes_cannot_be_asked_for(self, store: BlobStore, limit: int) -> None:
        with pytest.raises(InvalidError):
            await store.changes(0, limit=limit)

    async def test_a_store_that_cannot_be_reached_does_not_say_that_nothing_changed(
        self, unreachable_store: BlobStore
    ) -> None:
        with pytest.raises(UnavailableError):
            await unreachable_store.changes(0)
        with pytest.raises(UnavailableError):
            await unreachable_store.extent()

    @pytest.mark.parametrize("seed", range(3))
    async def test_whoever_follows_while_others_write_knows_in_the_end_what_is_there(
        self, store: BlobStore, seed: int
    ) -> None:
        rng = random.Random(seed)  # noqa: S311  (test data)
        known: set[Digest] = set()
        seen = 0

        async def write() -> None:
            for _ in range(12):
                data = rng.choice(BLOBS)
                with suppress(ConflictError):  # the others kept changing it: what is there counts
                    await change_somehow(store, data, rng)

        async def poll() -> None:
            nonlocal seen
            told, seen = await follow(store, seen, limit=rng.randrange(1, 4))
            for one in told:
                if one.info is not None:
                    known.add(one.digest)
                else:
                    known.discard(one.digest)

        writing = asyncio.gather(*(write() for _ in range(3)))
        while not writing.done():
            await poll()
        await writing
        await poll()

        page = await store.list_blobs(prefix="", cursor=None, limit=100)
        assert known == {one.digest for one in page.entries if isinstance(one, BlobInfo)}
