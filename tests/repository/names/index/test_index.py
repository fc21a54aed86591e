"""The index tells what was acknowledged before, of any store, and is built anew when in doubt."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples
from tests.repository.names.index.index_tools import (
    Names,
    Replicas,
    UnsafeRecordStore,
    announcement,
    content,
    digest,
    listed,
    listed_once_rebuilt,
    page,
    running,
)

from holdfast.deadline import deadline
from holdfast.domain.blob_names import name_key
from holdfast.errors import UnavailableError
from holdfast.repository.names.index.table import PendingWrite
from holdfast.repository.names.record import Keep

if TYPE_CHECKING:
    from holdfast.repository.names.index.index import NameIndex
    from holdfast.stores.record_ports import Extent, RecordStore

WRITERS = 4
WRITES = 15


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  (a choice of what happens)


async def test_names_from_before_and_after_the_start_are_listed_in_order(
    store: RecordStore,
) -> None:
    names = Names(store)
    await names.write("b/2")
    await names.write("\u00e9")
    async with running(store) as index:
        await names.write("a.b")
        await names.write("b/1")

        assert await listed(index) == ["a.b", "b/1", "b/2", "\u00e9"]
        found = await page(index, delimiter="/")
        assert ([entry.name for entry in found.names], found.prefixes) == (
            ["a.b", "\u00e9"],
            ["b/"],
        )


async def test_a_name_is_listed_as_it_was_written_last(store: RecordStore) -> None:
    names = Names(store)
    async with running(store) as index:
        await names.write("a", "pending")
        assert [entry.state for entry in (await page(index)).names] == ["pending"]
        await names.write("a", version=3)
        assert [entry.version for entry in (await page(index)).names] == [3]
        await names.write("a", "deleted")
        assert await listed(index) == []
        await names.write("a", version=4)
        assert [entry.version for entry in (await page(index)).names] == [4]

        assert (index.state.names, index.state.rebuilt) == (1, 0)


async def test_a_list_has_what_was_acknowledged_before_it_while_others_write(
    store: RecordStore,
) -> None:
    async with running(store) as index:

        async def write(writer: int) -> None:
            names = Names(store)
            for number in range(WRITES):
                await names.write(f"{writer}/{number}")
                await names.write(f"{writer}/0", version=number + 1)
                found = {entry.name: entry for entry in (await page(index)).names}
                assert f"{writer}/{number}" in found
                assert found[f"{writer}/0"].version >= number + 1

        async with asyncio.TaskGroup() as tasks:
            for writer in range(WRITERS):
                tasks.create_task(write(writer))

        assert len(await listed(index)) == WRITERS * WRITES
        assert index.state.rebuilt == 0


async def test_what_is_read_page_by_page_is_whole_though_it_is_written_again_meanwhile() -> None:
    store = Replicas(seeded(1))
    names = Names(store)
    for number in range(10):
        await names.write(f"k{number}")

    async def write_again() -> None:
        store.meanwhile = None
        await names.write("k7", version=2)

    store.meanwhile = write_again
    async with running(store) as index:
        assert await listed(index) == [f"k{number}" for number in range(10)]


@examples(200)
@given(st.integers(0, 2**32))
def test_a_list_has_what_was_acknowledged_before_it_however_replicas_lag(seed: int) -> None:
    asyncio.run(lists_lack_nothing(seeded(seed)))


async def lists_lack_nothing(rng: random.Random) -> None:
    store = Replicas(rng)
    names = Names(store)
    acknowledged: dict[str, int] = {}

    async def write() -> None:
        name = f"n{rng.randrange(8)}"
        version = acknowledged.get(name, 0) + 1
        await names.write(name, version=version)
        acknowledged[name] = version

    async def perhaps_write() -> None:
        if rng.random() < 0.3:
            await write()

    for _ in range(rng.randrange(10)):
        await write()
    store.meanwhile = perhaps_write
    async with running(store) as index:
        for _ in range(6):
            await write()
            before = dict(acknowledged)

            found = {entry.name: entry.version for entry in (await page(index)).names}

            assert {name: found.get(name, 0) >= version for name, version in before.items()} == (
                dict.fromkeys(before, True)
            )
        assert index.state.rebuilt == 0


async def test_lists_at_one_time_ask_the_store_together() -> None:
    class Asked(UnsafeRecordStore):
        times = 0

        async def extent(self) -> Extent:
            self.times += 1
            return await super().extent()

    store = Asked()
    async with running(store) as index:
        await listed(index)
        before = store.times

        await asyncio.gather(*(listed(index) for _ in range(100)))

        assert store.times - before < 10


async def test_before_it_is_built_the_index_is_unavailable() -> None:
    async with running(UnsafeRecordStore(), ready=False) as index:
        with pytest.raises(UnavailableError):
            await listed(index)
        with pytest.raises(UnavailableError):
            await index.keeps(digest(1))

        await index.wait_ready()
        assert await listed(index) == []


async def test_an_index_that_was_closed_is_unavailable() -> None:
    async with running(UnsafeRecordStore()) as index:
        waiting = asyncio.create_task(listed(index))
        await asyncio.sleep(0)
        await index.aclose()
        await index.aclose()

        for work in (waiting, listed(index), index.pending()):
            with pytest.raises(UnavailableError):
                await work


async def test_while_the_store_is_away_lists_are_unavailable_and_then_go_on() -> None:
    store = UnsafeRecordStore()
    async with running(store) as index:
        store.reachable = False
        with pytest.raises(UnavailableError):
            await listed(index)

        store.reachable = True
        await Names(store).write("a")
        assert await once_available(index) == ["a"]
        assert index.state.rebuilt == 0


async def once_available(index: NameIndex) -> list[str]:
    while True:
        try:
            return await listed(index)
        except UnavailableError:
            await asyncio.sleep(0)


async def test_a_list_that_waits_for_a_store_gives_up_at_its_deadline() -> None:
    store = Replicas(seeded(1))
    async with running(store) as index:
        hanging = asyncio.Event()

        async def hang() -> None:
            await hanging.wait()

        store.meanwhile = hang
        await Names(store).write("a")
        with deadline(0.01), pytest.raises(UnavailableError):
            await listed(index)

        hanging.set()
        assert await listed(index) == ["a"]


async def test_an_index_of_a_store_that_was_made_anew_is_built_anew() -> None:
    store = UnsafeRecordStore()
    await Names(store).write("old")
    async with running(store) as index:
        store.make_anew()
        await Names(store).write("new")

        assert await listed_once_rebuilt(index) == ["new"]
        assert index.state.rebuilt == 1


async def test_an_index_of_a_store_that_lost_its_end_is_built_anew() -> None:
    store = UnsafeRecordStore()
    names = Names(store)
    await names.write("a")
    await names.write("b")
    async with running(store) as index:
        store.fall_back(1)

        assert await listed_once_rebuilt(index) == ["a"]


async def test_an_index_is_built_anew_where_another_end_took_the_place_of_the_lost_one() -> None:
    store = UnsafeRecordStore()
    names = Names(store)
    await names.write("a")
    await names.write("b")
    async with running(store) as index:
        assert await listed(index) == ["a", "b"]

        store.fall_back(1)
        await names.write("c")
        await names.write("d")

        assert await listed_once_rebuilt(index) == ["a", "c", "d"]


async def test_an_index_is_built_anew_where_records_were_lost_or_came_back() -> None:
    store = UnsafeRecordStore()
    names = Names(store)
    for name in "abc":
        await names.write(name)
    async with running(store) as index:
        lost = store.lose("n.b")
        assert await listed_once_rebuilt(index) == ["a", "c"]

        store.bring_back(lost)
        assert await listed_once_rebuilt(index) == ["a", "b", "c"]


@examples(60)
@given(st.integers(0, 2**32))
def test_an_index_is_never_built_anew_for_what_was_removed_properly(seed: int) -> None:
    asyncio.run(nothing_is_doubted(seeded(seed)))


async def nothing_is_doubted(rng: random.Random) -> None:
    store = UnsafeRecordStore()
    names = Names(store)
    there: set[str] = set()
    async with running(store) as index:
        for _ in range(40):
            key = rng.choice(["r.rules", "v.a.=v1", "v.a.=v2", "n.a", "n.b"])
            what = rng.choice(["put", "put", "remove", "forget", "list"])
            if what == "put":
                await names.put(key, b"{}")
                there.add(key)
            elif what == "remove" and key in there:
                await names.remove(key)
                there.remove(key)
            elif what == "forget":
                await listed(index)  # notes outlast the second between two rounds
                store.forget_removals()
            else:
                await listed(index)
        await listed(index)
        await listed(index)

        assert index.state.rebuilt == 0


async def test_what_cannot_be_read_hides_no_other_and_may_need_any_blob() -> None:
    store = UnsafeRecordStore()
    names = Names(store)
    await names.write("a")
    await names.write("c")
    async with running(store) as index:
        assert not await index.keeps(digest(1))

        for key, value in (
            ("n.a", b"{"),
            ("n.b", b'{"name":"other","state":"ok"}'),
            ("n.d", b'{"name":"d","state":"ok","modified_at":"yesterday"}'),
            ("n.e", b'{"name":"e","state":"ok","version":1e300}'),
            ("n.f", b'{"name":"f","state":"ok","content":{"digest":"ab","size":1,"type":"t"}}'),
            ("n.=4", b"{}"),
            ("v.c", b"{}"),
            ("v.c.=v1", b"{}"),
        ):
            await names.put(key, value)
            assert await listed(index) == ["c"]
        assert await index.keeps(digest(1))

        await names.write("a")
        assert await listed(index) == ["a", "c"]


async def test_a_foreign_key_that_is_a_prefix_alone_is_nobodys_and_counted(
    store: RecordStore,
) -> None:
    names = Names(store)
    await names.write("a")
    await names.put("v", b"{}")
    async with running(store) as index:
        await names.put("n", b"{}")

        assert await listed(index) == ["a"]
        assert index.state.rebuilt == 0


async def test_names_tell_which_of_them_have_a_blob(store: RecordStore) -> None:
    names = Names(store)
    async with running(
        store, keep=lambda n: Keep(expire_seconds=1 if n == "old" else None)
    ) as index:
        for name in ("b", "a", "c", "old"):
            await names.write(name, content=content(1))
        await names.write("other", content=content(2))
        await names.write("c", "deleted", content=None)

        assert await index.names_of(digest(1), 10) == ["a", "b"]
        assert await index.names_of(digest(1), 1) == ["a"]
        assert await index.names_of(digest(3), 10) == []


async def test_a_blob_is_kept_by_a_name_that_has_it_though_it_has_expired(
    store: RecordStore,
) -> None:
    names = Names(store)
    async with running(store, keep=lambda _name: Keep(expire_seconds=1)) as index:
        assert not await index.keeps(digest(1))

        await names.write("a", content=content(1))
        assert await index.keeps(digest(1))

        await names.write("a", content=content(2))
        assert not await index.keeps(digest(1))


async def test_a_blob_is_kept_by_an_announcement_of_any_name(store: RecordStore) -> None:
    names = Names(store)
    async with running(store) as index:
        await names.write("a", pending=(announcement(None), announcement(1)))
        await names.write("gone", "deleted", content=None, pending=(announcement(2),))
        assert [await index.keeps(digest(number)) for number in (1, 2, 3)] == [True, True, False]

        await names.write("a")
        await names.write("gone", "deleted", content=None)
        assert [await index.keeps(digest(number)) for number in (1, 2)] == [False, False]


async def test_a_blob_is_kept_by_a_version_that_counts(store: RecordStore) -> None:
    names = Names(store)
    async with running(store) as index:
        for version in (1, 2, 3, 4):
            await names.write_version("a", version, version)
        await names.write("a", version=3, oldest=2, content=content(30))
        kept = [await index.keeps(digest(version)) for version in (1, 2, 3, 4)]
        assert kept == [False, True, False, False]

        await names.write("a", "deleted", version=3, oldest=2, content=None)
        assert await index.keeps(digest(3))

        await names.remove("v.a.=v3")
        assert not await index.keeps(digest(3))


async def test_what_is_announced_is_told_of_names_changed_longest_ago_first(
    store: RecordStore,
) -> None:
    names = Names(store)
    async with running(store) as index:
        await names.write("b", "pending", pending=(announcement(1), announcement(2)))
        await names.write("a", pending=(announcement(None),))
        await names.write("c", "deleted", content=None, pending=(announcement(None),))
        await names.write("d")
        await listed(index)

        found = await index.pending()

        assert [one.name for one in found] == ["b", "b", "a", "c"]
        first = announcement(1)
        assert found[0] == PendingWrite(name="b", op=first.op, at=first.at)


async def test_the_state_tells_how_far_the_index_is(store: RecordStore) -> None:
    async with running(store) as index:
        await Names(store).write("a")
        await listed(index)

        state = index.state
        last = (await store.extent()).last
        assert (state.is_ready, state.names, state.position, state.last) == (True, 1, last, last)


async def test_a_name_that_needs_every_escape_is_listed_as_it_was_given(
    store: RecordStore,
) -> None:
    names = Names(store)
    given = sorted(["/a", "a//b", "a/", ".", "..", "=", "e\u0301", "\u00e9", " ", "*>", "\x00"])
    for name in given:
        await names.write(name)
        assert name_key(name)

    async with running(store) as index:
        assert await listed(index) == sorted(given, key=str.encode)
