"""The cost of changing and reading records on disk, synced: wall clock and processor time.

    python -m tests.bench.disk_records [--rounds 300] [--directory DIR]

Not a test: it asserts nothing. ``DIR`` is where the store is made, a temporary directory by
default; take one on the disk in question. Processor time (user and system, of all threads) is the
steady figure on a machine that does other things.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from holdfast.sources import utc_now
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.record_ports import Put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

VALUE: Final = bytes(300)
STORED: Final = 1000
READ_AT_ONCE: Final = 100


async def measure(store: DiskRecordStore, rounds: int) -> None:
    """Print a row for each thing that is done."""
    keys = [f"s.app.{number:06}" for number in range(STORED)]
    for key in keys:
        await store.put(key, VALUE, expected=0)
    numbers = itertools.count()
    revision = await store.put("changed", VALUE, expected=0)

    async def create() -> None:
        await store.put(f"created.{next(numbers)}", VALUE, expected=0)

    async def change() -> None:
        nonlocal revision
        revision = await store.put("changed", VALUE, expected=revision)

    async def batch() -> None:
        tail = next(numbers)
        await store.batch([Put(key=f"{n}.{tail}", value=VALUE, expected=0) for n in "abc"])

    async def get() -> None:
        await store.get(keys[next(numbers) % STORED])

    async def get_many() -> None:
        first = next(numbers) * 7 % (STORED - READ_AT_ONCE)
        await store.get_many(keys[first : first + READ_AT_ONCE])

    async def list_keys() -> None:
        await store.list_keys("s.app")

    print(f"| {'':<28} | wall p50 ms | wall p95 ms | CPU ms |")
    print(f"| {'-' * 28} | ----------: | ----------: | -----: |")
    await row("put of a new record", create, rounds)
    await row("put over a record", change, rounds)
    await row("batch of three new records", batch, rounds)
    await row("get", get, rounds)
    await row(f"get_many of {READ_AT_ONCE}", get_many, rounds)
    await row(f"list_keys of {STORED:,}", list_keys, rounds)


async def row(what: str, work: Callable[[], Awaitable[None]], rounds: int) -> None:
    """One line of the table."""
    walls = []
    processor = time.process_time()
    for _ in range(rounds):
        started = time.perf_counter()
        await work()
        walls.append((time.perf_counter() - started) * 1000)
    processor = (time.process_time() - processor) * 1000 / rounds
    p95 = statistics.quantiles(walls, n=20)[-1]
    print(f"| {what:<28} | {statistics.median(walls):11.2f} | {p95:11.2f} | {processor:6.2f} |")


async def run(root: Path, rounds: int) -> None:
    """Make a store, and measure."""
    create_record_store(root)
    async with aclosing(DiskRecordStore(root, clock=utc_now)) as store:
        await measure(store, rounds)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        asyncio.run(run(Path(directory) / "store", arguments.rounds))


if __name__ == "__main__":
    main()
