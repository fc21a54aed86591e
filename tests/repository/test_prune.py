"""Policies, applied by workers that know nothing of each other."""

from __future__ import annotations

import itertools
from datetime import UTC, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import structlog
from hypothesis import given
from hypothesis import strategies as st
from tests.contracts.prune import PruneContract
from tests.repository.pool import START
from tests.repository.retention_pool import APP, Archive, other_zones
from tests.repository.snapshot_records_tools import read

from holdfast.domain.retention import MAX_CLOCK_OFF, Retention
from holdfast.errors import ConflictError, InvalidError
from holdfast.repository.snapshots.retention.prune import REMOVED_PER_LOOK
from holdfast.repository.snapshots.retention.zones import packaged_zones
from holdfast.sources import utc_now
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.record_ports import Put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

LAST_TWO = Retention(last=2)
YEAR = timedelta(days=365)


async def test_a_run_removes_what_the_policy_does_not_keep() -> None:
    archive = Archive()
    keys = await archive.add_days(5)
    await archive.policies().change(APP, LAST_TWO, expected=0)

    await archive.worker().run()

    assert await archive.left() == keys[:2:-1]


async def test_a_dry_run_says_why_and_removes_nothing() -> None:
    archive = Archive()
    keys = await archive.add_days(3)

    pruned = await archive.worker().prune(APP, LAST_TWO, dry_run=True)

    assert [(fate.kept, fate.reasons) for fate in pruned.fates] == [
        (True, ("last",)),
        (True, ("last",)),
        (False, ("2 newer snapshots",)),
    ]
    assert (pruned.removed, pruned.stopped) == (set(), None)
    assert await archive.left() == keys[::-1]


async def test_the_default_holds_for_apps_without_a_policy_of_their_own() -> None:
    archive = Archive()
    for app in ("a", "b", "c"):
        for day in range(3):
            await archive.add(day, app=app)
    policies = archive.policies()
    await policies.change("", Retention(last=1), expected=None)
    await policies.change("b", LAST_TWO, expected=None)
    await policies.change("c", Retention(), expected=None)

    await archive.worker().run()

    assert [len(await archive.left(app)) for app in ("a", "b", "c")] == [1, 2, 3]


async def test_without_a_policy_nothing_is_removed() -> None:
    archive = Archive()
    await archive.add_days(3)
    policies = archive.policies()
    await policies.change(APP, LAST_TWO, expected=None)
    await policies.change(APP, None, expected=None)

    await archive.worker().run()
    pruned = await archive.worker().prune(APP)

    assert pruned.stopped == "there is no policy"
    assert len(await archive.left()) == 3


async def test_what_there_is_no_time_for_is_left_to_another_run() -> None:
    archive = Archive()
    await archive.add_days(REMOVED_PER_LOOK * 2)
    times = iter([True, False])

    pruned = await archive.worker().prune(APP, Retention(last=1), has_time=lambda: next(times))

    assert pruned.stopped == "the time of the request is over"
    assert len(pruned.removed) == len(await archive.left()) == REMOVED_PER_LOOK


async def test_only_what_is_ok_counts_and_goes() -> None:
    archive = Archive()
    good = [await archive.add(day) for day in range(3)]
    others = [await archive.add(3, state="failure"), await archive.add(4, state="pending")]

    await archive.worker().prune(APP, LAST_TWO)

    assert await archive.left() == [*others[::-1], good[2], good[1]]


async def test_what_is_held_stays_until_it_is_released() -> None:
    archive = Archive()
    keys = await archive.add_days(4)
    await archive.hold(keys[0], "audit")

    await archive.worker().prune(APP, LAST_TWO)
    assert keys[0] in await archive.left()

    await archive.hold(keys[0], None)
    await archive.worker().prune(APP, LAST_TWO)
    assert await archive.left() == keys[:1:-1]


async def test_records_that_cannot_be_read_stay_and_are_told_of() -> None:
    archive = Archive()
    keys = await archive.add_days(4)
    timeless = await archive.add(5)
    held = await read(archive.ledger, timeless)
    value = (await archive.store.get(held.key)).value.replace(b"2026-", b"soon-")
    await archive.store.batch([Put(key=held.key, value=value, expected=None)])
    broken = (await read(archive.ledger, keys[0])).key
    await archive.store.batch([Put(key=broken, value=b"{", expected=None)])

    pruned = await archive.worker().prune(APP, LAST_TWO)

    assert set(pruned.damaged) == {timeless, keys[0]}
    assert (await archive.store.get(broken)).value == b"{"
    assert await archive.left() == [timeless, keys[3], keys[2]]


# --- clocks and time zones ---


@pytest.mark.parametrize("off", [YEAR, -YEAR, timedelta(seconds=61), timedelta(seconds=-61)])
async def test_a_worker_whose_clock_is_off_removes_nothing_and_says_so(off: timedelta) -> None:
    archive = Archive()
    await archive.add_days(5)
    await archive.policies().change(APP, LAST_TWO, expected=0)
    worker = archive.worker(off=off)

    with structlog.testing.capture_logs() as logged:
        await worker.run()
    pruned = await worker.prune(APP)

    assert len(await archive.left()) == 5
    assert pruned.stopped is not None
    assert f"{abs(off.total_seconds()):.0f} s off" in pruned.stopped
    assert worker.advice() == [pruned.stopped]
    assert [entry["detail"] for entry in logged] == [pruned.stopped]


