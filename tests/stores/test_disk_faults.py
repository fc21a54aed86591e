"""Damage, planted files, full and failing disks: what the disk blob store makes of them."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Never

import pytest
from tests.contracts.blob_store import (
    ALTERATIONS,
    ATTRIBUTES,
    FAR_AHEAD,
    PART_BYTES,
    UNPINNED,
    fresh_staging,
    put,
    put_staged,
    read,
    said,
    some_bytes,
    staged_bytes,
)
from tests.stores.crash_files import CrashFiles
from tests.stores.disk_tools import FakeClock, alter_blob, blob_path, blob_store, leftover_files

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import (
    CorruptError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.stores.disk import blob_reading
from holdfast.stores.disk import blobs as disk_blobs
from holdfast.stores.disk.blob_file import OpenBlob
from holdfast.stores.disk.files import MARKER, Files, create_disk_store, locked
from holdfast.stores.disk.store import DiskBlobStore
from holdfast.stores.ports import BlobInfo, ForeignObject, UnreadableObject

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = some_bytes(5000)
LONG_AFTER = datetime(2100, 1, 1, tzinfo=UTC)
"""By this clock no file was changed lately, so what was verified is remembered."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def quarantined(root: Path) -> list[str]:
    return [path.name.partition(".")[0] for path in (root / "quarantine").iterdir()]


def all_paths(root: Path) -> list[Path]:
    return list(root.rglob("*"))


def unmount(root: Path) -> None:
    """Leave an empty mount point."""
    root.rename(root.with_name("unmounted"))
    root.mkdir()


# Damage


@pytest.mark.fault("D02", "D03")
@pytest.mark.parametrize("mutate", ALTERATIONS)
@pytest.mark.parametrize("bounds", [(0, 1), (4000, 4500), (0, 5000)])
async def test_an_altered_blob_is_corrupt_wherever_it_is_read_and_is_moved_aside(
    root: Path, mutate: Callable[[bytes], bytes], bounds: tuple[int, int]
) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    alter_blob(root, info.digest, mutate)

    with pytest.raises(CorruptError):
        await read(store, info, *bounds)

    assert quarantined(root) == [info.digest]
    assert await store.missing([info.digest]) == [info.digest]
    with pytest.raises(NotFoundError):
        await store.stat(info.digest)


@pytest.mark.fault("D03")
@pytest.mark.parametrize("kept", [0, 1, 20, 100, 400])
async def test_a_file_cut_short_at_any_place_is_corrupt_without_reading_its_bytes(
    root: Path, kept: int
) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    os.truncate(blob_path(root, info.digest), kept)

    with pytest.raises(CorruptError):
        await store.stat(info.digest)

    assert quarantined(root) == [info.digest]


