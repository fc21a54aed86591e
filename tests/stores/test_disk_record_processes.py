"""Several processes on one disk record store: racing, killed, stopped and forked."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Never

import pytest
from tests.processes import stop
from tests.stores.disk_tools import FakeClock, in_database, record_store

from holdfast.errors import ConflictError, NotFoundError, UnavailableError
from holdfast.stores.disk import database as disk_database
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.record_ports import Put

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
    from datetime import datetime
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier

type Work = Callable[[DiskRecordStore], Coroutine[None, None, None]]

SPAWNING = multiprocessing.get_context("spawn")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(root: Path) -> AsyncGenerator[DiskRecordStore]:
    async with record_store(root) as store:
        yield store


def put(key: str, value: int, expected: int | None) -> Put:
    return Put(key=key, value=b"%d" % value, expected=expected)


def work_in_a_process(root: str, work: Work, start: Barrier) -> Never:
    async def run() -> None:
        async with aclosing(DiskRecordStore(Path(root), clock=FakeClock())) as store:
            start.wait(100)
            await work(store)

    asyncio.run(run())
    os._exit(0)


async def race(root: Path, *works: Work) -> None:
    """Do all of it at once, each in a process of its own."""
    start = SPAWNING.Barrier(len(works))
    processes = [
        SPAWNING.Process(target=work_in_a_process, args=(str(root), work, start)) for work in works
    ]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join, 200)
    assert [process.exitcode for process in processes] == [0] * len(works)


async def increment(store: DiskRecordStore) -> None:
    """Add one, however often others are faster."""
    while True:
        with suppress(ConflictError):
            try:
                record = await store.get("n")
            except NotFoundError:
                await store.put("n", b"1", expected=0)
            else:
                await store.batch([put("n", int(record.value) + 1, record.revision)])
            return


async def increment_often(store: DiskRecordStore) -> None:
    for _ in range(25):
        await increment(store)


@pytest.mark.fault("P07")
async def test_no_increment_is_lost_among_racing_processes(
    root: Path, store: DiskRecordStore
) -> None:
    await race(root, *[increment_often] * 3)

    assert (await store.get("n")).value == b"75"


async def move(store: DiskRecordStore, source: str, target: str) -> None:
    """Move one unit, however often others are faster."""
    while True:
        give, take = await store.get(source), await store.get(target)
        with suppress(ConflictError):
            await store.batch(
                [
                    put(source, int(give.value) - 1, give.revision),
                    put(target, int(take.value) + 1, take.revision),
                ]
            )
            return


async def move_there(store: DiskRecordStore) -> None:
    for _ in range(20):
        await move(store, "a", "b")


async def move_back(store: DiskRecordStore) -> None:
    for _ in range(10):
        await move(store, "b", "a")


@pytest.mark.fault("P07")
async def test_nothing_is_lost_or_doubled_among_racing_processes(
    root: Path, store: DiskRecordStore
) -> None:
    await store.batch([put("a", 100, 0), put("b", 100, 0)])

    await race(root, move_there, move_back, move_back)

    found = await store.get_many(["a", "b"])
    assert [record.value for record in found] == [b"100", b"100"]
    assert in_database(root, "PRAGMA integrity_check") == [("ok",)]


# Killed


def write_until_killed(root: str, told: Connection) -> None:
    async def run() -> None:
        async with aclosing(DiskRecordStore(Path(root), clock=FakeClock())) as store:
            number = 0
            while True:
                number += 1
                await store.batch([put(key, number, None) for key in "abc"])
                told.send(number)

    asyncio.run(run())


@pytest.mark.fault("P01", "D01")
@pytest.mark.parametrize("acknowledged", [1, 2, 7, 23])
async def test_a_writer_that_is_killed_leaves_whole_batches_and_what_it_acknowledged(
    root: Path, store: DiskRecordStore, acknowledged: int
) -> None:
    """Others write meanwhile, and go on."""
    told, telling = SPAWNING.Pipe(duplex=False)
    process = SPAWNING.Process(target=write_until_killed, args=(str(root), telling))
    process.start()
    last = 0
    while last < acknowledged:
        last = await asyncio.to_thread(told.recv)
        await increment(store)

    process.kill()
    await asyncio.to_thread(process.join, 200)
    telling.close()
    with suppress(EOFError):
        while True:
            last = told.recv()

    async with record_store(root) as after:
        found = {int(record.value) for record in await after.get_many(["a", "b", "c"])}
        assert found in ({last}, {last + 1})
        await increment(after)
        assert (await store.get("n")).value == (await after.get("n")).value
    assert in_database(root, "PRAGMA integrity_check") == [("ok",)]


# Stopped


def change_once(root: str, told: Connection) -> None:
    """Change a record, slowly: the clock is read in the midst of the transaction."""

    def clock() -> datetime:
        told.send("in the midst")
        told.recv()
        return FakeClock().now

    async def run() -> None:
        async with aclosing(DiskRecordStore(Path(root), clock=clock)) as store:
            await store.put("slow", b"", expected=0)

    asyncio.run(run())
    told.send("done")


@pytest.fixture
def stopped(
    root: Path, store: DiskRecordStore
) -> Iterator[tuple[multiprocessing.process.BaseProcess, Connection]]:
    """A process that was stopped within a change, and the way to hear from it."""
    del store  # which has made it
    ours, theirs = SPAWNING.Pipe()
    process = SPAWNING.Process(target=change_once, args=(str(root), theirs))
    process.start()
    try:
        assert ours.recv() == "in the midst"
        assert process.pid is not None
        stop(process.pid)
        yield process, ours
    finally:
        process.kill()
        process.join()


@pytest.mark.fault("P06")
async def test_others_read_on_while_a_writer_is_stopped_and_are_told_that_they_cannot_write(
    store: DiskRecordStore,
    stopped: tuple[multiprocessing.process.BaseProcess, Connection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process, told = stopped
    monkeypatch.setattr(disk_database, "PATIENCE_SECONDS", 0.1)

    assert await store.get_many(["slow"]) == []
    for _ in range(2):
        refused = await asyncio.gather(
            store.put("a", b"", expected=0),
            store.batch([put("a", 1, 0), put("b", 1, 0)]),
            store.delete("a", expected=0),
            return_exceptions=True,
        )
        assert all(isinstance(error, UnavailableError) for error in refused), refused
        assert {str(error) for error in refused} == {disk_database.LOCKED}
    assert await store.list_keys("") == []

    monkeypatch.undo()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)
    told.send("go on")
    await store.put("a", b"", expected=0)
    assert await asyncio.to_thread(told.recv) == "done"
    assert await store.list_keys("") == ["a", "slow"]


@pytest.mark.fault("P06", "P01")
async def test_others_go_on_once_a_writer_that_was_stopped_is_killed(
    store: DiskRecordStore, stopped: tuple[multiprocessing.process.BaseProcess, Connection]
) -> None:
    process, _ = stopped
    waiting = asyncio.create_task(store.put("a", b"", expected=0))
    await store.get_many(["a"])

    process.kill()

    await waiting
    assert await store.list_keys("") == ["a"]


# Forked

FORKING = """
import asyncio, os, sys
from pathlib import Path
from holdfast.errors import UnavailableError
from holdfast.stores.disk.records import DiskRecordStore
from tests.stores.disk_tools import FakeClock

def put(store, key):
    asyncio.run(store.put(key, b"", expected=0))

store = DiskRecordStore(Path(sys.argv[1]), clock=FakeClock())
put(store, "before")
child = os.fork()
if not child:
    status = 0
    for tried in (store, DiskRecordStore(Path(sys.argv[1]), clock=FakeClock())):
        try:
            put(tried, "forked")
        except UnavailableError as error:
            status += "start it anew" in str(error)
    os._exit(status)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
put(store, "after")
asyncio.run(store.aclose())
"""


async def test_a_process_that_was_forked_is_refused_and_the_other_goes_on(
    root: Path, store: DiskRecordStore
) -> None:
    await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, str(root)],
        check=True,
        timeout=60,
    )

    assert await store.list_keys("") == ["after", "before"]
