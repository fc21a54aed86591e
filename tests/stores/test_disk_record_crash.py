"""Whatever step a crash follows, the disk record store holds the old or the new, and says which.

`test_disk_crash` has the same for blobs, `test_disk_journal_crash` for logs.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import aclosing
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs
from tests.stores.crash_database import CrashDatabase, Left
from tests.stores.crash_runs import CrashRuns, Operation, copied, each_of
from tests.stores.disk_tools import FakeClock, record_store

from holdfast.errors import OutcomeUnknownError, QuotaExceededError, UnavailableError
from holdfast.stores.disk import database as disk_database
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.record_ports import Delete, Put

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("checkpoint_pages")

KEY, OTHER_KEY, LONG_KEY = "u.1", "u.2", "u." + "x" * 300
LARGE = bytes(range(256)) * 40


OLD = {KEY: b"old", OTHER_KEY: b"other"}


@pytest.fixture
async def prepared(tmp_path: Path, checkpoint_pages: int) -> Path:
    """A store with the old records, to be copied."""
    del checkpoint_pages
    root = tmp_path / "prepared"
    async with record_store(root) as store:
        revision = await store.put(KEY, b"older", expected=0)
        await store.put(KEY, b"old", expected=revision)
        await store.put(OTHER_KEY, b"other", expected=0)
    return root


async def create(store: DiskRecordStore) -> None:
    await store.put(LONG_KEY, LARGE, expected=0)


async def change(store: DiskRecordStore) -> None:
    await store.put(KEY, b"new", expected=(await store.get(KEY)).revision)


async def delete(store: DiskRecordStore) -> None:
    await store.delete(KEY, expected=(await store.get(KEY)).revision)


async def change_several(store: DiskRecordStore) -> None:
    """Change one, remove one and create one."""
    await store.batch(
        [
            Put(key=KEY, value=b"new", expected=(await store.get(KEY)).revision),
            Delete(key=OTHER_KEY, expected=(await store.get(OTHER_KEY)).revision),
            Put(key=LONG_KEY, value=LARGE, expected=0),
        ]
    )


OPERATIONS = (
    Operation(create, {**OLD, LONG_KEY: LARGE}, 9),
    Operation(change, {**OLD, KEY: b"new"}, 5),
    Operation(delete, {OTHER_KEY: b"other"}, 5),
    Operation(change_several, {KEY: b"new", LONG_KEY: LARGE}, 9),
)


async def found_in(root: Path) -> dict[str, bytes]:
    """The records of a store that is opened on the rest, and goes on to be used."""
    async with aclosing(DiskRecordStore(root, clock=FakeClock())) as store:
        records = [record async for record in store.list_records("")]
        found = {record.key: record.value for record in records}
        changes = (await store.changes(0)).changes
        assert {one.key: one.value for one in changes if one.value is not None} == found
        assert await store.list_keys("") == sorted(found)
        assert (await store.extent()).keys == len(changes)
        assert await store.get_many(list(found)) == records
        revision = next((record.revision for record in records if record.key == KEY), 0)
        await store.put(KEY, b"next", expected=revision)
        assert (await store.get(KEY)).value == b"next"
        with capture_logs() as logs:
            await store.sweep(FakeClock().now, timedelta(0))
        assert logs == [], "SQLite finds something wrong"
    return found


RUNS = CrashRuns(record_store, create_record_store, found_in, OLD)


@pytest.mark.fault("D01")
@each_of(OPERATIONS)
async def test_cut_off_after_any_step_the_store_holds_the_old_or_the_new(
    tmp_path: Path, prepared: Path, operation: Operation[DiskRecordStore, dict[str, bytes]]
) -> None:
    await RUNS.check_cut_off(prepared, operation, tmp_path)


@pytest.mark.fault("D01", "D06")
@each_of(OPERATIONS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
async def test_a_step_that_fails_is_reported_as_what_it_left_behind(
    tmp_path: Path,
    prepared: Path,
    operation: Operation[DiskRecordStore, dict[str, bytes]],
    error: int,
) -> None:
    await RUNS.check_failing(prepared, operation, error, tmp_path)


@pytest.mark.fault("D06")
async def test_a_write_for_which_there_is_no_room_is_told_as_that_and_may_be_repeated(
    tmp_path: Path, prepared: Path
) -> None:
    root = copied(prepared, tmp_path / "store")
    disk = CrashDatabase(root, fail_at=2, error=errno.ENOSPC)

    with disk.installed():
        async with record_store(root) as store:
            with pytest.raises(QuotaExceededError, match="full"):
                await store.put("a", LARGE, expected=0)
            assert disk.failed_step.startswith("write")
            assert await store.get_many(["a"]) == []
            await store.put("a", LARGE, expected=0)

        assert (await found_in(disk.leave_behind(tmp_path / "left", Left.NONE)))["a"] == LARGE


@pytest.mark.fault("D06")
async def test_what_is_acknowledged_after_a_step_failed_is_really_there(
    tmp_path: Path, prepared: Path
) -> None:
    """In particular after a sync that failed, and lost what it was to write."""
    refused = acknowledged = 0
    for step in count(1):
        root = copied(prepared, tmp_path / f"{step}")
        disk = CrashDatabase(root, fail_at=step)

        with disk.installed():
            async with record_store(root, files=disk) as store:
                written = dict(OLD)
                for number in range(2):
                    try:
                        await store.put(f"n.{number}", b"", expected=0)
                    except (OutcomeUnknownError, UnavailableError):
                        refused += 1
                    else:
                        acknowledged += 1
                        written[f"n.{number}"] = b""
                    for left in (Left.NONE, Left.EARLIER):
                        remains = disk.leave_behind(tmp_path / f"{step}-{number}-{left}", left)
                        found = await found_in(remains)
                        assert written.items() <= found.items(), f"{disk.steps}, left: {left.value}"
        if not disk.failed_step:
            break

    assert refused > 0
    assert acknowledged > refused


@pytest.mark.fault("D01")
async def test_a_store_whose_creation_was_cut_off_is_created_by_trying_again(
    tmp_path: Path,
) -> None:
    await RUNS.check_created_again({}, tmp_path)


@pytest.mark.fault("P07")
async def test_files_change_only_under_the_lock(
    tmp_path: Path, prepared: Path, checkpoint_pages: int
) -> None:
    """Also by checkpoints, and while others use the same store or close it."""
    root = copied(prepared, tmp_path / "store")
    free: list[str] = []

    def note_if_free() -> None:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        else:
            free.append("free")
        finally:
            os.close(descriptor)

    disk = CrashDatabase(root, watch=note_if_free)
    clock = FakeClock()
    with disk.installed():
        async with record_store(root, clock=clock) as store:
            await store.put("a", b"", expected=0, ttl=timedelta(seconds=1))
            async with record_store(root, clock=clock) as other:
                await other.batch([Put(key=key, value=LARGE, expected=0) for key in "bcd"])
            clock.pass_time(timedelta(days=1))
            await store.sweep(clock.now, timedelta(hours=1))
            await store.check()
            create_record_store(root)

    assert free == []
    assert ("sync records.sqlite" in disk.steps) == (checkpoint_pages == 1)


@pytest.mark.fault("D03")
async def test_a_log_that_was_cut_short_anywhere_has_whole_batches_up_to_there(
    tmp_path: Path, prepared: Path, checkpoint_pages: int
) -> None:
    root = copied(prepared, tmp_path / "store")
    async with record_store(root) as store:
        for number in range(4):
            await store.batch([Put(key=f"{k}.{number}", value=b"", expected=0) for k in "ab"])
    disk = CrashDatabase(root)
    log = root / f"{disk_database.DATABASE}-wal"
    length, seen = len(log.read_bytes()), set[int]()

    for cut in [*range(0, length, 1021), length]:
        remains = disk.leave_behind(tmp_path / f"{cut}", Left.ALL)
        os.truncate(remains / log.name, cut)
        async with record_store(remains) as after:
            found = await after.list_keys("a"), await after.list_keys("b")
        numbers = [int(key.partition(".")[2]) for key in found[0]]
        assert found[1] == [f"b.{number}" for number in numbers]
        assert numbers == list(range(len(numbers)))
        seen.add(len(numbers))

    assert max(seen) == 4
    assert (len(seen) > 1) == (checkpoint_pages == 1000)
