"""Whatever step a crash follows, the disk store of logs has what it acknowledged, whole and once.

`test_disk_record_crash` has the same for records.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from contextlib import aclosing
from itertools import count, pairwise
from typing import TYPE_CHECKING, Final

import pytest
from structlog.testing import capture_logs
from tests.contracts.journal import fill, new_id, read_all, values
from tests.stores.crash_database import CrashDatabase, Left
from tests.stores.crash_runs import CrashRuns, Operation, copied, each_of
from tests.stores.disk_tools import journal_store

from holdfast.bootstrap.sources import SOURCES
from holdfast.errors import OutcomeUnknownError, UnavailableError
from holdfast.stores.disk.journal import LOGS_FORM, DiskJournalStore, create_journal_store

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("checkpoint_pages")

LOG: Final = "orders.eu"
OTHER: Final = "x" * 300
LARGE: Final = bytes(range(256)) * 40
SUBSETS: Final = int(os.environ.get("SUBSETS", "2"))
"""Of the writes that are not synced so many subsets are tried after each step; all, if fewer."""

type Logs = dict[str, list[bytes]]

OLD: Final[Logs] = {LOG: [b"1", b"2", b"3"], OTHER: []}


@pytest.fixture
async def prepared(tmp_path: Path, checkpoint_pages: int) -> Path:
    """A store with the old entries, to be copied."""
    del checkpoint_pages
    root = tmp_path / "prepared"
    async with journal_store(root) as store:
        await fill(store, 3, LOG)
    return root


async def last_of(store: DiskJournalStore) -> int:
    last = await store.last(LOG)
    assert last is not None
    return last.sequence


async def append(store: DiskJournalStore) -> None:
    await store.append(LOG, LARGE, expected=await last_of(store), message_id="new")


async def append_several(store: DiskJournalStore) -> None:
    """Those of two logs, in one transaction."""
    expected = await last_of(store)
    await asyncio.gather(
        store.append(LOG, LARGE, expected=expected, message_id="new"),
        store.append(OTHER, b"1", expected=0, message_id="other"),
    )


async def trim(store: DiskJournalStore) -> None:
    await store.trim(LOG, await last_of(store))


async def remove(store: DiskJournalStore) -> None:
    await store.remove(LOG, await last_of(store))


OPERATIONS: Final = (
    Operation(append, {**OLD, LOG: [b"1", b"2", b"3", LARGE]}, 5),
    Operation(append_several, {LOG: [b"1", b"2", b"3", LARGE], OTHER: [b"1"]}, 5),
    Operation(trim, {**OLD, LOG: [b"3"]}, 4),
    Operation(remove, {**OLD, LOG: []}, 4),
)


async def found_in(root: Path) -> Logs:
    """The logs of a store that is opened on the rest, and goes on to be used."""
    async with aclosing(DiskJournalStore(root, clock=SOURCES.clock)) as store:
        entries = await read_all(store, LOG)
        for before, entry in pairwise(entries):
            assert entry.previous == before.sequence
        found = {log: await values(store, log) for log in (LOG, OTHER)}
        expected = entries[-1].sequence if entries else 0
        following = await store.append(LOG, b"next", expected=expected, message_id=new_id())
        last = await store.last(LOG)
        assert last is not None
        assert (last.sequence, last.value) == (following, b"next")
        with capture_logs() as logs:
            await store.look_for_damage()
        assert logs == [], "SQLite finds something wrong"
    return found


RUNS: Final = CrashRuns(journal_store, create_journal_store, found_in, OLD)


@pytest.mark.fault("S07")
@each_of(OPERATIONS)
async def test_cut_off_after_any_step_the_store_holds_the_old_or_the_new(
    tmp_path: Path, prepared: Path, operation: Operation[DiskJournalStore, Logs]
) -> None:
    await RUNS.check_cut_off(prepared, operation, tmp_path)


@pytest.mark.fault("S07")
@each_of(OPERATIONS)
async def test_whichever_unsynced_writes_are_left_the_store_holds_the_old_or_the_new(
    tmp_path: Path, prepared: Path, operation: Operation[DiskJournalStore, Logs]
) -> None:
    rng = random.Random(operation.perform.__name__)  # noqa: S311  (to be repeatable)

    await RUNS.check_subsets(prepared, operation, SUBSETS, rng, tmp_path)


@pytest.mark.fault("S07")
@each_of(OPERATIONS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=errno.errorcode.get)
async def test_a_step_that_fails_is_reported_as_what_it_left_behind(
    tmp_path: Path, prepared: Path, operation: Operation[DiskJournalStore, Logs], error: int
) -> None:
    await RUNS.check_failing(prepared, operation, error, tmp_path)


@pytest.mark.fault("S07")
async def test_an_append_that_is_sent_again_after_any_failure_is_there_once(
    tmp_path: Path, prepared: Path
) -> None:
    for step in count(1):
        root = copied(prepared, tmp_path / f"{step}")
        disk = CrashDatabase(root, fail_at=step)

        with disk.installed():
            async with journal_store(root, files=disk) as store:
                expected = await last_of(store)
                for _ in range(2):
                    try:
                        await store.append(LOG, LARGE, expected=expected, message_id="again")
                    except (UnavailableError, OutcomeUnknownError):
                        continue
                    break
            for left in Left:
                found = await found_in(disk.leave_behind(tmp_path / f"{step}-{left.name}", left))
                assert found[LOG] == [*OLD[LOG], LARGE], f"{disk.failed_step}, {left.value}"
        if not disk.failed_step:
            break


@pytest.mark.fault("S07")
async def test_a_store_whose_creation_was_cut_off_is_created_by_trying_again(
    tmp_path: Path,
) -> None:
    await RUNS.check_created_again({LOG: [], OTHER: []}, tmp_path)


@pytest.mark.fault("S07")
async def test_a_torn_tail_is_cut_to_what_was_whole(
    tmp_path: Path, prepared: Path, checkpoint_pages: int
) -> None:
    root = copied(prepared, tmp_path / "store")
    expected = 0
    async with journal_store(root) as store:
        for number in range(5):
            expected = await store.append(
                OTHER, b"%d" % number, expected=expected, message_id=new_id()
            )
    disk = CrashDatabase(root)
    written = root / f"{LOGS_FORM.file}-wal"
    length, seen = written.stat().st_size, set[int]()

    for cut in [*range(0, length, 4093), length]:
        remains = disk.leave_behind(tmp_path / f"{cut}", Left.ALL)
        os.truncate(remains / written.name, cut)
        create_journal_store(remains)
        found = (await found_in(remains))[OTHER]
        assert found == [b"%d" % number for number in range(len(found))]
        seen.add(len(found))

    assert max(seen) == 5
    assert (len(seen) > 1) == (checkpoint_pages == 1000)