@pytest.mark.fault("D02")
async def test_any_flipped_bit_of_the_header_is_corrupt(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, b"x")
    path = blob_path(root, info.digest)
    content = path.read_bytes()

    for place in range(len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(CorruptError):
            await store.stat(info.digest)
        assert not path.exists()


@pytest.mark.fault("D02")
async def test_a_blob_under_another_ones_address_is_corrupt(root: Path) -> None:
    store = blob_store(root)
    info, other = await put(store, b"right"), await put(store, b"wrong")
    blob_path(root, other.digest).replace(blob_path(root, info.digest))

    with pytest.raises(CorruptError):
        await store.stat(info.digest)


@pytest.mark.fault("D02")
@pytest.mark.parametrize("mutate", ALTERATIONS)
async def test_putting_a_damaged_blob_again_heals_it(
    root: Path, mutate: Callable[[bytes], bytes]
) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    alter_blob(root, info.digest, mutate)

    stored = await store.put(info.digest, DATA, ATTRIBUTES)

    assert stored.created
    assert await store.get(stored.info) == DATA
    assert quarantined(root) == [info.digest]


@pytest.mark.fault("D03")
async def test_a_damaged_blob_does_not_hide_the_others_in_a_listing(root: Path) -> None:
    store = blob_store(root)
    good, bad = await put(store, b"good"), await put(store, b"bad")
    blob_path(root, bad.digest).write_bytes(b"")

    page = await store.list_blobs(prefix="", cursor=None, limit=10)

    damaged, left = sorted(page.entries, key=lambda entry: isinstance(entry, BlobInfo))
    assert left == good
    assert isinstance(damaged, UnreadableObject)
    assert damaged.name == bad.digest


class OvertakenFiles(Files):
    """Files where another process heals the blob just before this one moves it aside."""

    def __init__(self, healed: Path) -> None:
        self._healed = healed

    def rename(self, source: Path, target: Path) -> None:
        self._healed.replace(source)
        super().rename(source, target)


@pytest.mark.fault("D02")
async def test_a_blob_healed_while_its_damage_is_found_is_not_moved_aside(root: Path) -> None:
    info = await put(blob_store(root), DATA)
    path, healed = blob_path(root, info.digest), root.parent / "healed"
    healed.write_bytes(path.read_bytes())
    alter_blob(root, info.digest, ALTERATIONS[0])
    store = blob_store(root, files=OvertakenFiles(healed))

    with pytest.raises(CorruptError):
        await store.get(info)

    assert quarantined(root) == []
    assert await store.get(info) == DATA


async def test_a_file_that_is_not_named_by_a_digest_is_listed_as_foreign(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, b"mine")
    stranger = blob_path(root, info.digest).parent / "notes.txt"
    stranger.write_bytes(b"hello")

    page = await store.list_blobs(prefix="", cursor=None, limit=10)
    first = await store.list_blobs(prefix="", cursor=None, limit=1)
    second = await store.list_blobs(prefix="", cursor=first.cursor, limit=1)

    assert page.entries == [info, ForeignObject(name="notes.txt", size=5)]
    assert [*first.entries, *second.entries] == page.entries
    assert stranger.read_bytes() == b"hello"


async def test_the_bytes_of_a_blob_can_be_had_without_holdfast(root: Path) -> None:
    info = await put(blob_store(root), DATA)

    header, _, rest = blob_path(root, info.digest).read_bytes().partition(b"\n")

    assert rest == DATA
    assert header.startswith(b"holdfast-blob 1 ")


# What is remembered of verified files


async def count_verifications(
    root: Path, now: datetime, monkeypatch: pytest.MonkeyPatch, blobs: int = 1
) -> int:
    """How often whole files are hashed when two ranges of each blob are read, twice over."""
    store = blob_store(root, now=now)
    infos = [await put(store, some_bytes(5000, seed=n)) for n in range(blobs)]
    verified = []
    verify = blob_reading.BlobReading.verify

    def counting(self: blob_reading.BlobReading, blob: OpenBlob) -> None:
        verified.append(blob.header.digest)
        verify(self, blob)

    monkeypatch.setattr(blob_reading.BlobReading, "verify", counting)
    for _ in range(2):
        for n, info in enumerate(infos):
            for start in (0, 3000):
                assert await read(store, info, start, 4000) == some_bytes(5000, n)[start:4000]
    return len(verified)


async def test_ranges_of_an_unchanged_blob_verify_it_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await count_verifications(root, LONG_AFTER, monkeypatch) == 1


async def test_a_file_too_young_for_its_timestamps_is_verified_each_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    just_now = datetime.fromtimestamp(root.parent.stat().st_mtime, UTC)

    assert await count_verifications(root, just_now, monkeypatch) == 4


async def test_no_more_verified_files_are_remembered_than_the_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_reading, "MAX_VERIFIED", 2)

    assert await count_verifications(root / "two", LONG_AFTER, monkeypatch, blobs=2) == 2
    monkeypatch.undo()
    monkeypatch.setattr(blob_reading, "MAX_VERIFIED", 2)
    assert await count_verifications(root / "three", LONG_AFTER, monkeypatch, blobs=3) == 6


async def test_a_verified_blob_that_is_altered_later_is_corrupt(root: Path) -> None:
    store = blob_store(root, now=LONG_AFTER)
    info = await put(store, DATA)
    assert await read(store, info, 10, 20) == DATA[10:20]
    path = blob_path(root, info.digest)
    before = path.stat()

    alter_blob(root, info.digest, ALTERATIONS[0])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))

    with pytest.raises(CorruptError):
        await read(store, info, 10, 20)


# Planted


