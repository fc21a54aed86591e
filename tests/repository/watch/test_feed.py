"""Many watch one feed: each has every step, at the cost of one reader."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from tests.repository.watch.replicas import Replicas
from tests.repository.watch.scribe import Scribe

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, HoldfastError, InvalidError, UnavailableError
from holdfast.repository.watch.events import BlobEvents, RecordEvents, name_events, snapshot_events
from holdfast.repository.watch.feed import MAX_KEPT, Feed
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.ports import Attributes
from holdfast.stores.record_ports import Changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.repository.watch.events import Event, Events, IsNew
    from holdfast.repository.watch.feed import Watching
    from holdfast.stores.record_ports import Extent

SECONDS = 20.0
AT = datetime(2026, 3, 1, tzinfo=UTC)


class Counted(Replicas):
    """Counts how often it is asked how far it has come."""

    asked = 0
    failure: HoldfastError | None = None

    async def extent(self) -> Extent:
        """See `Replicas`."""
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return await super().extent()

    async def read(self, after: int, is_new: IsNew) -> Events:
        """See `Replicas`."""
        await asyncio.sleep(0)
        return await super().read(after, is_new)


async def take(watching: Watching, count: int) -> list[Event]:
    """The next ``count`` events."""
    had: list[Event] = []
    async with asyncio.timeout(SECONDS):
        while len(had) < count:
            batch = await watching.next(SECONDS)
            had.extend(batch.events if batch is not None else ())
    return had


def revisions(events: list[Event]) -> list[int]:
    return [event.revision for event in events]


async def test_a_hundred_who_watch_cost_one_reader() -> None:
    source = Counted()
    feed = Feed(source)
    watching = [await feed.begin() for _ in range(100)]
    taking = [asyncio.create_task(take(one, 30)) for one in watching]
    assert source.asked == 100
    source.asked = 0

    for name in "abc" * 10:
        source.log.append(name)
        await asyncio.sleep(0.01)
    had = await asyncio.gather(*taking)

    assert [revisions(events) for events in had] == [list(range(1, 31))] * 100
    assert source.asked < 500
    for one in watching:
        one.close()


async def test_nothing_is_read_once_nobody_watches() -> None:
    source = Counted(log=["a"])
    feed = Feed(source)
    with closing(await feed.begin(since=0)) as watching:
        await take(watching, 1)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(others) == 1

    await asyncio.wait(others)
    assert all(task.cancelled() for task in others)


async def test_whoever_comes_from_far_back_catches_up_and_joins() -> None:
    source = Counted(log=list("ab" * 50), limit=lambda: 1)
    feed = Feed(source)
    with closing(await feed.begin()) as first, closing(await feed.begin(since=10)) as second:
        joined = asyncio.create_task(take(first, 1))
        had = await take(second, 90)
        source.log.append("c")

        assert revisions(await take(second, 1)) == revisions(await joined) == [101]
    assert sorted(set(revisions(had))) == list(range(11, 101))


async def test_whoever_comes_a_moment_late_has_what_was_kept() -> None:
    source = Counted()
    feed = Feed(source)
    with closing(await feed.begin()) as first:
        source.log.extend("abcab")
        await take(first, 5)
        with closing(await feed.begin(since=2)) as second:
            assert revisions(await take(second, 3)) == [3, 4, 5]


async def test_whoever_falls_behind_what_is_kept_goes_on_alone() -> None:
    source = Counted()
    feed = Feed(source)
    with closing(await feed.begin()) as quick, closing(await feed.begin()) as slow:
        source.log.append("a")
        assert revisions(await take(slow, 1)) == [1]
        for _ in range(3):
            source.log.extend(f"n{number}" for number in range(MAX_KEPT // 2 + 1))
            source.limit = lambda: MAX_KEPT
            await take(quick, MAX_KEPT // 2 + 1 if quick.point.position else MAX_KEPT // 2 + 2)

        had = await take(slow, len(source.log) - 1)

    assert set(revisions(had)) == set(range(2, len(source.log) + 1))


async def test_a_feed_that_is_stopped_lets_all_go_at_once() -> None:
    feed = Feed(Counted())
    with closing(await feed.begin()) as watching:
        waiting = asyncio.create_task(watching.next(SECONDS))
        await asyncio.sleep(0)

        feed.stop()

        async with asyncio.timeout(SECONDS / 2):
            assert await waiting is None
    with pytest.raises(UnavailableError):
        await feed.begin()


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(UnavailableError("no leader"), UnavailableError), (None, ConflictError)],
    ids=["cannot be read", "was made anew"],
)
async def test_a_store_that_fails_ends_every_watch_and_hinders_no_new_one(
    failure: HoldfastError | None, kind: type[HoldfastError]
) -> None:
    source = Counted(log=["a"])
    feed = Feed(source)
    watching = [await feed.begin(since=0) for _ in range(3)]
    for one in watching:
        await take(one, 1)

    source.failure = failure
    source.created = source.created if failure else "another"
    for one in watching:
        with pytest.raises(kind):
            await take(one, 1)
        one.close()

    source.failure = None
    with closing(await feed.begin(since=0)) as again:
        assert revisions(await take(again, 1)) == [1]


async def test_a_cursor_of_another_store_is_a_conflict() -> None:
    source = Replicas(log=["a"])
    feed = Feed(source)
    cursor = (await feed.begin()).point.cursor

    source.created = "another"

    with pytest.raises(ConflictError, match="list what is there"):
        await feed.begin(cursor=cursor)


async def test_what_no_watch_can_begin_with_is_invalid() -> None:
    feed = Feed(Replicas(log=["a"]))
    cursor = (await feed.begin()).point.cursor

    with pytest.raises(InvalidError, match="beyond the end, which is 1"):
        await feed.begin(since=2)
    with pytest.raises(InvalidError, match="not from both"):
        await feed.begin(since=0, cursor=cursor)
    with pytest.raises(InvalidError):
        await feed.begin(cursor="1.1.1")


async def test_each_step_of_a_name_is_told_however_often_it_was_rewritten() -> None:
    records = MemoryRecordStore(lambda: 0.0)
    scribe = Scribe(records)
    feed = Feed(RecordEvents(records, name_events))
    await scribe.step("a/b", "pending")
    with closing(await feed.begin()) as watching:
        for state in ("ok", "deleted", "pending", "failure"):
            await scribe.step("a/b", state)
        had = await take(watching, 4)

    assert revisions(had) == scribe.taken["a/b"][1:]
    assert [event.state for event in had] == ["ok", "deleted", "pending", "failure"]
    assert {event.subject for event in had} == {"a/b"}
    assert not any("missed" in event.data for event in had)


async def test_where_more_steps_were_taken_than_are_kept_the_first_event_says_so() -> None:
    records = MemoryRecordStore(lambda: 0.0)
    scribe = Scribe(records)
    feed = Feed(RecordEvents(records, name_events))
    for _ in range(20):
        await scribe.step("a")
    with closing(await feed.begin(since=0)) as watching:
        had = await take(watching, 16)

    assert revisions(had) == scribe.taken["a"][4:]
    assert [event.data.get("missed") for event in had] == [True, *[None] * 15]


async def test_a_blob_that_was_touched_is_told_as_put_when_it_was_and_once() -> None:
    blobs = MemoryBlobStore()
    data = b"a blob"
    attributes = Attributes(type="text/plain", created_at=AT)
    await blobs.put(digest_of(data), data, attributes)
    await blobs.touch(digest_of(data), unless_seen_since=AT + timedelta(days=1))
    feed = Feed(BlobEvents(blobs))
    with closing(await feed.begin(since=0)) as watching:
        told = await take(watching, 1)
        await blobs.touch(digest_of(data), unless_seen_since=AT + timedelta(days=1))
        await blobs.delete(digest_of(data))
        told += await take(watching, 1)

    assert [(event.state, event.revision) for event in told] == [("put", 1), ("deleted", 4)]
    assert {event.subject for event in told} == {digest_of(data)}


async def test_a_record_that_is_unreadable_hides_no_other() -> None:
    records = MemoryRecordStore(lambda: 0.0)
    feed = Feed(RecordEvents(records, name_events))
    await records.put("n.a", b"{", expected=0)
    await records.put("v.a.=v1", b"{}", expected=0)
    await records.put("n.=ZZ", b"{}", expected=0)
    await Scribe(records).step("b")

    with closing(await feed.begin(since=0)) as watching:
        assert [event.subject for event in await take(watching, 1)] == ["b"]


async def test_a_name_whose_record_was_removed_is_told_as_deleted() -> None:
    records = MemoryRecordStore(lambda: 0.0)
    revision = await Scribe(records).step("a//")
    await records.delete("n.a.=.=", expected=revision)
    feed = Feed(RecordEvents(records, name_events))

    with closing(await feed.begin(since=revision)) as watching:
        event = (await take(watching, 1))[0]

    assert (event.subject, event.state) == ("a//", "deleted")


@pytest.mark.parametrize("events", [name_events, snapshot_events])
def test_a_foreign_key_that_is_a_prefix_alone_is_no_step_of_anything(
    events: Callable[[Changed, IsNew], Iterator[Event]],
) -> None:
    foreign = [Changed(key=key, revision=3, value=b"{}", at=AT) for key in ("n", "s", "p")]

    assert [list(events(one, lambda _: True)) for one in foreign] == [[], [], []]