async def test_a_minute_is_not_off() -> None:
    archive = Archive()
    await archive.add_days(5)
    worker = archive.worker(off=timedelta(seconds=-60))

    await worker.prune(APP, LAST_TWO)

    assert len(await archive.left()) == 2
    assert worker.advice() == []


async def test_the_present_is_the_stores_not_the_workers() -> None:
    archive = Archive()
    keys = [await archive.add(day) for day in range(2)]
    ahead = archive.time.clock() + MAX_CLOCK_OFF + timedelta(seconds=30)
    dated = await archive.add(29, dated=ahead)

    await archive.worker(off=timedelta(seconds=59)).prune(APP, Retention(last=1))

    assert await archive.left() == [dated, keys[1]]


@given(
    st.lists(st.integers(0, 29), min_size=1, max_size=8),
    st.lists(st.integers(0, 400), max_size=4),
    st.sampled_from([LAST_TWO, Retention(daily=3), Retention(within="5d", weekly=2)]),
)
async def test_what_clocks_a_year_ahead_have_dated_costs_no_snapshot_that_is_dated_right(
    days: list[int], ahead: list[int], policy: Retention
) -> None:
    right, both = Archive(), Archive()
    for day in sorted(days):
        await right.add(day)
        await both.add(day)
    for day in ahead:
        await both.add(29.5, dated=START + timedelta(days=365 + day))

    await right.worker().prune(APP, policy)
    await both.worker().prune(APP, policy)

    kept = {key.id[:13] for key in await right.left()}
    assert kept <= {key.id[:13] for key in await both.left()}
    assert len(await both.left()) >= len(await right.left()) + len(ahead) - 1


async def test_a_worker_with_older_time_zones_removes_nothing_and_says_so() -> None:
    archive = Archive()
    for hour in (22.5, 23.5, 25):
        await archive.add(hour / 24)
    policy = Retention(daily=2, time_zone="Europe/Berlin")
    await archive.policies().change(APP, policy, expected=0)

    old = archive.worker(zones=other_zones("2020.1", timezone(timedelta(hours=-10))))
    pruned = await old.prune(APP)

    assert len(await archive.left()) == 3
    assert pruned.stopped is not None
    assert "time zones" in pruned.stopped


async def test_once_a_worker_with_later_time_zones_has_run_older_ones_remove_nothing() -> None:
    archive = Archive()
    await archive.add_days(3)
    old = other_zones("2020.1", UTC)
    policy = Retention(last=2, time_zone="Europe/Berlin")
    made = await archive.policies(old).change(APP, policy, expected=0)
    assert (await archive.worker(zones=old).prune(APP)).stopped is None

    await archive.worker().prune(APP)
    await archive.add(4)
    pruned = await archive.worker(zones=old).prune(APP)

    assert pruned.stopped is not None
    assert len(await archive.left()) == 3
    assert (await archive.policies().of(APP)).revision > made.revision


async def test_where_days_are_those_of_utc_time_zones_do_not_matter() -> None:
    archive = Archive()
    await archive.add_days(3)
    await archive.policies().change(APP, LAST_TWO, expected=0)

    await archive.worker(zones=other_zones("2020.1", UTC)).prune(APP)

    assert len(await archive.left()) == 2


def test_zones_are_those_that_came_with_the_program() -> None:
    zones = packaged_zones()

    assert str(zones.find("Europe/Berlin")) == "Europe/Berlin"
    for name in ("Nowhere/City", "../zones", "", "/etc/localtime"):
        with pytest.raises(InvalidError):
            zones.find(name)


# --- policies ---


async def test_a_policy_is_changed_only_at_the_revision_that_was_seen() -> None:
    policies = Archive().policies()
    first = await policies.change(APP, LAST_TWO, expected=0)

    with pytest.raises(ConflictError):
        await policies.change(APP, Retention(last=1), expected=0)
    assert await policies.change(APP, LAST_TWO, expected=0) == first  # a repeat
    second = await policies.change(APP, Retention(last=1), expected=first.revision)

    assert (await policies.of(APP)) == second
    assert second.revision > first.revision
    assert (await policies.of("other")).keep is None


@pytest.mark.parametrize(
    "policy", [Retention(last=-1), Retention(within="x"), Retention(time_zone="Nowhere/City")]
)
async def test_a_policy_that_is_none_is_refused(policy: Retention) -> None:
    policies = Archive().policies()

    with pytest.raises(InvalidError):
        await policies.change(APP, policy, expected=None)

    assert (await policies.of(APP)).revision == 0


# --- side by side ---


class TestPruningInMemory(PruneContract):
    @pytest.fixture
    def archives(self) -> Callable[[], Archive]:
        return Archive


@pytest.mark.long
class TestPruningOnDisk(PruneContract):
    every = 4

    @pytest_asyncio.fixture
    async def archives(self, tmp_path: Path) -> AsyncIterator[Callable[[], Archive]]:
        create_record_store(tmp_path)
        store = DiskRecordStore(tmp_path, clock=utc_now)
        numbers = itertools.count()
        yield lambda: Archive(store, clock=utc_now, app=f"shop{next(numbers)}")
        await store.aclose()
