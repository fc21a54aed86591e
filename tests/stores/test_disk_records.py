"""What the disk record store does beyond the contract: sweeping, damage, several processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Never

import pytest
from structlog.testing import capture_logs
from tests.stores.disk_tools import FakeClock, record_store

from holdfast.errors import ConflictError, CorruptError, NotFoundError
from holdfast.stores.disk_records import DiskRecordStore
from holdfast.stores.ports import Delete, Put

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from holdfast.stores.ports import Change

GRACE = timedelta(hours=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def files_of(root: Path, key: str) -> list[str]:
    return sorted(path.name for path in (root / "records" / key).iterdir())


async def test_only_the_present_revision_is_kept(root: Path) -> None:
    store = record_store(root)
    revision = 0
    for n in range(5):
        revision = await store.put("a", b"%d" % n, expected=revision)

    assert files_of(root, "a") == [str(revision)]


@pytest.mark.fault("D02", "D03")
@pytest.mark.parametrize("place", [0, 20, 30, -1])
async def test_an_altered_record_is_corrupt(root: Path, place: int) -> None:
    store = record_store(root)
    revision = await store.put("a", b"value", expected=0)
    path = root / "records" / "a" / str(revision)
    content = bytearray(path.read_bytes())

    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError):
        await store.get("a")
    path.write_bytes(b"")
    with pytest.raises(CorruptError):
        await store.get("a")


def damage(root: Path, key: str) -> None:
    """Alter the last byte of the record's file."""
    [name] = files_of(root, key)
    path = root / "records" / key / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.fault("D02")
async def test_a_damaged_record_hides_no_other_and_is_logged_once(root: Path) -> None:
    store = record_store(root)
    for key in "abc":
        await store.put(key, b"value", expected=0)
    damage(root, "b")

    with capture_logs() as logs:
        found = [[one.key for one in await store.get_many(["a", "b", "c"])] for _ in range(2)]

    assert found == [["a", "c"], ["a", "c"]]
    assert [line["key"] for line in logs] == ["b"]
    assert await store.list_keys("") == ["a", "b", "c"]


@pytest.mark.fault("D02")
@pytest.mark.parametrize("others", [(), (Put(key="b", value=b"new", expected=0),)])
@pytest.mark.parametrize("change", [Delete(key="a"), Put(key="a", value=b"mended", expected=None)])
async def test_a_damaged_record_may_be_removed_or_overwritten_unseen(
    root: Path, change: Change, others: tuple[Change, ...]
) -> None:
    store = record_store(root)
    revision = await store.put("a", b"value", expected=0)
    damage(root, "a")

    revisions = await store.batch([change, *others])

    if isinstance(change, Put):
        assert ((await store.get("a")).value, revisions[0]) == (b"mended", revision + 1)
    else:
        with pytest.raises(NotFoundError):
            await store.get("a")
        assert await store.put("a", b"again", expected=0) > revision
    assert len(await store.get_many(["b"])) == len(others)


@pytest.mark.fault("D02")
async def test_what_depends_on_a_damaged_record_changes_nothing(root: Path) -> None:
    store = record_store(root)
    revision = await store.put("a", b"value", expected=0)
    damage(root, "a")

    for expected in (0, revision):
        with pytest.raises(CorruptError):
            await store.put("a", b"new", expected=expected)
        with pytest.raises(CorruptError):
            await store.batch(
                [
                    Put(key="a", value=b"new", expected=expected),
                    Put(key="b", value=b"new", expected=0),
                ]
            )

    assert files_of(root, "a") == [str(revision)]
    assert await store.get_many(["b"]) == []


@pytest.mark.fault("D02", "P06")
async def test_the_sweep_goes_past_a_damaged_record(root: Path) -> None:
    """Nor does it take from a slow writer what that would put in the damaged one's place."""
    clock = FakeClock()
    store = record_store(root, clock=clock)
    revision = await store.put("a", b"value", expected=0)
    damage(root, "a")
    (root / "records" / "a" / "+slow").write_bytes(b"")
    await store.delete("b", expected=await store.put("b", b"", expected=0))

    removed = await store.sweep(clock.now, GRACE)

    assert removed == 1
    assert not (root / "records" / "b").exists()
    assert files_of(root, "a") == ["+slow", str(revision)]