def plant_symlink(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def plant_dangling_symlink(path: Path, outside: Path) -> None:
    path.symlink_to(outside.with_name("nowhere"))


def plant_pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def plant_directory(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(b"")


PLANTED = (plant_symlink, plant_dangling_symlink, plant_pipe, plant_directory)


@pytest.mark.fault("D04")
@pytest.mark.parametrize("plant", PLANTED)
async def test_what_is_not_a_regular_file_is_corrupt_and_never_opened(
    root: Path, plant: Callable[[Path, Path], None]
) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    path, outside = blob_path(root, info.digest), root.parent / "outside"
    path.replace(outside)  # a whole and valid file, but not in its place
    plant(path, outside)

    async with asyncio.timeout(30):
        with pytest.raises(CorruptError):
            await store.get(info)

    assert quarantined(root) == [info.digest]
    stored = await store.put(info.digest, DATA, ATTRIBUTES)
    assert await store.get(stored.info) == DATA
    assert outside.exists()


@pytest.mark.fault("D04")
@pytest.mark.parametrize("plant", PLANTED)
async def test_a_put_replaces_what_was_planted_at_its_address(
    root: Path, plant: Callable[[Path, Path], None]
) -> None:
    store, digest, outside = await planted(root, plant)

    stored = await store.put(digest, DATA, ATTRIBUTES)

    assert stored.created
    assert await store.get(stored.info) == DATA
    assert outside.read_bytes() == b"precious"


@pytest.mark.fault("D04")
@pytest.mark.parametrize("plant", PLANTED)
async def test_a_delete_removes_what_was_planted_and_nothing_else(
    root: Path, plant: Callable[[Path, Path], None]
) -> None:
    store, digest, outside = await planted(root, plant)

    assert await store.delete(digest) is True

    assert os.listdir(blob_path(root, digest).parent) == []
    assert outside.read_bytes() == b"precious"


async def planted(
    root: Path, plant: Callable[[Path, Path], None]
) -> tuple[DiskBlobStore, Digest, Path]:
    """A store with something at the address of a deleted blob; and a file outside of it."""
    store = blob_store(root)
    info = await put(store, DATA)
    await store.delete(info.digest)
    outside = root.parent / "outside"
    outside.write_bytes(b"precious")
    plant(blob_path(root, info.digest), outside)
    return store, info.digest, outside


@pytest.mark.fault("D04")
async def test_a_planted_link_to_a_directory_is_not_followed(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    shard, outside = blob_path(root, info.digest).parent, root.parent / "outside"
    shard.replace(outside)
    shard.symlink_to(outside)

    with pytest.raises(CorruptError):
        await store.get(info)

    assert (await store.list_blobs(prefix="", cursor=None, limit=10)).entries == []
    assert (outside / info.digest).exists()


# Names


@pytest.mark.parametrize(
    "digest", ["../../etc/passwd", "", "A" * 64, "a" * 63, "a" * 64 + "\n", "a/" * 32]
)
async def test_a_digest_that_is_none_never_becomes_a_path(root: Path, digest: str) -> None:
    store = blob_store(root)

    with pytest.raises(InvalidError):
        await store.stat(Digest(digest))
    with pytest.raises(InvalidError):
        await store.put(Digest(digest), b"", ATTRIBUTES)
    with pytest.raises(InvalidError):
        await store.delete(Digest(digest))


@pytest.mark.parametrize("staging", ["../" * 7 + "x", "", "s" * 21, "s" * 23, "." * 22])
async def test_a_staging_identifier_that_is_none_never_becomes_a_path(
    root: Path, staging: str
) -> None:
    store = blob_store(root)

    with pytest.raises(InvalidError):
        await store.stage(staging, PART_BYTES).write(0, b"")
    with pytest.raises(InvalidError):
        await store.discard_staged(staging)
    with pytest.raises(InvalidError):
        await staged_bytes(store, staging)


# Bytes that are not those announced


@pytest.mark.fault("P20")
async def test_parts_that_are_not_what_was_announced_are_never_committed(root: Path) -> None:
    store = blob_store(root)
    for digest, size in ((digest_of(b"other"), 6), (digest_of(b"stored"), 5)):
        staged = store.stage(fresh_staging(), PART_BYTES)
        await staged.write(0, b"stored")

        with pytest.raises(CorruptError):
            await staged.commit(digest, size, ATTRIBUTES)

        assert await store.missing([digest]) == [digest]
        await staged.discard()
    assert leftover_files(root) == []


@pytest.mark.fault("D02")
async def test_a_part_altered_before_the_commit_is_found(root: Path) -> None:
    store = blob_store(root)
    staging = fresh_staging()
    staged = store.stage(staging, PART_BYTES)
    await staged.write(0, b"stored")
    (root / "staging" / staging / f"{0:012d}").write_bytes(b"altere")

    with pytest.raises(CorruptError):
        await staged.commit(digest_of(b"stored"), 6, ATTRIBUTES)

    assert await store.missing([digest_of(b"stored")]) == [digest_of(b"stored")]


# Leftovers


@pytest.mark.fault("D05")
async def test_leftovers_are_swept_after_the_grace_time_and_not_before(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    staging = fresh_staging()
    await store.stage(staging, PART_BYTES).write(0, b"part")
    (root / "tmp" / "left").write_bytes(b"half")
    changed = max(path.lstat().st_mtime for path in all_paths(root))
    now, grace = datetime.fromtimestamp(changed, UTC), timedelta(hours=1)

    early = await store.sweep(now + grace - timedelta(seconds=1), grace)
    assert (early, len(leftover_files(root))) == (0, 2)

    late = await store.sweep(now + grace + timedelta(seconds=1), grace)
    assert (late, leftover_files(root)) == (2, [])
    assert await staged_bytes(store, staging) == []
    assert await store.get(info) == DATA


# Full and failing disks


class FailingFiles(Files):
    """Files of which one kind of step fails whenever it is told to."""

    def __init__(self, step: str, error: int) -> None:
        self._step = step
        self._error = error
        self.failing = True

    def _fail(self, step: str) -> None:
        if self.failing and step == self._step:
            raise OSError(self._error, os.strerror(self._error))

    def create(self, path: Path) -> int:
        self._fail("create")
        return super().create(path)

    def sync(self, descriptor: int) -> None:
        self._fail("sync")
        super().sync(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._fail("sync_directory")
        super().sync_directory(path)


@pytest.mark.fault("D06")
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errno.ENOSPC, QuotaExceededError),
        (errno.EDQUOT, QuotaExceededError),
        (errno.EMFILE, UnavailableError),
        (errno.EROFS, UnavailableError),
        (errno.EIO, UnavailableError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else "",
)
@pytest.mark.parametrize("step", ["create", "sync"])
async def test_a_failed_write_is_reported_stores_nothing_and_may_be_repeated(
    root: Path, step: str, error: int, expected: type[Exception]
) -> None:
    files = FailingFiles(step, error)
    store = blob_store(root, files=files)

    with pytest.raises(expected):
        await store.put(digest_of(DATA), DATA, ATTRIBUTES)
    with pytest.raises(expected):
        await store.stage(fresh_staging(), PART_BYTES).write(0, DATA)

    assert await store.missing([digest_of(DATA)]) == [digest_of(DATA)]
    assert leftover_files(root) == []
    files.failing = False
    assert (await store.put(digest_of(DATA), DATA, ATTRIBUTES)).created


@pytest.mark.fault("D06")
async def test_after_a_directory_could_not_be_synced_the_store_takes_no_more_changes(
    root: Path,
) -> None:
    stored = await put(blob_store(root), DATA)
    files = FailingFiles("sync_directory", errno.EIO)
    store = blob_store(root, files=files)
    assert (await put_or_code(store, DATA)) == "unavailable"  # the shard was not confirmed
    files.failing = False

    with pytest.raises(UnavailableError):
        await store.put(digest_of(b"more"), b"more", ATTRIBUTES)
    with pytest.raises(UnavailableError):
        await store.delete(stored.digest)
    with pytest.raises(UnavailableError):
        await store.stage(fresh_staging(), PART_BYTES).write(0, b"more")
    with pytest.raises(UnavailableError, match="restart"):
        await store.check()

    assert await store.get(stored) == DATA


@pytest.mark.fault("D06")
async def test_a_delete_that_the_disk_did_not_confirm_is_of_unknown_outcome(root: Path) -> None:
    stored = await put(blob_store(root), DATA)
    store = blob_store(root, files=FailingFiles("sync_directory", errno.EIO))

    with pytest.raises(OutcomeUnknownError):
        await store.delete(stored.digest)


async def put_or_code(store: DiskBlobStore, data: bytes) -> str:
    try:
        await store.put(digest_of(data), data, ATTRIBUTES)
    except (UnavailableError, OutcomeUnknownError) as error:
        return error.code
    return "stored"


@pytest.mark.fault("D06")
async def test_no_error_says_where_the_store_is(root: Path) -> None:
    store = blob_store(root, files=FailingFiles("create", errno.EIO))

    with pytest.raises(UnavailableError) as raised:
        await store.put(digest_of(DATA), DATA, ATTRIBUTES)

    assert str(root) not in raised.value.detail
    assert raised.value.detail.endswith("(EIO)")


# The store itself


async def test_a_store_is_created_once_and_keeps_what_it_has(root: Path) -> None:
    info = await put(blob_store(root), DATA)

    create_disk_store(root)

    assert await blob_store(root).get(info) == DATA


async def test_a_volume_that_is_gone_is_unavailable_and_its_blobs_are_not_missing(
    root: Path,
) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    unmount(root)

    with pytest.raises(UnavailableError, match="mount"):
        await store.check()
    with pytest.raises(UnavailableError):
        await store.get(info)
    with pytest.raises(UnavailableError):
        await store.missing([info.digest])
    with pytest.raises(UnavailableError):
        await store.delete(info.digest)


async def test_a_store_of_another_format_is_refused(root: Path) -> None:
    store = blob_store(root)
    (root / MARKER).write_bytes(b"holdfast disk store 3\n")

    with pytest.raises(UnavailableError, match="format"):
        await store.check()


async def test_a_store_whose_creation_was_cut_off_is_created_by_trying_again(
    tmp_path: Path,
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    failures = 0
    for step in range(1, 40):
        try:
            create_disk_store(root, CrashFiles(root, fail_at=step))
        except UnavailableError:
            failures += 1
        else:
            break

    assert failures > 10
    info = await put(blob_store(root), DATA)
    assert await blob_store(root).get(info) == DATA


# Several processes


def put_in_a_process(root: str, number: int, start: multiprocessing.synchronize.Barrier) -> Never:
    """Put the same blobs as the others; the exit status is how many this process created."""

    async def work() -> int:
        ids = iter(range(1_000_000))
        sources = replace(
            SOURCES, new_id=lambda: f"p{number}n{next(ids)}", clock=FakeClock(LONG_AFTER)
        )
        store = DiskBlobStore(Path(root), sources=sources)
        created = 0
        for n in range(20):
            data = some_bytes(3000, seed=n)
            start.wait(100)
            if n % 2:
                created += (await store.put(digest_of(data), data, ATTRIBUTES)).created
            else:
                created += (await put_staged(store, data)).created
        return created

    os._exit(asyncio.run(work()))


@pytest.mark.fault("P08")
async def test_of_racing_processes_exactly_one_creates_each_blob(root: Path) -> None:
    store = blob_store(root)
    spawning = multiprocessing.get_context("spawn")
    start = spawning.Barrier(3)
    processes = [
        spawning.Process(target=put_in_a_process, args=(str(root), n, start)) for n in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 200)

    created = [process.exitcode for process in processes]
    assert sum(code or 0 for code in created) == 20, created
    page = await store.list_blobs(prefix="", cursor=None, limit=100)
    for entry in page.entries:
        assert isinstance(entry, BlobInfo)
        await store.get(entry)
    assert len(page.entries) == 20
    assert leftover_files(root) == []


ROUNDS = 30


def announce_or_delete_in_a_process(
    root: str, number: int, start: multiprocessing.synchronize.Barrier
) -> Never:
    """Of each blob the first announces a name and touches it, the others delete and pin it."""

    async def announce(store: DiskBlobStore, data: bytes, name: Path) -> None:
        await asyncio.to_thread(name.touch)
        if not await store.touch(digest_of(data), unless_seen_since=FAR_AHEAD):
            await store.put(digest_of(data), data, UNPINNED)

    async def delete(store: DiskBlobStore, data: bytes, name: Path) -> None:
        async def kept() -> bool:
            looked = await asyncio.to_thread(name.exists)
            some_bytes(1_000_000)  # it takes a while, as a look elsewhere does
            return looked

        await store.delete(digest_of(data), kept=kept)

    async def work() -> None:
        ids = iter(range(1_000_000))
        sources = replace(SOURCES, new_id=lambda: f"p{number}n{next(ids)}")
        store = DiskBlobStore(Path(root), sources=sources)
        for n in range(ROUNDS):
            data, name = some_bytes(3000, seed=n), Path(root, f"announced-{n}")
            start.wait(100)
            if number == 0:
                await announce(store, data, name)
            elif number == 1:
                await delete(store, data, name)
            else:
                await store.put(digest_of(data), data, ATTRIBUTES)

    asyncio.run(work())
    os._exit(0)


@pytest.mark.fault("P07")
async def test_no_process_deletes_what_another_has_announced_and_touched(root: Path) -> None:
    store = blob_store(root)
    infos = [await put(store, some_bytes(3000, seed=n), UNPINNED) for n in range(ROUNDS)]
    spawning = multiprocessing.get_context("spawn")
    start = spawning.Barrier(3)
    processes = [
        spawning.Process(target=announce_or_delete_in_a_process, args=(str(root), n, start))
        for n in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 200)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    for n, info in enumerate(infos):
        assert await store.get(await store.stat(info.digest)) == some_bytes(3000, seed=n)
    assert leftover_files(root) == []


async def test_a_cancelled_put_leaves_the_blob_whole_or_not_there(root: Path) -> None:
    store = blob_store(root)
    for n in range(10):
        data = some_bytes(200_000, seed=n)
        putting = asyncio.create_task(store.put(digest_of(data), data, ATTRIBUTES))
        await asyncio.sleep(0)

        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting

        stored = await store.put(digest_of(data), data, ATTRIBUTES)
        assert await store.get(stored.info) == data


# Touching


async def test_only_a_blob_that_was_not_seen_lately_gets_another_time(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    path = blob_path(root, info.digest)
    os.utime(path, (1_000_000, 1_000_000))

    assert await store.touch(info.digest, unless_seen_since=datetime.fromtimestamp(1_000_000, UTC))
    assert path.stat().st_mtime == 1_000_000

    assert await store.touch(info.digest, unless_seen_since=datetime.fromtimestamp(1_000_001, UTC))
    assert path.stat().st_mtime > 1_500_000_000
    assert await store.get(info) == DATA


async def test_a_damaged_blob_is_no_blob_to_be_touched(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    path = blob_path(root, info.digest)
    path.write_bytes(path.read_bytes()[:-1])

    assert not await store.touch(info.digest, unless_seen_since=LONG_AFTER)

    assert quarantined(root) == [info.digest]
    assert (await store.put(info.digest, DATA, ATTRIBUTES)).created


async def test_a_touch_makes_the_time_later_although_the_clock_stands_still(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    path = blob_path(root, info.digest)
    os.utime(path, (LONG_AFTER.timestamp(), LONG_AFTER.timestamp()))
    before = path.stat().st_mtime_ns

    for _ in range(3):
        assert await store.touch(info.digest, unless_seen_since=FAR_AHEAD)

    assert path.stat().st_mtime_ns == before + 3


# Pins, and deleting what was seen


async def test_whoever_changes_a_blob_waits_for_another_and_not_for_ever(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = blob_store(root)
    info = await put(store, DATA, UNPINNED)
    monkeypatch.setattr(disk_blobs, "PATIENCE_SECONDS", 0.0)

    with locked(blob_path(root, info.digest).parent, 0.0, "not to be had"):
        for change in (
            store.delete(info.digest),
            store.delete(info.digest, kept=said(False)),
            store.put(info.digest, DATA, ATTRIBUTES),
            store.touch(info.digest, unless_seen_since=FAR_AHEAD),
        ):
            with pytest.raises(UnavailableError, match="does not finish"):
                await change
        assert await store.get(info) == DATA
        assert not (await store.put(info.digest, DATA, UNPINNED)).created
    assert leftover_files(root) == []
    assert await store.delete(info.digest)


async def test_a_kept_blob_that_is_found_damaged_is_moved_aside_with_its_pin(root: Path) -> None:
    store = blob_store(root)
    info = await put(store, DATA)
    alter_blob(root, info.digest, lambda data: bytes(len(data)))

    assert await store.delete(info.digest, kept=said(True)) is False

    assert quarantined(root) == [info.digest]
    assert leftover_files(root) == []
    assert (await store.put(info.digest, DATA, ATTRIBUTES)).created


async def test_a_directory_that_was_planted_is_deleted_unless_it_is_kept(root: Path) -> None:
    store = blob_store(root)
    digest = digest_of(DATA)
    blob_path(root, digest).mkdir(parents=True)

    assert await store.delete(digest, kept=said(True)) is False
    assert await store.delete(digest, kept=said(False)) is True
    assert await store.delete(digest, kept=said(False)) is False
