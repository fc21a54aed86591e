"""The promises of every record store to those who follow its changes.

Part of the suite of `tests.contracts.record_store`, with one more fixture: ``made_anew`` removes
the store and makes another one in its place.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from holdfast.errors import ConflictError, InvalidError
from holdfast.stores.record_ports import CHANGES_LIMIT, MAX_CHANGES, Delete, Put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.stores.record_ports import Changed, RecordStore

WRITERS: Final = 4
WRITES: Final = 25
SECONDS: Final = 60.0
LONGER: Final = timedelta(seconds=2)


class Follower:
    """Knows what it has read of the changes. ``position`` is where it goes on."""

    def __init__(self, store: RecordStore, position: int = 0) -> None:
        self.position = position
        self.changes: list[Changed] = []
        self._store = store

    async def catch_up(self, limit: int = CHANGES_LIMIT) -> None:
        """Read on until nothing is missing that was acknowledged before."""
        last = (await self._store.extent()).last
        is_end = False
        while not is_end or self.position < last:
            page = await self._store.changes(self.position, limit=limit)
            assert len(page.changes) <= limit
            assert all(change.revision > self.position for change in page.changes)
            assert all(change.revision <= page.position for change in page.changes)
            assert page.position > self.position or page.is_end
            self.changes += page.changes
            self.position, is_end = page.position, page.is_end

    @property
    def records(self) -> dict[str, tuple[int, bytes]]:
        """The records as the changes tell: revision and value."""
        last = {change.key: change for change in self.changes}
        return {
            key: (change.revision, change.value)
            for key, change in last.items()
            if change.value is not None
        }


async def listed(store: RecordStore) -> dict[str, tuple[int, bytes]]:
    """The records as a listing tells."""
    return {record.key: (record.revision, record.value) async for record in store.list_records("")}


async def gone(store: RecordStore, key: str) -> None:
    """Until the store has noticed that a record's time is up: a busy server does so late."""
    async with asyncio.timeout(SECONDS):
        while await store.get_many([key]):  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.05)


