"""The disk record store beyond the contract: expiry, damage, files, refusals."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
from collections import Counter
from contextlib import aclosing, closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from tests.stores.disk_tools import FakeClock, damage_record, in_database, record_store

from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    NotFoundError,
    UnavailableError,
)
from holdfast.stores.disk import database as disk_database
from holdfast.stores.disk.database import DATABASE, create_record_store
from holdfast.stores.disk.files import create_disk_store
from holdfast.stores.disk.records import PAGE_RECORDS, SWEPT_AT_ONCE, DiskRecordStore
from holdfast.stores.record_ports import Delete, Put

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from holdfast.stores.record_ports import Change

GRACE = timedelta(hours=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(root: Path, clock: FakeClock) -> AsyncGenerator[DiskRecordStore]:
    async with record_store(root, clock=clock) as store:
        yield store


def rows(root: Path) -> list[str]:
    """The key of every row, also of those that a store would not show."""
    return [row[0] for row in in_database(root, "SELECT key FROM records ORDER BY key")]


def names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def move(source: Path, target: Path) -> None:
    source.rename(target)


def unmount(root: Path) -> None:
    """Leave an empty mount point."""
    root.rename(root.with_name("unmounted"))
    root.mkdir()


# What is kept, and for how long


async def test_only_the_present_revision_is_kept(root: Path, store: DiskRecordStore) -> None:
    revision = 0
    for n in range(5):
        revision = await store.put("a", b"%d" % n, expected=revision)

    assert in_database(root, "SELECT revision, value FROM records") == [(revision, b"4")]


async def test_a_deleted_record_leaves_a_note_until_the_grace_time_has_passed(
    root: Path, store: DiskRecordStore, clock: FakeClock
) -> None:
    await store.delete("a", expected=await store.put("a", b"value", expected=0))
    await store.put("b", b"kept", expected=0)
    await store.batch([Put(key="c", value=b"", expected=0), Put(key="d", value=b"", expected=0)])
    await store.batch([Delete(key="c"), Delete(key="d", for_good=True)])
    deleted = "SELECT key, value FROM records WHERE key <> 'b' ORDER BY key"
    assert in_database(root, deleted) == [("a", b""), ("c", b""), ("d", b"")]
    assert await store.list_keys("") == ["b"]

    assert await store.sweep(clock.now, GRACE) == 0
    clock.pass_time(GRACE)
    assert await store.sweep(clock.now, GRACE) == 2

    assert rows(root) == ["b", "d"]
    assert (await store.extent()).keys == 2


async def test_an_expired_record_leaves_nothing_once_the_grace_time_has_passed(
    root: Path, store: DiskRecordStore, clock: FakeClock
) -> None:
    await store.put("a", b"", expected=0, ttl=timedelta(seconds=10))
    await store.put("b", b"", expected=0)

    assert await store.sweep(clock.now + GRACE, GRACE) == 0
    clock.pass_time(timedelta(seconds=11))
    assert rows(root) == ["a", "b"]
    assert await store.sweep(clock.now + GRACE, GRACE) == 1

    assert rows(root) == ["b"]


async def test_more_expired_records_than_are_swept_at_once_are_all_swept(
    root: Path, store: DiskRecordStore, clock: FakeClock
) -> None:
    ttl = timedelta(seconds=1)
    for first in range(0, 2 * SWEPT_AT_ONCE, SWEPT_AT_ONCE):
        keys = [f"k{first + number}" for number in range(SWEPT_AT_ONCE)]
        await store.batch([Put(key=key, value=b"", expected=0, ttl=ttl) for key in keys])

    clock.pass_time(timedelta(days=1))

    assert await store.sweep(clock.now, GRACE) == 2 * SWEPT_AT_ONCE
    assert rows(root) == []


async def test_a_listing_of_more_than_a_page_has_each_record_once_and_in_order(
    store: DiskRecordStore, clock: FakeClock
) -> None:
    keys = [f"u.{number:04}" for number in range(2 * PAGE_RECORDS)]
    await store.batch([Put(key=key, value=b"", expected=0) for key in ["u", *keys, "u-.a", "v"]])
    short = Put(key=keys[-1], value=b"", expected=None, ttl=timedelta(seconds=1))
    await store.batch([short])
    clock.pass_time(timedelta(seconds=2))

    assert [record.key async for record in store.list_records("u")] == ["u", *keys[:-1]]


async def test_a_record_is_found_while_it_is_rewritten_all_the_time(store: DiskRecordStore) -> None:
    revision = await store.put("a", b"0", expected=0)
    writing = True

    async def rewrite() -> None:
        nonlocal revision, writing
        for n in range(100):
            revision = await store.put("a", b"%d" % n, expected=revision)
        writing = False

    async def read() -> None:
        last = -1
        while writing:
            value = int((await store.get("a")).value)
            assert value >= last
            last = value

    await asyncio.gather(rewrite(), read(), read())


class Midway(timedelta):
    """A time to live that does something when it is looked at, in the midst of a batch."""

    happens: Callable[[], None]

    def __floordiv__(self, _other: Any) -> Any:
        self.happens()
        return 10**9


def midway(happens: Callable[[], None]) -> list[Change]:
    """A batch in the midst of which something ``happens``: two of its changes were made."""
    ttl = Midway(seconds=1000)
    ttl.happens = happens
    return [
        Put(key="a", value=b"new", expected=None),
        Delete(key="b"),
        Put(key="c", value=b"new", expected=0, ttl=ttl),
    ]


async def test_readers_between_see_nothing_of_a_batch_that_is_not_committed(
    root: Path, store: DiskRecordStore
) -> None:
    await store.batch([Put(key=key, value=b"old", expected=0) for key in "ab"])
    seen: list[list[str]] = []

    async def look() -> None:
        async with record_store(root) as other:
            found = [record.value for record in await other.get_many(["a", "b", "c"])]
            assert found == [b"old", b"old"]
            seen.append(await other.list_keys(""))

    await store.batch(midway(lambda: asyncio.run(look())))

    assert seen == [["a", "b"]]
    assert [record.key for record in await store.get_many(["a", "b", "c"])] == ["a", "c"]


async def test_a_batch_that_fails_in_its_midst_has_done_nothing_and_holds_nobody_up(
    store: DiskRecordStore,
) -> None:
    await store.batch([Put(key=key, value=b"old", expected=0) for key in "ab"])

    def fail() -> None:
        msg = "midway"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="midway"):
        await store.batch(midway(fail))

    assert [record.value for record in await store.get_many(["a", "b", "c"])] == [b"old"] * 2
    await store.put("d", b"", expected=0)


# Revisions


async def test_a_key_used_again_after_the_sweep_has_higher_revisions(
    store: DiskRecordStore, clock: FakeClock
) -> None:
    old = await store.put("a", b"", expected=0, ttl=timedelta(seconds=1))
    clock.pass_time(timedelta(days=1))
    await store.sweep(clock.now, GRACE)

    new = await store.put("a", b"", expected=0)

    assert new > old
    with pytest.raises(ConflictError):
        await store.put("a", b"", expected=old)


async def test_revisions_rise_whatever_the_clock_does(
    store: DiskRecordStore, clock: FakeClock
) -> None:
    revisions = [await store.put("a", b"", expected=0)]
    for change in (timedelta(0), timedelta(days=-365), timedelta(days=-365), timedelta(days=1000)):
        clock.pass_time(change)
        await store.delete("a", expected=revisions[-1])
        revisions.append(await store.put("a", b"", expected=0))

    assert revisions == sorted(set(revisions))


async def test_a_store_that_was_lost_and_made_anew_repeats_no_revision(
    root: Path, store: DiskRecordStore, clock: FakeClock
) -> None:
    lost = [await store.put(key, b"", expected=0) for key in "abc"]
    shutil.rmtree(root)
    create_record_store(root)
    clock.pass_time(timedelta(seconds=1))

    assert await store.put("a", b"", expected=0) > max(lost)


# Damage


@pytest.mark.fault("D02", "D03")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE records SET value = x'00' || value",
        "UPDATE records SET value = x''",
        "UPDATE records SET value = 12",
        "UPDATE records SET checksum = checksum + 1",
        "UPDATE records SET checksum = 'no number'",
        "UPDATE records SET revision = revision + 1",
        "UPDATE records SET expires_at = 9000000000000000",
        "UPDATE records SET expires_at = 1",
    ],
)
async def test_an_altered_record_is_corrupt(
    root: Path, store: DiskRecordStore, damage: str
) -> None:
    await store.put("a", b"value", expected=0)

    in_database(root, damage)

    with pytest.raises(CorruptError):
        await store.get("a")
    with pytest.raises(CorruptError):
        [record async for record in store.list_records("")]


@pytest.mark.fault("D02")
async def test_a_record_under_another_ones_key_is_corrupt(
    root: Path, store: DiskRecordStore
) -> None:
    await store.put("a", b"value", expected=0)

    in_database(root, "UPDATE records SET key = 'b'")

    with pytest.raises(CorruptError):
        await store.get("b")


@pytest.mark.fault("D02")
async def test_a_damaged_record_hides_no_other_and_is_logged_once(
    root: Path, store: DiskRecordStore
) -> None:
    for key in "abc":
        await store.put(key, b"value", expected=0)
    damage_record(root, "b")

    with capture_logs() as logs:
        found = [[one.key for one in await store.get_many(["a", "b", "c"])] for _ in range(2)]

    assert found == [["a", "c"], ["a", "c"]]
    assert [line["key"] for line in logs] == ["b"]
    assert await store.list_keys("") == ["a", "b", "c"]


@pytest.mark.fault("D02")
@pytest.mark.parametrize("damage", [b"\xff", b"a b", b"a\0"])
async def test_a_damaged_key_is_no_key_and_is_logged_once(
    root: Path, store: DiskRecordStore, damage: bytes
) -> None:
    for key in "abc":
        await store.put(key, b"value", expected=0)
    in_database(root, "UPDATE records SET key = CAST(? AS TEXT) WHERE key = 'b'", damage)

    with capture_logs() as logs:
        found = [await store.list_keys("") for _ in range(2)]

    assert found == [["a", "c"], ["a", "c"]]
    assert [line["event"] for line in logs] == ["record_damaged"]


@pytest.mark.fault("D02")
@pytest.mark.parametrize("others", [(), (Put(key="b", value=b"new", expected=0),)])
@pytest.mark.parametrize("change", [Delete(key="a"), Put(key="a", value=b"mended", expected=None)])
async def test_a_damaged_record_may_be_removed_or_overwritten_unseen(
    root: Path, store: DiskRecordStore, change: Change, others: tuple[Change, ...]
) -> None:
    revision = await store.put("a", b"value", expected=0)
    damage_record(root, "a")

    revisions = await store.batch([change, *others])

    if isinstance(change, Put):
        assert (await store.get("a")).value == b"mended"
        assert revisions[0] > revision
    else:
        with pytest.raises(NotFoundError):
            await store.get("a")
        assert await store.put("a", b"again", expected=0) > revision
    assert len(await store.get_many(["b"])) == len(others)


@pytest.mark.fault("D02")
async def test_what_depends_on_a_damaged_record_changes_nothing(
    root: Path, store: DiskRecordStore
) -> None:
    revision = await store.put("a", b"value", expected=0)
    damage_record(root, "a")

    for expected in (0, revision):
        with pytest.raises(CorruptError):
            await store.put("a", b"new", expected=expected)
        with pytest.raises(CorruptError):
            await store.delete("a", expected=expected)
        with pytest.raises(CorruptError):
            await store.batch(
                [
                    Put(key="b", value=b"new", expected=0),
                    Put(key="a", value=b"new", expected=expected),
                ]
            )

    assert in_database(root, "SELECT key, value FROM records") == [("a", b"\0value")]


@pytest.mark.fault("D02", "P06")
async def test_the_sweep_goes_past_a_damaged_record(
    root: Path, store: DiskRecordStore, clock: FakeClock
) -> None:
    await store.put("a", b"value", expected=0)
    damage_record(root, "a")
    await store.put("b", b"", expected=0, ttl=timedelta(seconds=1))
    clock.pass_time(timedelta(days=1))

    assert await store.sweep(clock.now, GRACE) == 1

    assert rows(root) == ["a"]


def into_one_file(root: Path) -> bytes:
    """Have all of the database in its main file; the content of that."""
    with closing(sqlite3.connect(root / DATABASE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (root / DATABASE).read_bytes()


@pytest.mark.fault("D02")
async def test_whatever_byte_of_the_database_is_altered_no_record_is_another_than_was_written(
    tmp_path: Path, root: Path, clock: FakeClock
) -> None:
    """And where one is not found, the sweep tells of a damaged database."""
    written = {f"k.{number}": b"%d" % number * 400 for number in range(30)}
    async with record_store(root, clock=clock) as store:
        await store.batch([Put(key=k, value=v, expected=0) for k, v in written.items()])
    content = into_one_file(root)
    outcomes: Counter[str] = Counter()

    for bit, place in zip(itertools.cycle([1, 128, 16]), range(0, len(content), 131)):
        spoilt = tmp_path / f"{place}"
        spoilt.mkdir()
        altered = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        (spoilt / DATABASE).write_bytes(altered)
        async with closing_store(spoilt, clock) as store:
            outcome = await outcome_of_all(store, written)
            if outcome == "missed":
                assert await sweep_tells(store, clock), f"a record is missed after byte {place}"
        outcomes[outcome] += 1

    assert outcomes["found"] > outcomes["missed"]
    assert outcomes["corrupt"] > outcomes["missed"] > 0


async def outcome_of_all(store: DiskRecordStore, written: dict[str, bytes]) -> str:
    """The fate of the writes; of several the worst."""
    outcome = "found"
    try:
        found = {record.key: record.value for record in await store.get_many([*written])}
        assert found.items() <= written.items()
        for key in written.keys() - found.keys():
            outcome = "corrupt"
            with suppress(CorruptError):
                await store.get(key)
    except CorruptError:
        return "corrupt"
    except UnavailableError:
        return "refused"
    except NotFoundError:
        return "missed"
    return outcome


async def sweep_tells(store: DiskRecordStore, clock: FakeClock) -> bool:
    with capture_logs() as logs:
        try:
            await store.sweep(clock.now, GRACE)
        except HoldfastError:
            return True
    return [line["event"] for line in logs] == ["records_damaged"]


@pytest.mark.fault("D02", "D03")
@pytest.mark.parametrize("content", [b"", b"not a database, " * 600, b"SQLite format 3\0"])
async def test_what_is_no_database_is_told_in_one_sentence(
    root: Path, store: DiskRecordStore, clock: FakeClock, content: bytes
) -> None:
    await store.put("a", b"value", expected=0)
    await store.aclose()
    into_one_file(root)
    (root / DATABASE).write_bytes(content)

    async with closing_store(root, clock) as spoilt:
        with pytest.raises((CorruptError, UnavailableError)) as told:
            await spoilt.get("a")
        with pytest.raises(UnavailableError) as refused:
            await spoilt.check()

    assert told.value.detail == refused.value.detail
    assert any(way in told.value.detail for way in ("recover", "create it once"))
    assert str(root) not in told.value.detail


@pytest.mark.fault("D04")
@pytest.mark.parametrize("name", [DATABASE, f"{DATABASE}-wal"])
async def test_a_planted_link_is_not_followed(
    root: Path, store: DiskRecordStore, clock: FakeClock, name: str
) -> None:
    await store.put("a", b"value", expected=0)
    await store.aclose()
    outside = root.parent / "outside"
    (root / name).replace(outside)
    (root / name).symlink_to(outside)
    before = outside.read_bytes()

    async with closing_store(root, clock) as planted:
        with pytest.raises((CorruptError, UnavailableError)):
            await planted.put("b", b"", expected=0)

    assert outside.read_bytes() == before


# Connections


def closing_store(root: Path, clock: FakeClock) -> aclosing[DiskRecordStore]:
    """A store in ``root`` as it is: nothing is made."""
    return aclosing(DiskRecordStore(root, clock=clock))


def open_files(root: Path) -> list[str]:
    found = [os.readlink(f"/proc/self/fd/{name}") for name in descriptors()]
    return sorted({Path(path).name for path in found if path.startswith(str(root))})


def descriptors() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]


async def test_a_closed_store_has_no_file_open(root: Path, store: DiskRecordStore) -> None:
    await store.put("a", b"", expected=0)
    await asyncio.gather(*(store.get("a") for _ in range(20)), store.put("b", b"", expected=0))
    assert DATABASE in open_files(root)

    await store.aclose()
    assert open_files(root) == []

    await store.get("a")  # as one may that comes late
    assert open_files(root) == []


async def test_a_connection_in_use_is_closed_once_it_is_not(
    root: Path, store: DiskRecordStore, clock: FakeClock
) -> None:
    putting = asyncio.create_task(store.put("a", b"", expected=0))
    await asyncio.sleep(0)
    await store.aclose()
    await putting

    assert open_files(root) == []


async def test_a_cancelled_change_is_made_or_not_and_others_go_on(
    root: Path, store: DiskRecordStore
) -> None:
    for number in range(10):
        changes = [Put(key=f"{k}.{number}", value=b"", expected=0) for k in "ab"]
        changing = asyncio.create_task(store.batch(changes))
        await asyncio.sleep(0)
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing

        await store.put(f"c.{number}", b"", expected=0)

    found = await store.list_keys("")
    assert [key for key in found if key[0] == "a"] == [
        key.replace("b", "a") for key in found if key[0] == "b"
    ]


async def test_a_volume_that_is_gone_is_unavailable_and_its_records_are_not_missing(
    root: Path, store: DiskRecordStore
) -> None:
    await store.put("a", b"value", expected=0)
    unmount(root)

    with pytest.raises(UnavailableError, match="mount"):
        await store.check()
    with pytest.raises(UnavailableError):
        await store.get("a")
    with pytest.raises(UnavailableError):
        await store.get_many(["a"])
    with pytest.raises(UnavailableError):
        await store.put("a", b"", expected=0)

    assert names_in(root) == []


async def test_a_database_that_came_from_elsewhere_is_read_from_then_on(
    tmp_path: Path, root: Path, store: DiskRecordStore
) -> None:
    await store.put("a", b"here", expected=0)
    async with record_store(tmp_path / "copy") as copy:
        await copy.put("a", b"there", expected=0)
    move(root, tmp_path / "old")
    move(tmp_path / "copy", root)

    assert (await store.get("a")).value == b"there"
    assert open_files(tmp_path / "old") == []


async def test_what_is_stored_is_for_its_owner_alone(root: Path, store: DiskRecordStore) -> None:
    await store.put("a", b"", expected=0)

    assert mode_of(root) == 0o700
    assert {mode_of(root / name) for name in names_in(root)} == {0o600}


# What is refused


async def test_records_of_the_old_form_are_refused_and_left_as_they_are(
    root: Path, clock: FakeClock
) -> None:
    create_disk_store(root)
    old = root / "records" / "s.app.1"
    old.mkdir(parents=True)
    (old / "1700000000000000").write_bytes(b"holdfast-record 1 ")

    with pytest.raises(UnavailableError, match="holdfast admin init"):
        create_record_store(root)
    store = DiskRecordStore(root, clock=clock)
    with pytest.raises(UnavailableError, match="older form"):
        await store.check()
    with pytest.raises(UnavailableError, match="older form"):
        await store.get("a")

    assert not (root / DATABASE).exists()
    assert (old / "1700000000000000").exists()


@pytest.mark.parametrize("pragma", ["user_version = 2", "application_id = 1"])
async def test_a_store_of_another_format_is_refused(
    root: Path, store: DiskRecordStore, clock: FakeClock, pragma: str
) -> None:
    in_database(root, f"PRAGMA {pragma}")

    async with closing_store(root, clock) as other:
        with pytest.raises(UnavailableError, match="format"):
            await other.check()
        with pytest.raises(UnavailableError, match="format"):
            await other.put("a", b"", expected=0)
    with pytest.raises(UnavailableError, match="format"):
        create_record_store(root)


async def test_a_store_is_created_once_and_keeps_what_it_has(
    root: Path, store: DiskRecordStore
) -> None:
    await store.put("a", b"value", expected=0)

    create_record_store(root)

    assert (await store.get("a")).value == b"value"


async def test_any_path_may_have_a_store(tmp_path: Path, clock: FakeClock) -> None:
    root = tmp_path / "with space, ? # % and é"
    async with record_store(root, clock=clock) as store:
        await store.put("a", b"value", expected=0)

    assert DATABASE in names_in(root)
    assert names_in(tmp_path) == [root.name]


@pytest.mark.parametrize("pages", [1, 1000])
async def test_a_log_that_grew_is_cut_again(
    root: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    monkeypatch.setattr(disk_database, "CHECKPOINT_PAGES", pages)
    monkeypatch.setattr(disk_database, "MAX_LOG_BYTES", 100_000)
    async with record_store(root, clock=clock) as store:
        for _ in range(12):
            await store.batch([Put(key="a", value=bytes(1_000_000), expected=None)])
        await store.batch([Put(key="a", value=b"", expected=None)])
        await store.batch([Put(key="a", value=b"", expected=None)])

        assert (root / f"{DATABASE}-wal").stat().st_size < 10_000_000


# Following the changes


async def test_another_process_sees_what_was_removed(root: Path, store: DiskRecordStore) -> None:
    revision = await store.put("a", b"1", expected=0)
    async with record_store(root) as other:
        position = (await other.changes(0)).position

        await store.delete("a", expected=revision)

        page = await other.changes(position)
        assert [(change.key, change.value) for change in page.changes] == [("a", None)]


async def test_a_damaged_record_hides_no_other_change(root: Path, store: DiskRecordStore) -> None:
    await store.batch([Put(key=key, value=b"1", expected=0) for key in ("a", "b", "c")])
    damage_record(root, "c")
    damage_record(root, "a")

    with capture_logs() as logs:
        page = await store.changes(0)
        limited = await store.changes(0, limit=1)

    assert [change.key for change in page.changes] == ["b"]
    assert (page.position, page.is_end) == ((await store.extent()).last, True)
    assert (list(limited.changes), limited.is_end) == ([], False)
    assert [entry["key"] for entry in logs] == ["a", "c"]


async def test_a_store_of_an_older_version_is_completed_by_an_upgrade(
    root: Path, store: DiskRecordStore
) -> None:
    await store.batch([Put(key=key, value=b"1", expected=0) for key in ("a", "b", "c")])
    for added in ("INDEX ending", "TRIGGER counted_in", "TRIGGER counted_out", "TABLE extent"):
        in_database(root, f"DROP {added}")
    with pytest.raises(UnavailableError, match="holdfast admin upgrade"):
        await store.check()
    assert (await store.get("a")).value == b"1"

    create_record_store(root)

    await store.check()
    await store.put("d", b"1", expected=0)
    assert (await store.extent()).keys == 4
    created = (await store.extent()).created
    create_record_store(root)
    assert (await store.extent()).created == created