@pytest.mark.fault("D05")
async def test_a_deleted_record_leaves_nothing_once_the_grace_time_has_passed(root: Path) -> None:
    clock = FakeClock()
    store = record_store(root, clock=clock)
    await store.delete("a", expected=await store.put("a", b"", expected=0))
    await store.put("b", b"kept", expected=0)
    deleted_at = max(path.lstat().st_mtime for path in (root / "records" / "a").iterdir())
    now = datetime.fromtimestamp(deleted_at, UTC)

    assert await store.sweep(now + GRACE - timedelta(seconds=1), GRACE) == 0
    assert await store.sweep(now + GRACE + timedelta(seconds=1), GRACE) == 1

    assert [path.name for path in (root / "records").iterdir()] == ["b"]
    assert (await store.get("b")).value == b"kept"


async def test_an_expired_record_leaves_nothing_once_the_grace_time_has_passed(root: Path) -> None:
    clock = FakeClock()
    store = record_store(root, clock=clock)
    await store.put("a", b"", expected=0, ttl=timedelta(seconds=10))

    assert await store.sweep(clock.now + GRACE, GRACE) == 0
    clock.pass_time(timedelta(seconds=11))
    assert await store.sweep(clock.now + GRACE, GRACE) == 1

    assert list((root / "records").iterdir()) == []


async def test_a_key_used_again_after_the_sweep_has_higher_revisions(root: Path) -> None:
    clock = FakeClock()
    store = record_store(root, clock=clock)
    old = await store.put("a", b"", expected=0)
    await store.delete("a", expected=old)
    clock.pass_time(timedelta(days=1))
    await store.sweep(clock.now, GRACE)

    new = await store.put("a", b"", expected=0)

    assert new > old + 1
    with pytest.raises(ConflictError):
        await store.put("a", b"", expected=old)


@pytest.mark.fault("P06")
async def test_a_writer_that_slept_through_the_sweep_cannot_write(root: Path) -> None:
    """Its prepared file is swept, and the revision it had in mind is gone."""
    clock = FakeClock()
    store = record_store(root, clock=clock)
    revision = await store.put("a", b"present", expected=0)
    (root / "records" / "a" / "+sleeper").write_bytes(b"")

    await store.sweep(clock.now, GRACE)

    record = await store.get("a")
    assert (record.value, files_of(root, "a")) == (b"present", [str(record.revision)])
    assert record.revision > revision


async def test_a_write_that_was_decided_is_completed_by_whoever_reads_next(root: Path) -> None:
    store = record_store(root)
    revision = await store.put("a", b"old", expected=0)
    directory = root / "records" / "a"
    new = await store.put("a", b"new", expected=revision)
    # As a writer leaves it that dies right after its claim.
    (directory / str(new)).rename(directory / "+dead")
    (directory / f"{revision}+dead").write_bytes(b"")

    record = await store.get("a")

    assert (record.value, record.revision) == (b"new", new)
    assert files_of(root, "a") == [str(new)]


async def test_a_record_is_found_while_it_is_rewritten_all_the_time(root: Path) -> None:
    store = record_store(root)
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


def increment_in_a_process(root: str, number: int, start: Barrier) -> Never:
    async def work() -> None:
        ids = iter(range(1_000_000))
        store = DiskRecordStore(
            Path(root), new_id=lambda: f"p{number}n{next(ids)}", clock=FakeClock()
        )
        start.wait(30)
        for _ in range(25):
            await increment(store)

    asyncio.run(work())
    os._exit(0)


async def increment(store: DiskRecordStore) -> None:
    """Add one, however often others are faster."""
    while True:
        try:
            try:
                record = await store.get("n")
            except NotFoundError:
                await store.put("n", b"1", expected=0)
            else:
                value = b"%d" % (int(record.value) + 1)
                await store.put("n", value, expected=record.revision)
        except ConflictError:
            continue
        return


@pytest.mark.fault("P07")
async def test_no_increment_is_lost_among_racing_processes(root: Path) -> None:
    store = record_store(root)
    spawning = multiprocessing.get_context("spawn")
    start = spawning.Barrier(3)
    processes = [
        spawning.Process(target=increment_in_a_process, args=(str(root), n, start))
        for n in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 60)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (await store.get("n")).value == b"75"
