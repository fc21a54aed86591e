"""The disk store of logs beyond the contract: damage, several processes, groups."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import sqlite3
from collections import Counter
from contextlib import aclosing, closing, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never

import pytest
from structlog.testing import capture_logs
from tests.contracts.journal import (
    LOG,
    JournalStoreContract,
    append,
    fill,
    new_id,
    read_all,
    values,
)
from tests.stores.crash_database import CrashDatabase
from tests.stores.disk_tools import FakeClock, in_logs, journal_store

from holdfast.bootstrap.sources import SOURCES
from holdfast.errors import ConflictError, CorruptError, HoldfastError, UnavailableError
from holdfast.stores.disk import journal as disk_journal
from holdfast.stores.disk.journal import LOGS_FORM, DiskJournalStore
from holdfast.stores.journal_ports import DamagedEntryError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

    from holdfast.stores.journal_ports import JournalEntry, JournalStore

SPAWNING: Final = multiprocessing.get_context("spawn")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "states"


@pytest.fixture
async def store(root: Path) -> AsyncGenerator[DiskJournalStore]:
    async with journal_store(root) as store:
        yield store


class TestDiskJournalStore(JournalStoreContract):
    @pytest.fixture
    async def other(self, root: Path, store: DiskJournalStore) -> AsyncGenerator[DiskJournalStore]:
        async with journal_store(root) as other:
            yield other

    @pytest.fixture
    def unreachable_store(self, tmp_path: Path) -> DiskJournalStore:
        return DiskJournalStore(tmp_path / "not mounted", clock=SOURCES.clock)

    async def append_damaged(self, store: JournalStore, log: str, expected: int) -> int:
        assert isinstance(store, DiskJournalStore)
        sequence = await store.append(log, b"sound", expected=expected, message_id=new_id())
        in_logs(store._root, "UPDATE entries SET value = x'53' WHERE sequence = ?", sequence)
        return sequence


# Damage


async def test_nothing_is_appended_behind_a_damaged_last_entry_unless_that_is_asked_for(
    store: DiskJournalStore,
) -> None:
    [first] = await fill(store, 1)
    in_logs(store._root, "UPDATE entries SET value = x'53' WHERE sequence = ?", first)

    refused, other = await asyncio.gather(
        store.append(LOG, b"2", expected=first, message_id=new_id()),
        store.append("other", b"1", expected=0, message_id=new_id()),
        return_exceptions=True,
    )

    assert isinstance(refused, DamagedEntryError)
    assert refused.sequence == first
    assert isinstance(other, int)


# Groups


async def test_appends_that_come_while_others_are_synced_share_a_sync(
    root: Path, store: DiskJournalStore
) -> None:
    await store.aclose()
    disk = CrashDatabase(root)
    with disk.installed():
        async with journal_store(root, files=disk) as grouping:
            logs = [f"log.{number}" for number in range(64)]

            await asyncio.gather(*(fill(grouping, 3, log) for log in logs))

            syncs = sum(step.startswith("sync") for step in disk.steps)
            assert syncs < len(logs)
            for log in logs:
                assert await values(grouping, log) == [b"1", b"2", b"3"]


async def test_a_conflict_fails_its_own_append_and_no_other_of_its_group(
    store: DiskJournalStore,
) -> None:
    [first] = await fill(store, 1)

    outcomes = await asyncio.gather(
        store.append("a", b"1", expected=0, message_id=new_id()),
        store.append(LOG, b"late", expected=0, message_id=new_id()),
        store.append(LOG, b"2", expected=first, message_id="two"),
        store.append(LOG, b"2", expected=first, message_id="two"),
        store.append(LOG, b"other", expected=first, message_id=new_id()),
        store.append("b", b"1", expected=0, message_id=new_id()),
        return_exceptions=True,
    )

    refused = [isinstance(outcome, ConflictError) for outcome in outcomes]
    assert refused == [False, True, False, False, True, False]
    assert outcomes[2] == outcomes[3]
    assert await values(store) == [b"1", b"2"]


async def test_an_append_whose_caller_has_gone_is_made_all_the_same(
    store: DiskJournalStore,
) -> None:
    appending = asyncio.create_task(store.append(LOG, b"1", expected=0, message_id="one"))
    await asyncio.sleep(0)
    appending.cancel()
    with suppress(asyncio.CancelledError):
        await appending

    assert await store.append(LOG, b"1", expected=0, message_id="one") > 0
    assert await values(store) == [b"1"]


# Time


async def test_a_clock_that_is_set_back_takes_no_sequence_a_second_time(root: Path) -> None:
    clock = FakeClock()
    async with journal_store(root, clock=clock) as store:
        [first] = await fill(store, 1)
        clock.pass_time(timedelta(days=-1))
        second = await append(store, b"2")
        await store.remove(LOG, second)
        third = await append(store, b"3")

    assert first < second < third


# More than fits into one transaction


async def test_a_long_log_is_removed_as_a_whole(
    store: DiskJournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_journal, "REMOVED_AT_ONCE", 3)
    sequences = await fill(store, 10)

    await store.trim(LOG, sequences[-2])
    assert await values(store) == [b"10"]
    await store.remove(LOG, sequences[-1])

    assert await store.last(LOG) is None


# Damage


def into_one_file(root: Path) -> bytes:
    """Have all of the database in its main file; the content of that."""
    with closing(sqlite3.connect(root / LOGS_FORM.file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (root / LOGS_FORM.file).read_bytes()


async def test_whatever_byte_of_the_database_is_altered_no_entry_is_another_than_was_appended(
    tmp_path: Path, root: Path, store: DiskJournalStore
) -> None:
    """And where one is missing, the next or the look for damage tells."""
    expected = 0
    for number in range(30):
        expected = await store.append(
            LOG, b"%d" % number * 400, expected=expected, message_id=new_id()
        )
    written = await read_all(store)
    await store.aclose()
    content = into_one_file(root)
    outcomes: Counter[str] = Counter()

    for bit, place in zip(itertools.cycle([1, 128, 16]), range(0, len(content), 211)):
        spoilt = tmp_path / f"{place}"
        spoilt.mkdir()
        altered = content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]
        (spoilt / LOGS_FORM.file).write_bytes(altered)
        async with aclosing(DiskJournalStore(spoilt, clock=SOURCES.clock)) as damaged:
            outcome = await outcome_of_all(damaged, written)
            if outcome == "missed":
                assert await damage_is_told(damaged), f"an entry is missed after byte {place}"
        outcomes[outcome] += 1

    assert outcomes["found"] > outcomes["missed"]
    assert outcomes["corrupt"] > outcomes["missed"]


async def outcome_of_all(store: DiskJournalStore, written: list[JournalEntry]) -> str:
    """The fate of the appends, for a reader from the beginning."""
    try:
        found = await read_all(store)
    except CorruptError:
        return "corrupt"
    except UnavailableError:
        return "refused"
    assert all(entry in written for entry in found)
    ends = [0, *(entry.sequence for entry in found)]
    if any(after != entry.previous for after, entry in zip(ends, found, strict=False)):
        return "corrupt"
    return "found" if found == written else "missed"


async def damage_is_told(store: DiskJournalStore) -> bool:
    with capture_logs() as logs:
        try:
            await store.look_for_damage()
        except HoldfastError:
            return True
    return [line["event"] for line in logs] == ["logs_damaged"]


@pytest.mark.parametrize("content", [b"", b"not a database, " * 600, b"SQLite format 3\0"])
async def test_what_is_no_database_is_refused(
    root: Path, store: DiskJournalStore, content: bytes
) -> None:
    await fill(store, 1)
    await store.aclose()
    into_one_file(root)
    (root / LOGS_FORM.file).write_bytes(content)

    async with aclosing(DiskJournalStore(root, clock=SOURCES.clock)) as spoilt:
        with pytest.raises((CorruptError, UnavailableError)):
            await spoilt.append(LOG, b"1", expected=0, message_id=new_id())
        with pytest.raises(UnavailableError):
            await spoilt.check()


# Several processes


def append_in_a_process(root: str, name: str, start: Barrier) -> Never:
    """Append some entries to one log, however often others are faster."""

    async def run() -> None:
        async with aclosing(DiskJournalStore(Path(root), clock=SOURCES.clock)) as store:
            start.wait(100)
            for number in range(25):
                await append_somewhere(store, f"{name} {number}")

    asyncio.run(run())
    os._exit(0)


async def append_somewhere(store: DiskJournalStore, text: str) -> None:
    message_id = text.replace(" ", ".")
    while True:
        last = await store.last(LOG)
        expected = 0 if last is None else last.sequence
        with suppress(ConflictError):
            await store.append(LOG, text.encode(), expected=expected, message_id=message_id)
            return


async def test_racing_processes_append_each_entry_once_and_in_one_chain(
    root: Path, store: DiskJournalStore
) -> None:
    start = SPAWNING.Barrier(3)
    processes = [
        SPAWNING.Process(target=append_in_a_process, args=(str(root), name, start))
        for name in "abc"
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 200)

    entries = await read_all(store)
    assert [process.exitcode for process in processes] == [0] * 3
    assert all(entry.previous == before.sequence for before, entry in pairwise(entries))
    for name in "abc":
        own = [entry.value for entry in entries if entry.value.startswith(name.encode())]
        assert own == [f"{name} {number}".encode() for number in range(25)]


def append_until_killed(root: str, acknowledged: Connection) -> None:
    async def run() -> None:
        async with aclosing(DiskJournalStore(Path(root), clock=SOURCES.clock)) as store:
            for number in itertools.count():
                await append_somewhere(store, f"k {number}")
                acknowledged.send(number)

    asyncio.run(run())


async def test_what_a_process_that_is_killed_had_acknowledged_is_there_and_others_go_on(
    root: Path, store: DiskJournalStore
) -> None:
    ours, theirs = SPAWNING.Pipe()
    process = SPAWNING.Process(target=append_until_killed, args=(str(root), theirs))
    process.start()
    last = 0
    while last < 20:
        last = await asyncio.to_thread(ours.recv)
    process.kill()
    await asyncio.to_thread(process.join, 200)
    while ours.poll():
        last = ours.recv()

    found = await values(store)

    assert found[: last + 1] == [b"k %d" % number for number in range(last + 1)]
    assert len(found) <= last + 2
    assert await append(store, b"next") > 0
