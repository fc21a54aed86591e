"""Records of snapshots: found by every label or none, pending or not, ended once."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.repository.pool import START, Time
from tests.repository.snapshot_records_tools import (
    LossyRecordStore,
    begin,
    key_at,
    pending,
    pending_keys,
    read,
)

from holdfast.domain.names import SnapshotKey, id_floor
from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.form.terms import SnapshotState
from holdfast.repository.ledger.lapses import Lapses
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.snapshots.lapses import CLIENT_STOPPED, WORKER_STOPPED, watched_snapshots
from holdfast.repository.snapshots.listing import SnapshotListing, SnapshotsPage, Wanted
from holdfast.repository.snapshots.record import (
    SNAPSHOT,
    StoredSnapshot,
    renewed,
    snapshot_name,
)
from holdfast.stores.memory import MemoryRecordStore

if TYPE_CHECKING:
    from collections.abc import Callable

SWEEP_SECONDS = 15.0


class Shelf:
    """Records in memory, and what reads them."""

    def __init__(self) -> None:
        self.time = Time()
        self.store = MemoryRecordStore(self.time.monotonic)
        self.records = Ledger(self.store)
        self.listing = SnapshotListing(self.records)
        self.active: set[str] = set()
        self.lapses = self.new_lapses()

    def new_lapses(self) -> Lapses:
        """The view of a worker that has just started: nothing."""
        return Lapses(
            self.records,
            watched_snapshots(
                self.records, clock=self.time.clock, is_ours=lambda key: key in self.active
            ),
            monotonic=self.time.monotonic,
            sweep_seconds=SWEEP_SECONDS,
        )

    async def add(
        self, app: str, minute: int, state: SnapshotState = "ok", **labels: str
    ) -> SnapshotKey:
        """A snapshot made in ``minute``."""
        held = await begin(self.records, pending(app, minute, labels=labels))
        if state != "pending":
            await self.records.update(held, ended(state))
        return held.record.key

    async def keys(self) -> list[str]:
        """Every key that is left."""
        return [record.key async for record in self.store.list_records("")]


def ended(state: SnapshotState) -> Callable[[StoredSnapshot], StoredSnapshot]:
    return partial(msgspec.structs.replace, state=state)


def found(page: SnapshotsPage) -> list[SnapshotKey]:
    return [record.key for record in page.snapshots]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def test_what_is_begun_is_pending_and_found_by_its_labels(shelf: Shelf) -> None:
    key = await shelf.add("shop", 1, "pending", release="1.4", stage="live")

    assert await pending_keys(shelf.records) == [key]
    for labels in ({"release": "1.4"}, {"stage": "live"}, {"release": "1.4", "stage": "live"}):
        page = await shelf.listing.page(Wanted(labels=labels), cursor=None, limit=10)
        assert found(page) == [key]


async def test_what_has_ended_is_not_pending_and_its_end_is_not_written_twice(
    shelf: Shelf,
) -> None:
    held = await begin(shelf.records, pending("shop", 1))
    done = await shelf.records.update(held, ended("ok"))

    with pytest.raises(ConflictError):
        await shelf.records.update(held, ended("failure"))

    assert await pending_keys(shelf.records) == []
    assert await read(shelf.records, held.record.key) == done


async def test_nothing_is_left_of_what_was_removed(shelf: Shelf) -> None:
    held = await begin(shelf.records, pending("shop", 1, labels={"a": "b", "c": "d"}))

    await shelf.records.remove(held)

    assert await shelf.keys() == []
    with pytest.raises(NotFoundError):
        await read(shelf.records, held.record.key)


async def test_what_was_removed_is_not_brought_back_by_who_was_at_work_on_it(
    shelf: Shelf,
) -> None:
    held = await begin(shelf.records, pending("shop", 1))
    await shelf.records.remove(held)

    with pytest.raises(ConflictError):
        await shelf.records.update(held, renewed)
    with pytest.raises(ConflictError):
        await shelf.records.update(held, ended("ok"))

    assert await shelf.keys() == []


@pytest.mark.fault("P05")
@pytest.mark.parametrize("applied", [True, False])
async def test_an_end_whose_answer_was_lost_is_written_once(shelf: Shelf, applied: bool) -> None:
    lossy = LossyRecordStore(shelf.store, applied=applied)
    records = Ledger(lossy)
    held = await begin(records, pending("shop", 1))

    lossy.lose_next()
    done = await records.update(held, ended("ok"))

    assert await read(shelf.records, held.record.key) == done
    assert await pending_keys(shelf.records) == []


@pytest.mark.fault("P05")
async def test_an_unknown_end_that_another_overtook_is_a_conflict(shelf: Shelf) -> None:
    lossy = LossyRecordStore(shelf.store, applied=False)
    records = Ledger(lossy)
    held = await begin(records, pending("shop", 1))
    await shelf.records.update(held, ended("failure"))

    lossy.lose_next()
    with pytest.raises(ConflictError):
        await records.update(held, ended("ok"))

    assert (await read(shelf.records, held.record.key)).record.state == "failure"


# --- leases ---


@pytest.mark.fault("S01")
@pytest.mark.parametrize(("owner", "reason"), [("w1", WORKER_STOPPED), ("", CLIENT_STOPPED)])
async def test_what_is_silent_for_its_lease_becomes_a_failure(
    shelf: Shelf, owner: str, reason: str
) -> None:
    held = await begin(shelf.records, pending("shop", 1, owner=owner))

    for seconds in (30, 29, 1):
        assert await shelf.lapses.sweep() == 0
        shelf.time.advance(seconds)
    assert await shelf.lapses.sweep() == 1

    record = (await read(shelf.records, held.record.key)).record
    assert (record.state, record.reason) == ("failure", reason)
    assert record.finished_at is not None
    assert await shelf.lapses.sweep() == 0


@pytest.mark.fault("P19")
async def test_what_is_renewed_goes_on_for_as_long_as_it_takes(shelf: Shelf) -> None:
    held = await begin(shelf.records, pending("shop", 1))

    for _ in range(10):
        for seconds in (30, 29):
            await shelf.lapses.sweep()
            shelf.time.advance(seconds)
        held = await shelf.records.update(held, renewed)
        assert await shelf.lapses.sweep() == 0

    assert (await read(shelf.records, held.record.key)).record.state == "pending"


@pytest.mark.fault("G05")
async def test_a_worker_that_has_just_started_gives_nothing_up(shelf: Shelf) -> None:
    await begin(shelf.records, pending("shop", 1))
    shelf.time.advance(100_000)

    newcomer = shelf.new_lapses()

    assert await newcomer.sweep() == 0


@pytest.mark.fault("P19")
async def test_time_in_which_nobody_could_look_ends_no_lease(shelf: Shelf) -> None:
    held = await begin(shelf.records, pending("shop", 1))
    await shelf.lapses.sweep()
    shelf.time.advance(20)
    await shelf.lapses.sweep()

    # The store is away for an hour: nobody renews, and nobody looks.
    shelf.time.advance(3600)

    assert await shelf.lapses.sweep() == 0
    assert (await read(shelf.records, held.record.key)).record.state == "pending"


async def test_what_this_worker_is_itself_at_work_on_is_not_given_up(shelf: Shelf) -> None:
    held = await begin(shelf.records, pending("shop", 1))
    shelf.active.add(held.key)
    swept = 0

    for _ in range(4):
        swept += await shelf.lapses.sweep()
        shelf.time.advance(30)

    assert swept == 0
    shelf.active.clear()
    assert await shelf.lapses.sweep() == 1


# --- beginnings ---


@pytest.mark.fault("P05")
@pytest.mark.parametrize("applied", [True, False])
async def test_a_beginning_whose_answer_was_lost_is_there_once_and_known(
    shelf: Shelf, applied: bool
) -> None:
    lossy = LossyRecordStore(shelf.store, applied=applied)
    records = Ledger(lossy)

    lossy.lose_next()
    held = await begin(records, pending("shop", 1, labels={"a": "b"}))

    assert await read(shelf.records, held.record.key) == held
    assert await pending_keys(shelf.records) == [held.record.key]


# --- lists ---


async def test_the_newest_comes_first(shelf: Shelf) -> None:
    first = await shelf.add("shop", 1)
    third = await shelf.add("blog", 3)
    second = await shelf.add("shop", 2)

    assert found(await shelf.listing.page(Wanted(), cursor=None, limit=10)) == [
        third,
        second,
        first,
    ]


async def test_all_conditions_hold_at_once(shelf: Shelf) -> None:
    wanted = await shelf.add("shop", 5, stage="live", release="1")
    await shelf.add("shop", 5, stage="live", release="2")
    await shelf.add("shop", 5, "failure", stage="live", release="1")
    await shelf.add("blog", 5, stage="live", release="1")
    await shelf.add("shop", 4, stage="live", release="1")
    await shelf.add("shop", 6, stage="live", release="1")

    page = await shelf.listing.page(
        Wanted(
            apps=["shop", "other"],
            labels={"stage": "live", "release": "1"},
            state="ok",
            since=id_floor(START + timedelta(minutes=5)),
            until=id_floor(START + timedelta(minutes=6)),
        ),
        cursor=None,
        limit=10,
    )

    assert found(page) == [wanted]
    assert page.cursor is None


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
@pytest.mark.parametrize("state", [None, "ok"])
async def test_pages_hold_everything_once(
    shelf: Shelf, limit: int, state: SnapshotState | None
) -> None:
    states: list[SnapshotState] = ["ok", "failure", "pending"]
    added = [await shelf.add(f"app{n % 3}", n // 2, states[n % 2]) for n in range(20)]

    seen: list[SnapshotKey] = []
    cursor = None
    while True:
        page = await shelf.listing.page(Wanted(state=state), cursor=cursor, limit=limit)
        assert len(page.snapshots) <= limit
        seen += found(page)
        cursor = page.cursor
        if cursor is None:
            break

    expected = added if state is None else added[::2]
    assert seen == sorted(expected, key=lambda key: (key.id, key.app), reverse=True)


@pytest.mark.fault("I10")
async def test_an_app_or_label_that_begins_like_another_is_not_that_one(shelf: Shelf) -> None:
    await shelf.add("shop.eu", 1, stage="live.now")
    key = await shelf.add("shop", 2, stage="live")

    by_app = await shelf.listing.page(Wanted(apps=["shop"]), cursor=None, limit=10)
    by_label = await shelf.listing.page(Wanted(labels={"stage": "live"}), cursor=None, limit=10)

    assert found(by_app) == found(by_label) == [key]


@pytest.mark.fault("I10")
@pytest.mark.parametrize(
    "labels",
    [{"owner:x": "y"}, {"": "y"}, {"a": ""}, {"a": "x\ny"}, {"a": "\ud800"}, {"a": "x" * 257}],
)
async def test_labels_of_the_wrong_shape_are_refused(shelf: Shelf, labels: dict[str, str]) -> None:
    with pytest.raises(InvalidError):
        await shelf.listing.page(Wanted(labels=labels), cursor=None, limit=10)


@pytest.mark.parametrize("cursor", ["", "x", "2", f"{key_at(1)}", f"{key_at(1)}.../x"])
async def test_a_foreign_cursor_is_refused(shelf: Shelf, cursor: str) -> None:
    with pytest.raises(InvalidError):
        await shelf.listing.page(Wanted(), cursor=cursor, limit=10)


async def test_one_unreadable_record_hides_no_other(shelf: Shelf) -> None:
    key = await shelf.add("shop", 1)
    bad = await shelf.add("shop", 2, "pending")
    store_key = f"s.shop.{bad.id}"
    present = await shelf.store.get(store_key)
    await shelf.store.put(store_key, b"{", expected=present.revision)

    assert found(await shelf.listing.page(Wanted(), cursor=None, limit=10)) == [key]
    assert await pending_keys(shelf.records) == []

    await shelf.records.remove_unreadable(SNAPSHOT, snapshot_name(bad))
    assert not [name for name in await shelf.keys() if bad.id in name]