class RecordChangesContract:
    """See `tests.contracts.record_store.RecordStoreContract`."""

    short: ClassVar[timedelta] = timedelta(seconds=1)
    """A time to live; longer than it takes to write and read a record."""

    @pytest.fixture
    def lasting(self, store: RecordStore) -> RecordStore:
        """The store, which keeps its notes of removals for longer than a test takes."""
        return store

    async def test_an_empty_store_has_no_changes(self, store: RecordStore) -> None:
        extent = await store.extent()
        page = await store.changes(0)

        assert (extent.last, extent.keys) == (0, 0)
        assert (list(page.changes), page.position, page.is_end) == ([], 0, True)

    async def test_changes_come_in_order_and_of_each_key_the_last_only(
        self, store: RecordStore
    ) -> None:
        first = await store.put("a", b"old", expected=0)
        b, c = await store.batch([Put(key=key, value=b"", expected=0) for key in ("b", "c")])
        a = await store.put("a", b"new", expected=first)

        page = await store.changes(0)

        found = [(change.key, change.revision, change.value) for change in page.changes]
        assert found == [("b", b, b""), ("c", c, b""), ("a", a, b"new")]
        assert (page.position, page.is_end) == (a, True)

    async def test_a_change_has_the_time_of_the_store(self, store: RecordStore) -> None:
        for key in ("a", "b", "c"):
            await store.put(key, b"", expected=0)

        times = [change.at for change in (await store.changes(0)).changes]

        assert times == sorted(times)
        assert all(time.utcoffset() == timedelta() for time in times)

    async def test_keys_below_a_prefix_are_counted_removed_ones_among_them(
        self, store: RecordStore
    ) -> None:
        await store.batch([Put(key=key, value=b"1", expected=0) for key in ("s.a", "s.b.c", "t.a")])
        await store.batch([Delete(key="s.a", for_good=True), Put(key="s", value=b"", expected=0)])

        counts = [await store.count(prefix) for prefix in ("s", "s.b", "t", "x", "")]

        assert counts == [2, 1, 1, 0, 4]

    async def test_what_was_removed_is_a_change_without_a_value(self, lasting: RecordStore) -> None:
        store = lasting
        a = await store.put("a", b"1", expected=0)
        await store.batch([Put(key=key, value=b"1", expected=0) for key in ("b", "c", "d")])
        follower = Follower(store)
        await follower.catch_up()

        await store.delete("a", expected=a)
        await store.batch([Delete(key="b", for_good=True), Delete(key="c")])
        await store.put("c", b"2", expected=0)
        follower.changes.clear()
        await follower.catch_up()

        found = [(change.key, change.value) for change in follower.changes]
        assert found == [("a", None), ("b", None), ("c", b"2")]

    async def test_a_removal_for_good_is_told_for_ever(
        self, store: RecordStore, clean_up: Callable[[], Awaitable[None]]
    ) -> None:
        await store.batch([Put(key=key, value=b"1", expected=0) for key in ("a", "b")])
        await store.batch([Delete(key="a", for_good=True), Delete(key="b")])

        await clean_up()

        page = await store.changes(0)
        assert ("a", None) in [(change.key, change.value) for change in page.changes]
        assert all(change.value is None for change in page.changes)

    async def test_a_grave_is_a_record_like_any_other(self, store: RecordStore) -> None:
        revision = await store.put("n.a", b"present", expected=0)
        grave = await store.put("n.a", b"grave", expected=revision, grave=True)
        await store.batch([Put(key="n.b", value=b"grave", expected=0, grave=True)])

        assert (await store.get("n.a")).value == b"grave"
        assert [one.value for one in await store.get_many(["n.a", "n.b"])] == [b"grave", b"grave"]
        assert await store.list_keys("n") == ["n.a", "n.b"]
        assert set(await listed(store)) == {"n.a", "n.b"}
        assert [one.value for one in (await store.changes(0)).changes] == [b"grave", b"grave"]
        with pytest.raises(ConflictError):
            await store.put("n.a", b"anew", expected=0)
        assert await store.put("n.a", b"anew", expected=grave) > grave

    async def test_a_grave_without_a_value_is_invalid(self, store: RecordStore) -> None:
        with pytest.raises(InvalidError):
            await store.put("a", b"", expected=0, grave=True)
        with pytest.raises(InvalidError):
            await store.batch([Put(key="a", value=b"", expected=0, grave=True)])

    @pytest.mark.parametrize("limit", [-1, 0, MAX_CHANGES + 1])
    async def test_a_limit_that_is_none_is_invalid(self, store: RecordStore, limit: int) -> None:
        with pytest.raises(InvalidError):
            await store.changes(0, limit=limit)

    @pytest.mark.parametrize("limit", [1, 7, CHANGES_LIMIT, MAX_CHANGES])
    async def test_a_follower_agrees_with_a_listing_wherever_it_begins(
        self, lasting: RecordStore, limit: int
    ) -> None:
        store = lasting
        await self._change_much(store, random.Random(1))  # noqa: S311
        early, late = Follower(store), Follower(store)
        await late.catch_up(limit)
        await self._change_much(store, random.Random(2))  # noqa: S311

        await early.catch_up(limit)
        await late.catch_up(limit)

        assert early.records == late.records == await listed(store)

    async def test_behind_the_end_there_is_nothing(self, store: RecordStore) -> None:
        revision = await store.put("a", b"", expected=0)

        page = await store.changes(revision + 7)

        assert (list(page.changes), page.position, page.is_end) == ([], revision + 7, True)

    async def test_an_extent_counts_keys_and_the_notes_of_removals(
        self, lasting: RecordStore
    ) -> None:
        store = lasting
        a = await store.put("a", b"", expected=0)
        a = await store.put("a", b"again", expected=a)
        assert (await store.extent()).last == a
        await store.batch([Put(key=key, value=b"1", expected=0) for key in ("b", "c", "d")])

        await store.batch([Delete(key="b"), Delete(key="c", for_good=True)])
        with pytest.raises(ConflictError):
            await store.put("e", b"", expected=a)

        extent = await store.extent()
        assert extent.keys == 4
        assert extent.last > a

    async def test_an_extent_stays_where_notes_of_removals_are_cleaned_up(
        self, store: RecordStore, clean_up: Callable[[], Awaitable[None]]
    ) -> None:
        await store.batch([Put(key=key, value=b"1", expected=0) for key in ("a", "b", "c", "d")])
        await store.batch([Delete(key="b"), Delete(key="c", for_good=True)])
        extent = await store.extent()

        await clean_up()

        cleaned = await store.extent()
        assert cleaned.keys in {3, 4}
        assert (cleaned.last, cleaned.created) == (extent.last, extent.created)

    async def test_a_store_that_was_made_anew_is_another(
        self, store: RecordStore, made_anew: Callable[[], Awaitable[RecordStore]]
    ) -> None:
        await store.put("a", b"", expected=0)
        before = await store.extent()

        another = await made_anew()

        after = await another.extent()
        assert after.created != before.created
        assert (after.last, after.keys) == (0, 0)

    async def test_a_follower_comes_past_what_has_expired(
        self, store: RecordStore, pass_time: Callable[[timedelta], Awaitable[None]]
    ) -> None:
        await store.put("a", b"stays", expected=0)
        await store.put("b", b"goes", expected=0, ttl=self.short)
        await pass_time(self.short + LONGER)
        await gone(store, "b")
        follower = Follower(store)

        await follower.catch_up()

        assert list(follower.records) == ["a"]
        assert follower.position >= (await store.extent()).last

    async def test_a_follower_lacks_nothing_that_was_acknowledged(
        self, lasting: RecordStore
    ) -> None:
        store = lasting
        acknowledged: dict[str, int] = {}
        running = WRITERS

        async def write(writer: int) -> None:
            nonlocal running
            rng = random.Random(writer)  # noqa: S311
            for _ in range(WRITES):
                key = f"w{writer}.{rng.randrange(8)}"
                await self._change_one(store, rng, key, acknowledged)
            running -= 1

        async def follow() -> None:
            follower = Follower(store)
            while running:
                before = dict(acknowledged)
                await follower.catch_up(limit=5)
                last = {change.key: change.revision for change in follower.changes}
                assert all(last[key] >= revision for key, revision in before.items())
            await follower.catch_up(limit=5)
            assert follower.records == await listed(store)

        await asyncio.gather(*map(write, range(WRITERS)), follow(), follow())

    async def _change_one(
        self, store: RecordStore, rng: random.Random, key: str, acknowledged: dict[str, int]
    ) -> None:
        """One of the writes that there are, by the only writer of ``key``."""
        present = acknowledged.get(key, 0)
        if present > 0 and rng.random() < 0.3:
            await store.delete(key, expected=present)
            acknowledged[key] = 0
            return
        grave = rng.random() < 0.2
        acknowledged[key] = await store.put(key, b"%d" % present, expected=present, grave=grave)

    async def _change_much(self, store: RecordStore, rng: random.Random) -> None:
        """Batches of writes and removals."""
        for _ in range(8):
            changes = [
                Delete(key=f"k.{number}")
                if rng.random() < 0.3
                else Put(key=f"k.{number}", value=rng.randbytes(8), expected=None)
                for number in rng.sample(range(40), k=8)
            ]
            await store.batch(changes)
