"""The promises of every record store: one class of tests that each of them runs.

A subclass gives the fixtures ``store`` (fresh and empty), ``unreachable_store``, ``pass_time``,
which makes that much time pass for the store: a fake clock moved, or a real one waited for,
``clean_up``, which has it forget the keys of what was deleted, and ``made_anew``. What is promised
to followers is in ``record_changes``.
"""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest
from tests.contracts.record_changes import LONGER, RecordChangesContract, gone

from holdfast.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from holdfast.stores.record_ports import MAX_BATCH, MAX_GET_MANY, Delete, Put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.stores.record_ports import Change, Record, RecordStore

RACERS: Final = 16
LONG_KEY: Final = "k" * 100 + "." + "l" * 155
LONGEST_KEY: Final = ".".join(["k" * 255, "l" * 511, "m" * 1280])


def put(key: str, expected: int | None = 0, value: bytes = b"batched") -> Put:
    """A write in a batch; of a new record unless told otherwise."""
    return Put(key=key, value=value, expected=expected)


async def state(store: RecordStore) -> dict[str, bytes]:
    """Every record's value."""
    return {record.key: record.value for record in await records(store, "")}


async def records(store: RecordStore, prefix: str) -> list[Record]:
    """The rows of a listing."""
    return [record async for record in store.list_records(prefix)]


