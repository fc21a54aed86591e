"""The index of names among a million: how long it takes to build, what it weighs, how fast it is.

    python -m tests.bench.names_at_scale [--names 1000000] [--directory DIR]

Not a test: it asserts little, takes minutes, and wants some 2 GB of memory and 2 GB of disk. It
starts a nats-server of its own on ``DIR`` (a temporary one by default), loads it by pipelined
publishes without syncing, starts it again as it is run in production, and follows it in a process
of its own, which prints a table. The names lie in 1,000 directories and come in random order.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from tests.bench.loading import connected, fill, new_id
from tests.repository.names.index.index_tools import listing

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.blob_names import name_key
from holdfast.domain.digest import digest_of
from holdfast.errors import UnavailableError
from holdfast.repository.names.index.index import NameIndex
from holdfast.repository.names.record import (
    Announcement,
    Keep,
    NameRecord,
    Step,
    announced,
    committed,
)
from holdfast.runtime.embedded import EmbeddedServer
from holdfast.stores.jetstream.records import KeyValueRecordStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from holdfast.repository.names.index.listing import NamesPage

BUCKET: Final = "names"
DIRECTORIES: Final = 1000
ROUNDS: Final = 200
START: Final = datetime(2026, 11, 29, tzinfo=UTC)


def name_of(number: int) -> str:
    """The name with that number."""
    return f"photos/{number % DIRECTORIES:04}/2026/img-{number:08}.jpg"


def record_of(name: str, at: datetime) -> NameRecord:
    """The record of a name that was created, with its history."""
    step = Step(worker="node-7-1f6c9a", at=at)
    one = Announcement(
        op=f"{new_id()}.{new_id()}",
        verb="create",
        at=at.isoformat(),
        digest=digest_of(name.encode()),
        size=len(name) * 1000,
        type="image/jpeg",
    )
    return committed(announced(None, name, one, step), one.op, step)


def loaded(count: int) -> Iterator[tuple[str, bytes]]:
    """Keys and records, in random order, the same every time."""
    numbers = list(range(count))
    random.Random(1).shuffle(numbers)  # noqa: S311  (test data, not secrets)
    for number in numbers:
        name = name_of(number)
        record = record_of(name, START + timedelta(seconds=number))
        yield f"n.{name_key(name)}", msgspec.json.encode(record)


async def timed(work: Callable[[], Awaitable[object]]) -> tuple[list[float], float]:
    """Milliseconds of each round, one after another; and of processor time in all."""
    found = []
    processor = time.process_time()
    for _ in range(ROUNDS):
        started = time.perf_counter()
        await work()
        found.append((time.perf_counter() - started) * 1000)
    return found, (time.process_time() - processor) * 1000


def row(what: str, rounds: tuple[list[float], float]) -> None:
    """One line of the table."""
    ordered = sorted(rounds[0])
    p95 = ordered[int(len(ordered) * 0.95)]
    print(f"| {what:<42} | {statistics.median(ordered):7.2f} | {p95:7.2f}", end="")
    print(f" | {ordered[-1]:7.2f} | {rounds[1] / len(ordered):6.2f} |", flush=True)


def resident_mib(line: str) -> float:
    """The process's memory, by ``line`` of its status."""
    [text] = [one for one in Path("/proc/self/status").read_text().splitlines() if line in one]
    return int(text.split()[1]) / 1024


async def follow(url: str) -> None:
    """Build the index and measure it: the process of its own."""
    async with connected(url, BUCKET) as (store, _, _):
        await until_recovered(store)
        before = resident_mib("VmRSS")
        began, processor = time.perf_counter(), time.process_time()
        index = NameIndex(store, keep=lambda _name: Keep(), sources=SOURCES)
        index.start()
        await index.wait_ready()
        state = index.state
        print(f"\n{state.names:,} names; built in {time.perf_counter() - began:.1f} s", end="")
        print(f", {time.process_time() - processor:.1f} s of processor time of the worker", end="")
        print(f"; resident before {before:.0f} MiB, then {resident_mib('VmRSS'):.0f} MiB", end="")
        print(f", at most {resident_mib('VmHWM'):.0f} MiB\n")
        await measure(index, store, state.names)
        print(f"\nresident at the end {resident_mib('VmRSS'):.0f} MiB", end="")
        print(f", at most {resident_mib('VmHWM'):.0f} MiB; built anew {index.state.rebuilt} times")
        await index.aclose()


async def until_recovered(store: KeyValueRecordStore) -> None:
    """Wait until the server has read what it stored."""
    while True:
        try:
            await store.extent()
        except UnavailableError:
            await asyncio.sleep(0.5)
        else:
            return


async def measure(index: NameIndex, store: KeyValueRecordStore, names: int) -> None:
    """Print a row for each thing that is done."""
    rng = random.Random(2)  # noqa: S311
    in_directory = names // DIRECTORIES

    def some_directory() -> str:
        return f"photos/{rng.randrange(DIRECTORIES):04}/"

    async def page(**said: Any) -> NamesPage:
        return await index.page(listing(now=SOURCES.clock(), **said))

    async def some_names() -> None:
        assert len((await page(prefix=some_directory(), limit=100)).names) == min(100, in_directory)

    async def directory() -> None:
        found = await page(prefix=f"{some_directory()}2026/", delimiter="/")
        assert len(found.names) == min(1000, in_directory)

    async def common_prefixes() -> None:
        assert len((await page(prefix="photos/", delimiter="/")).prefixes) == DIRECTORIES

    async def create() -> str:
        name = f"{some_directory()}new/{new_id()}"
        value = msgspec.json.encode(record_of(name, SOURCES.clock()))
        await store.put(f"n.{name_key(name)}", value, expected=0)
        return name

    lacked = 0

    async def create_then_list() -> None:
        nonlocal lacked
        name = await create()
        found = await page(prefix=name.rpartition("/")[0])
        lacked += name not in {one.name for one in found.names}

    async def keeps() -> None:
        name = name_of(rng.randrange(names))
        assert await index.keeps(digest_of(name.encode()))

    print(f"| ms {'':<39} |     p50 |     p95 |     max |    CPU |")
    print(f"| {'-' * 42} | ------: | ------: | ------: | -----: |")
    row("page of 100 by prefix", await timed(some_names))
    row("a directory of 1,000 names", await timed(directory))
    row("1,000 common prefixes", await timed(common_prefixes))
    row("whether a blob is needed", await timed(keeps))
    row("create, then list it", await timed(create_then_list))
    print(f"\n{lacked} of {ROUNDS} lists lacked what was created before")


async def run(directory: Path, count: int) -> None:
    """Load, start again, measure."""
    started = time.perf_counter()
    with EmbeddedServer.start(directory, sync_interval="2m") as server:
        await fill(server.url, BUCKET, loaded(count))
    print(f"loaded {count:,} names in {time.perf_counter() - started:.0f} s", flush=True)
    with EmbeddedServer.start(directory) as server:
        command = (sys.executable, "-m", "tests.bench.names_at_scale", "--follow", server.url)
        process = await asyncio.create_subprocess_exec(*command)
        await process.wait()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--follow", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.follow:
        asyncio.run(follow(arguments.follow))
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        asyncio.run(run(Path(directory), arguments.names))


if __name__ == "__main__":
    main()
