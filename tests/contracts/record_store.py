"""What every record store promises: one class of tests that each of them runs.

A subclass gives the fixtures ``store`` (fresh and empty), ``unreachable_store`` and ``pass_time``,
which makes that much time pass for the store: a fake clock moved, or a real one waited for.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest

from holdfast.errors import ConflictError, InvalidError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.stores.ports import Record, RecordStore

RACERS: Final = 16
LONGEST_KEY: Final = "k" * 100 + "." + "l" * 155


async def records(store: RecordStore, prefix: str) -> list[Record]:
    """What a listing gives."""
    return [record async for record in store.list_records(prefix)]


class RecordStoreContract:
    """Subclass it as ``TestMyRecordStore`` with the three fixtures."""

    @pytest.mark.parametrize("key", ["a", "u.0-_=Z", "a.b.c.d", LONGEST_KEY])
    @pytest.mark.parametrize("value", [b"", b"value", bytes(range(256)) * 40])
    async def test_a_record_reads_back_as_written(
        self, store: RecordStore, key: str, value: bytes
    ) -> None:
        revision = await store.put(key, value, expected=0)

        record = await store.get(key)

        assert revision > 0
        assert (record.key, record.value, record.revision) == (key, value, revision)

    async def test_what_was_never_written_is_not_found(self, store: RecordStore) -> None:
        await store.put("a.b", b"", expected=0)

        for key in ("a", "a.b.c", "b"):
            with pytest.raises(NotFoundError):
                await store.get(key)

    async def test_a_store_that_cannot_be_reached_is_unavailable_not_empty(
        self, unreachable_store: RecordStore
    ) -> None:
        with pytest.raises(UnavailableError):
            await unreachable_store.get("a")
        with pytest.raises(UnavailableError):
            await unreachable_store.put("a", b"", expected=0)
        with pytest.raises(UnavailableError):
            await unreachable_store.put("a", b"", expected=7)
        with pytest.raises(UnavailableError):
            await unreachable_store.delete("a", expected=7)
        with pytest.raises(UnavailableError):
            await records(unreachable_store, "")
        with pytest.raises(UnavailableError):
            await unreachable_store.check()

    async def test_a_store_that_is_there_passes_its_check(self, store: RecordStore) -> None:
        await store.check()

        assert await records(store, "") == []

    @pytest.mark.parametrize(
        "key", ["", ".", "a.", ".a", "a..b", "../a", "a/b", "a*", ">", "a b", "é", "k" * 257]
    )
    async def test_a_key_that_is_no_key_is_invalid(self, store: RecordStore, key: str) -> None:
        with pytest.raises(InvalidError):
            await store.put(key, b"", expected=0)
        with pytest.raises(InvalidError):
            await store.get(key)

    async def test_the_revision_rises_with_each_change(self, store: RecordStore) -> None:
        revisions = [0]

        for n in range(5):
            revisions.append(await store.put("a", b"%d" % n, expected=revisions[-1]))

        assert revisions == sorted(set(revisions))
        assert (await store.get("a")).value == b"4"

    async def test_a_write_that_expects_another_revision_conflicts_and_changes_nothing(
        self, store: RecordStore
    ) -> None:
        old = await store.put("a", b"old", expected=0)
        present = await store.put("a", b"present", expected=old)

        for expected in (0, old, present + 1):
            with pytest.raises(ConflictError):
                await store.put("a", b"lost", expected=expected)
            with pytest.raises(ConflictError):
                await store.delete("a", expected=expected)

        record = await store.get("a")
        assert (record.value, record.revision) == (b"present", present)

    async def test_a_write_that_expects_a_record_conflicts_where_there_is_none(
        self, store: RecordStore
    ) -> None:
        with pytest.raises(ConflictError):
            await store.put("a", b"", expected=1)
        with pytest.raises(ConflictError):
            await store.delete("a", expected=1)
        with pytest.raises(NotFoundError):
            await store.get("a")

    @pytest.mark.fault("P07")
    async def test_of_racing_writers_that_create_exactly_one_wins(self, store: RecordStore) -> None:
        results = await asyncio.gather(
            *(store.put("a", b"%d" % n, expected=0) for n in range(RACERS)),
            return_exceptions=True,
        )

        await self._assert_one_won(store, results)

    @pytest.mark.fault("P07")
    async def test_of_racing_writers_that_expect_one_revision_exactly_one_wins(
        self, store: RecordStore
    ) -> None:
        revision = await store.put("a", b"before", expected=0)

        results = await asyncio.gather(
            *(store.put("a", b"%d" % n, expected=revision) for n in range(RACERS)),
            return_exceptions=True,
        )

        await self._assert_one_won(store, results)

    async def test_no_increment_is_lost_among_racing_writers(self, store: RecordStore) -> None:
        await store.put("n", b"0", expected=0)

        async def increment(times: int) -> None:
            while times:
                record = await store.get("n")
                try:
                    value = b"%d" % (int(record.value) + 1)
                    await store.put("n", value, expected=record.revision)
                except ConflictError:
                    continue
                times -= 1

        await asyncio.gather(*(increment(5) for _ in range(4)))

        assert (await store.get("n")).value == b"20"

    async def test_a_deleted_record_is_gone_and_may_be_written_anew(
        self, store: RecordStore
    ) -> None:
        revision = await store.put("a", b"first", expected=0)

        await store.delete("a", expected=revision)

        with pytest.raises(NotFoundError):
            await store.get("a")
        assert await records(store, "") == []
        with pytest.raises(ConflictError):
            await store.put("a", b"late", expected=revision)
        again = await store.put("a", b"second", expected=0)
        assert again > revision
        assert (await store.get("a")).value == b"second"

    async def test_a_record_with_a_time_to_live_goes_away_by_itself(
        self, store: RecordStore, pass_time: Callable[[timedelta], Awaitable[None]]
    ) -> None:
        revision = await store.put("a", b"short", expected=0, ttl=timedelta(seconds=1))
        await store.put("b", b"long", expected=0)
        assert (await store.get("a")).value == b"short"

        await pass_time(timedelta(seconds=3))

        with pytest.raises(NotFoundError):
            await store.get("a")
        assert [record.key for record in await records(store, "")] == ["b"]
        with pytest.raises(ConflictError):
            await store.put("a", b"late", expected=revision)
        assert await store.put("a", b"anew", expected=0) > revision

    async def test_a_record_written_again_without_a_time_to_live_stays(
        self, store: RecordStore, pass_time: Callable[[timedelta], Awaitable[None]]
    ) -> None:
        revision = await store.put("a", b"short", expected=0, ttl=timedelta(seconds=1))
        await store.put("a", b"kept", expected=revision)

        await pass_time(timedelta(seconds=3))

        assert (await store.get("a")).value == b"kept"

    async def test_a_listing_has_every_record_under_the_prefix_once(
        self, store: RecordStore
    ) -> None:
        keys = ["u.a", "u.b.c", "ua", "ub.a", "v.u.a", "u.b.d", f"u.{'x' * 250}"]
        for key in keys:
            await store.put(key, key.encode(), expected=0)

        under_u = await records(store, "u")
        under_u_b = await records(store, "u.b")
        everything = await records(store, "")

        assert sorted(record.key for record in under_u) == sorted(
            key for key in keys if key.startswith("u.")
        )
        assert sorted(record.key for record in under_u_b) == ["u.b.c", "u.b.d"]
        assert sorted(record.key for record in everything) == sorted(keys)
        assert all(record.value == record.key.encode() for record in everything)
        assert await records(store, "nothing") == []

    async def test_a_listing_shows_the_present_revision(self, store: RecordStore) -> None:
        first = await store.put("a", b"old", expected=0)
        second = await store.put("a", b"new", expected=first)

        (record,) = await records(store, "")

        assert (record.value, record.revision) == (b"new", second)

    async def test_closing_twice_is_fine(self, store: RecordStore) -> None:
        await store.aclose()
        await store.aclose()

    async def _assert_one_won(self, store: RecordStore, results: list[int | BaseException]) -> None:
        winners = [n for n, result in enumerate(results) if isinstance(result, int)]
        losers = [result for result in results if isinstance(result, ConflictError)]
        assert (len(winners), len(losers)) == (1, RACERS - 1), results
        record = await store.get("a")
        assert record.value == b"%d" % winners[0]
        assert record.revision == results[winners[0]]