class RecordStoreContract(RecordChangesContract):
    """Subclass it as ``TestMyRecordStore`` with the five fixtures."""

    @pytest.mark.parametrize("key", ["a", "u.0-_=Z", "a.b.c.d", LONG_KEY, LONGEST_KEY])
    @pytest.mark.parametrize("value", [b"", b"value", bytes(range(256)) * 40])
    async def test_a_record_reads_back_as_written(
        self, store: RecordStore, key: str, value: bytes
    ) -> None:
        revision = await store.put(key, value, expected=0)

        record = await store.get(key)

        assert revision > 0
        assert (record.key, record.value, record.revision) == (key, value, revision)
        assert await store.get(key, sure=True) == record

    async def test_what_was_never_written_is_not_found(self, store: RecordStore) -> None:
        await store.put("a.b", b"", expected=0)

        for key, sure in itertools.product(("a", "a.b.c", "b"), (False, True)):
            with pytest.raises(NotFoundError):
                await store.get(key, sure=sure)

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
            await unreachable_store.list_keys("")
        with pytest.raises(UnavailableError):
            await unreachable_store.get_many(["a"])
        with pytest.raises(UnavailableError):
            await unreachable_store.extent()
        with pytest.raises(UnavailableError):
            await unreachable_store.changes(0)
        batches: list[list[Change]] = [
            [put("a")],
            [put("a"), put("b")],
            [put("a", 7), Delete(key="b")],
        ]
        for changes in batches:
            with pytest.raises(UnavailableError):
                await unreachable_store.batch(changes)
        with pytest.raises(UnavailableError):
            await unreachable_store.check()

    async def test_a_store_that_is_there_passes_its_check(self, store: RecordStore) -> None:
        await store.check()

        assert await records(store, "") == []

    @pytest.mark.parametrize(
        "key", ["", ".", "a.", ".a", "a..b", "../a", "a/b", "a*", ">", "a b", "é", "k" * 2049]
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
            *(store.put("a", b"%d" % n, expected=0) for n in range(RACERS)), return_exceptions=True
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
        revision = await store.put("a", b"short", expected=0, ttl=self.short)
        await store.put("b", b"long", expected=0)
        assert (await store.get("a")).value == b"short"

        await pass_time(self.short + LONGER)

        await gone(store, "a")
        with pytest.raises(NotFoundError):
            await store.get("a")
        assert [record.key for record in await records(store, "")] == ["b"]
        with pytest.raises(ConflictError):
            await store.put("a", b"late", expected=revision)
        assert await store.put("a", b"anew", expected=0) > revision

    async def test_a_record_written_again_without_a_time_to_live_stays(
        self, store: RecordStore, pass_time: Callable[[timedelta], Awaitable[None]]
    ) -> None:
        revision = await store.put("a", b"short", expected=0, ttl=self.short)
        await store.put("a", b"kept", expected=revision)

        await pass_time(self.short + LONGER)

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

    # Several at once

    async def test_a_batch_does_all_its_changes(self, store: RecordStore) -> None:
        changed = await store.put("changed", b"old", expected=0)
        await store.put("overwritten", b"old", expected=0)
        deleted = await store.put("deleted", b"old", expected=0)
        await store.put("removed", b"old", expected=0)
        await store.put("other", b"other", expected=0)

        revisions = await store.batch(
            [
                put("created.a"),
                put("changed", changed),
                Delete(key="deleted", expected=deleted),
                put("overwritten", None),
                Delete(key="removed"),
                put("created.b", None),
                Delete(key="never.there"),
            ]
        )

        written = ["created.a", "changed", "overwritten", "created.b"]
        assert await state(store) == {"other": b"other"} | dict.fromkeys(written, b"batched")
        assert revisions[1] > changed
        assert [revisions[n] for n in (2, 4, 6)] == [0, 0, 0]
        found = [(await store.get(key)).revision for key in written]
        assert found == [revisions[n] for n in (0, 1, 3, 5)]

    async def test_a_batch_of_one_is_a_change_like_any_other(self, store: RecordStore) -> None:
        (revision,) = await store.batch([put("a")])
        (over,) = await store.batch([put("a", None, b"again")])
        with pytest.raises(ConflictError):
            await store.batch([put("a", revision)])
        assert await state(store) == {"a": b"again"}

        assert await store.batch([Delete(key="a", expected=over)]) == [0]
        assert await store.batch([Delete(key="a")]) == [0]

        assert await state(store) == {}

    @pytest.mark.parametrize("place", [0, 1, 2])
    @pytest.mark.parametrize("failing", ["taken", "moved-on", "not-there", "delete"])
    async def test_a_condition_that_does_not_hold_refuses_the_whole_batch(
        self, store: RecordStore, place: int, failing: str
    ) -> None:
        old = await store.put("present", b"old", expected=0)
        await store.put("present", b"present", expected=old)
        await store.put("removed", b"kept", expected=0)
        before = await state(store)
        condition: dict[str, Change] = {
            "taken": put("present"),
            "moved-on": put("present", old),
            "not-there": put("nothing", 7),
            "delete": Delete(key="present", expected=old),
        }
        changes: list[Change] = [put("created"), Delete(key="removed")]
        changes.insert(place, condition[failing])

        with pytest.raises(ConflictError):
            await store.batch(changes)

        assert await state(store) == before
        assert await store.put("created", b"", expected=0) > 0

    async def test_what_a_batch_deleted_may_be_written_anew_by_a_batch(
        self, store: RecordStore
    ) -> None:
        first = await store.batch([put("a"), put("b")])
        await store.batch([Delete(key="a", expected=first[0]), Delete(key="b")])
        with pytest.raises(NotFoundError):
            await store.get("a")
        with pytest.raises(ConflictError):
            await store.batch([put("a", first[0]), put("c")])

        again = await store.batch([put("a"), put("b"), put("c")])

        assert again[0] > first[0]
        assert sorted(await state(store)) == ["a", "b", "c"]

    async def test_a_batch_with_a_time_to_live_goes_away_by_itself(
        self, store: RecordStore, pass_time: Callable[[timedelta], Awaitable[None]]
    ) -> None:
        short = Put(key="a", value=b"", expected=0, ttl=self.short)
        await store.batch([short, put("b")])

        await pass_time(self.short + LONGER)

        await gone(store, "a")
        assert list(await state(store)) == ["b"]
        assert [record.key for record in await store.get_many(["a", "b"])] == ["b"]

    async def test_a_large_batch_is_one_as_well(self, store: RecordStore) -> None:
        keys = [f"k.{number:04}" for number in range(66)]  # a snapshot with all its labels

        await store.batch([put(key) for key in keys])
        with pytest.raises(ConflictError):
            await store.batch([*(put(f"l.{number}") for number in range(65)), put(keys[7])])
        await store.batch([Delete(key=key) for key in keys])

        assert await state(store) == {}

    @pytest.mark.fault("P07")
    async def test_of_racing_batches_that_share_a_record_exactly_one_wins(
        self, store: RecordStore
    ) -> None:
        results = await asyncio.gather(
            *(
                store.batch([put(f"own.{n}"), put("shared", 0, b"%d" % n), put(f"too.{n}")])
                for n in range(RACERS)
            ),
            return_exceptions=True,
        )

        winners = [n for n, result in enumerate(results) if isinstance(result, list)]
        losers = [result for result in results if isinstance(result, ConflictError)]
        assert (len(winners), len(losers)) == (1, RACERS - 1), results
        own = f"{winners[0]}"
        assert sorted(await state(store)) == sorted(["shared", f"own.{own}", f"too.{own}"])
        assert (await store.get("shared")).value == own.encode()

    @pytest.mark.fault("P07")
    async def test_of_a_racing_batch_and_write_exactly_one_wins(self, store: RecordStore) -> None:
        for number in range(RACERS):
            revision = await store.put(f"n.{number}", b"before", expected=0)

            batch, write = await asyncio.gather(
                store.batch([put(f"m.{number}"), put(f"n.{number}", revision)]),
                store.put(f"n.{number}", b"written", expected=revision),
                return_exceptions=True,
            )

            value = (await store.get(f"n.{number}")).value
            if isinstance(write, int):
                assert isinstance(batch, ConflictError)
                assert value == b"written"
            else:
                assert isinstance(write, ConflictError)
                assert isinstance(batch, list)
                assert value == b"batched"
            created = [record.key for record in await store.get_many([f"m.{number}"])]
            assert created == ([f"m.{number}"] if isinstance(batch, list) else [])

    async def test_whoever_reads_one_change_of_a_batch_reads_all(self, store: RecordStore) -> None:
        revisions = await store.batch([put("a", value=b"0"), put("b", value=b"0")])
        writing = True

        async def write() -> None:
            nonlocal revisions, writing
            for number in range(1, 30):
                value = b"%d" % number
                changes = [put(key, old, value) for key, old in zip("ab", revisions, strict=True)]
                revisions = await store.batch(changes)
            writing = False

        async def read(first: str, second: str) -> None:
            while writing:
                early = await store.get(first)
                late = await store.get(second)
                assert int(late.value) >= int(early.value)

        await asyncio.gather(write(), read("a", "b"), read("b", "a"))

    @pytest.mark.parametrize(
        "changes",
        [
            [],
            [put(f"k{number}") for number in range(MAX_BATCH + 1)],
            [put("a"), put("b"), Delete(key="a")],
            [put("a"), put("a.*")],
        ],
        ids=["empty", "too-many", "twice", "no-key"],
    )
    async def test_a_batch_that_is_none_is_invalid(
        self, store: RecordStore, changes: list[Change]
    ) -> None:
        with pytest.raises(InvalidError):
            await store.batch(changes)

        assert await state(store) == {}

    async def test_many_records_come_in_the_order_they_were_asked_for(
        self, store: RecordStore
    ) -> None:
        for key in "abcd":
            await store.put(key, key.encode(), expected=0)
        await store.delete("b", expected=(await store.get("b")).revision)

        found = await store.get_many(["d", "nothing", "a", "b", "d", "c"])

        assert [(record.key, record.value) for record in found] == [
            ("d", b"d"),
            ("a", b"a"),
            ("c", b"c"),
        ]
        assert found[0] == await store.get("d")
        assert await store.get_many([]) == []
        assert await store.get_many(["nothing"]) == []

    async def test_as_many_records_as_may_be_are_read_at_once(self, store: RecordStore) -> None:
        keys = [f"{'k' * 250}.{'l' * 250}.{number:04}" for number in range(MAX_GET_MANY)]
        await store.batch([put(key) for key in keys[::128]])

        found = await store.get_many(keys)

        assert [record.key for record in found] == keys[::128]
        with pytest.raises(InvalidError):
            await store.get_many([*keys, "more"])
        with pytest.raises(InvalidError):
            await store.get_many(["a", "*"])

    async def test_the_keys_below_a_prefix_are_listed_in_order(self, store: RecordStore) -> None:
        keys = ["u", "u.b.c", "u.a", "ua", "u-.a", "ub.a", "v.u.a", "u.b.d", f"u.{LONGEST_KEY[2:]}"]
        for key in keys:
            await store.put(key, b"", expected=0)

        assert await store.list_keys("u") == sorted(key for key in keys if key.startswith("u."))
        assert await store.list_keys("u.b") == ["u.b.c", "u.b.d"]
        assert await store.list_keys("u.b.c") == []
        assert await store.list_keys("nothing") == []
        assert await store.list_keys("") == sorted(keys)
        for prefix in ("u.", ".", "*", "u.*", ">"):
            with pytest.raises(InvalidError):
                await store.list_keys(prefix)

    async def test_a_deleted_key_is_at_last_not_listed(
        self, store: RecordStore, clean_up: Callable[[], Awaitable[None]]
    ) -> None:
        revision = await store.put("u.a", b"", expected=0)
        await store.batch([put("u.b"), put("u.c")])
        await store.delete("u.a", expected=revision)
        await store.batch([Delete(key="u.b"), put("u.d")])
        assert {"u.c", "u.d"} <= set(await store.list_keys("u"))

        await clean_up()

        assert await store.list_keys("u") == ["u.c", "u.d"]

    async def test_what_was_deleted_for_good_is_not_there(self, store: RecordStore) -> None:
        revision = await store.put("u.a", b"", expected=0)
        await store.batch([put("u.b"), put("u.c")])
        await store.batch([Delete(key="u.a", expected=revision, for_good=True)])
        await store.batch([Delete(key="u.b", for_good=True)])

        assert [record.key for record in await store.get_many(["u.a", "u.b", "u.c"])] == ["u.c"]
        assert [record.key async for record in store.list_records("u")] == ["u.c"]
        for key in ("u.a", "u.b"):
            with pytest.raises(NotFoundError):
                await store.get(key)

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
