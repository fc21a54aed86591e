"""Batches on disk whose writer is paused, dies, or meets others on the way."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Never

import pytest
from tests.stores.crash_files import CrashFiles, PowerCut
from tests.stores.disk_tools import FakeClock, record_store

from holdfast.errors import ConflictError, NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.stores.disk_files import Files
from holdfast.stores.disk_records import DiskRecordStore
from holdfast.stores.ports import Delete, Put

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Barrier

GRACE = timedelta(hours=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def change(key: str, expected: int | None, value: bytes = b"batched") -> Put:
    return Put(key=key, value=value, expected=expected)


def journals(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "batches").iterdir())


async def found(store: DiskRecordStore) -> dict[str, bytes]:
    return {record.key: record.value async for record in store.list_records("")}


class Interrupting(Files):
    """Does something else before each renaming of a journal, which is when a batch decides."""

    def __init__(self, interruption: Callable[[], None]) -> None:
        self.interruption = interruption
        self.decisions = 0

    def rename(self, source: Path, target: Path) -> None:
        if target.parent.name == "batches" and target.name.endswith("+"):
            self.decisions += 1
            self.interruption()
        super().rename(source, target)


@pytest.mark.fault("P06", "P07")
async def test_a_writer_that_comes_between_wins_and_the_batch_begins_anew(root: Path) -> None:
    other = record_store(root)
    revisions = {key: await other.put(key, b"old", expected=0) for key in "ab"}

    def write_between() -> None:
        if files.decisions == 1:
            asyncio.run(other.put("b", b"between", expected=revisions["b"]))

    files = Interrupting(write_between)
    batched = record_store(root, files=files)
    with pytest.raises(ConflictError):
        await batched.batch([change("a", revisions["a"]), change("b", revisions["b"])])

    assert await found(other) == {"a": b"old", "b": b"between"}
    assert journals(root) == []

    files.decisions = 0
    revisions["b"] += 1
    await batched.batch([change("a", revisions["a"]), change("b", None), change("c", 0)])
    assert files.decisions == 2, "it was aborted once"
    assert await found(other) == dict.fromkeys("abc", b"batched")


async def test_readers_between_see_nothing_of_a_batch_that_is_not_decided(root: Path) -> None:
    other = record_store(root)
    old = await other.put("a", b"old", expected=0)
    seen: list[dict[str, bytes]] = []
    files = Interrupting(lambda: seen.append(asyncio.run(found(other))))

    await record_store(root, files=files).batch([change("a", old), change("b", 0)])

    assert seen == [{"a": b"old"}]
    assert await found(other) == dict.fromkeys("ab", b"batched")


@pytest.mark.fault("D01")
async def test_a_batch_that_its_writer_never_decided_is_given_up_by_the_sweep(root: Path) -> None:
    store = record_store(root)
    old = await store.put("a", b"old", expected=0)

    def die() -> None:
        raise PowerCut

    with pytest.raises(PowerCut):
        await record_store(root, files=Interrupting(die)).batch([change("a", old), change("b", 0)])
    assert len(journals(root)) == 1
    assert await found(store) == {"a": b"old"}

    clock = FakeClock()
    clock.pass_time(timedelta(days=1))
    await store.sweep(clock.now, GRACE)

    assert journals(root) == []
    assert [path.name for path in (root / "records" / "a").iterdir()] == [str(old)]
    assert await store.list_keys("") == ["a"]


@pytest.mark.fault("D01")
async def test_a_young_batch_is_left_alone_by_the_sweep(root: Path) -> None:
    store = record_store(root)
    old = await store.put("a", b"old", expected=0)
    now = FakeClock().now.replace(year=1990)
    files = Interrupting(lambda: asyncio.run(sweep()))

    async def sweep() -> None:
        await store.sweep(now, GRACE)

    await record_store(root, files=files).batch([change("a", old), change("b", 0)])

    assert files.decisions == 1
    assert await found(store) == dict.fromkeys("ab", b"batched")


@pytest.mark.fault("D01")
async def test_a_batch_that_was_decided_is_completed_by_the_sweep(root: Path) -> None:
    store = record_store(root)
    old = await store.put("a", b"old", expected=0)
    for cut in range(100):  # after which the whole batch would be done
        files = CrashFiles(root, cut_after=cut)
        with suppress(PowerCut, UnavailableError):
            await record_store(root, files=files).batch([change("a", old), Delete(key="x")])
        if any(name.endswith("+") for name in journals_if_any(root)):
            break

    clock = FakeClock()
    clock.pass_time(timedelta(days=1))
    await store.sweep(clock.now, GRACE)

    assert journals(root) == []
    assert [path.name for path in (root / "records" / "a").iterdir()] == [str(old + 1)]
    assert await found(store) == {"a": b"batched"}


def journals_if_any(root: Path) -> list[str]:
    return journals(root) if (root / "batches").exists() else []


@pytest.mark.fault("D02")
async def test_the_decision_of_a_damaged_journal_is_not_forgotten(root: Path) -> None:
    store = record_store(root)
    await store.batch([change("a", 0), change("b", 0)])
    (root / "batches" / "damaged+").write_bytes(b"\0")
    (root / "batches" / "unfinished").write_bytes(b"")

    clock = FakeClock()
    await store.sweep(clock.now, GRACE)

    assert journals(root) == ["damaged+"]


@pytest.mark.fault("D06")
async def test_a_decision_that_could_not_be_synced_is_unknown(root: Path) -> None:
    record_store(root)

    class Failing(Files):
        decided = False

        def rename(self, source: Path, target: Path) -> None:
            self.decided |= target.name.endswith("+")
            super().rename(source, target)

        def sync_directory(self, path: Path) -> None:
            if self.decided:
                raise OSError(5, "the disk is gone")
            super().sync_directory(path)

    with pytest.raises(OutcomeUnknownError):
        await record_store(root, files=Failing()).batch([change("a", 0), change("b", 0)])


def move_in_a_process(root: str, number: int, start: Barrier) -> Never:
    """Move units between two accounts, in both directions at once with others."""

    async def work() -> None:
        ids = iter(range(1_000_000))
        store = DiskRecordStore(
            Path(root), new_id=lambda: f"p{number}n{next(ids)}", clock=FakeClock()
        )
        source, target = ("a", "b") if number % 2 else ("b", "a")
        start.wait(30)
        for _ in range(10):
            await move(store, source, target)

    asyncio.run(work())
    os._exit(0)


async def move(store: DiskRecordStore, source: str, target: str) -> None:
    """Move one unit, however often others are faster."""
    while True:
        try:
            give, take = await store.get(source), await store.get(target)
            await store.batch(
                [
                    change(source, give.revision, b"%d" % (int(give.value) - 1)),
                    change(target, take.revision, b"%d" % (int(take.value) + 1)),
                ]
            )
        except (ConflictError, NotFoundError):
            continue
        return


@pytest.mark.fault("P07")
async def test_nothing_is_lost_or_doubled_among_racing_processes(root: Path) -> None:
    store = record_store(root)
    await store.batch([change("a", 0, b"100"), change("b", 0, b"100")])
    spawning = multiprocessing.get_context("spawn")
    start = spawning.Barrier(3)
    processes = [
        spawning.Process(target=move_in_a_process, args=(str(root), n, start)) for n in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 60)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert await found(store) == {"a": b"110", "b": b"90"}
    assert journals(root) == []
