"""How long listing by a label takes among a million records, beside a store that has few.

    python -m tests.bench.records_at_scale [--records 1000000] [--directory DIR]

Not a test: it asserts nothing, takes minutes, and wants some 2 GB of memory and 1 GB of disk. It
starts a nats-server of its own on ``DIR`` (a temporary one by default), loads it by pipelined
publishes without syncing, starts it again as it is run in production, and prints a table. Each
record ``s.<app>.<uuid>`` comes with one label entry ``l.owner.<n>.<app>.<uuid>``, 100 to an owner.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tests.bench.loading import connected, fill, new_id

from holdfast.errors import UnavailableError
from holdfast.runtime.embedded import EmbeddedServer
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.record_ports import Put
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


BUCKET: Final = "scale"
OWNER_RECORDS: Final = 100
VALUE: Final = bytes(300)
ROUNDS: Final = 200


def loaded_records(count: int) -> Iterator[tuple[str, bytes]]:
    """Records and their label entries, the same every time."""
    rng = random.Random(1)  # noqa: S311  (test data, not secrets)
    for number in range(count):
        app = f"app-{number % 997}"
        identifier = UUID(int=rng.getrandbits(128), version=4)
        yield f"s.{app}.{identifier}", VALUE
        yield f"l.owner.{number // OWNER_RECORDS}.{app}.{identifier}", b"1"


async def timed(work: Callable[[], Awaitable[object]], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of each round, one after another."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        await work()
        found.append((time.perf_counter() - started) * 1000)
    return found


async def measure(store: KeyValueRecordStore, jetstream: JetStream, owners: int) -> None:
    """Print a row for each thing that is done."""
    rng = random.Random(2)  # noqa: S311

    def some_prefix() -> str:
        return f"l.owner.{rng.randrange(owners)}"

    def record_of(label: str) -> str:
        return f"s.{'.'.join(label.split('.')[3:])}"

    async def list_label() -> list[str]:
        keys = await store.list_keys(some_prefix())
        assert len(keys) == OWNER_RECORDS
        return [record_of(key) for key in keys]

    async def list_page() -> None:
        records = await store.get_many(await list_label())
        assert len(records) == OWNER_RECORDS

    async def list_by_multi_last() -> None:
        query = {"multi_last": [f"$KV.{store.bucket}.{some_prefix()}.>"], "batch": OWNER_RECORDS}
        messages, _ = await jetstream.direct_batch(store.stream, query)
        assert len(messages) == OWNER_RECORDS

    names = itertools.cycle([await list_label() for _ in range(20)])
    numbers = itertools.count()

    async def get_many() -> None:
        assert len(await store.get_many(next(names))) == OWNER_RECORDS

    async def create() -> None:
        tail = f"new.{new_id()}"
        keys = (f"s.{tail}", f"l.a.1.{tail}", f"l.b.2.{tail}", f"l.c.{next(numbers)}.{tail}")
        await store.batch([Put(key=key, value=VALUE, expected=0) for key in keys])

    row("list_keys of a label, 100 match", await timed(list_label))
    row("the same by multi_last (reads values)", await timed(list_by_multi_last))
    row("get_many of 100 records", await timed(get_many))
    row("list by label: both", await timed(list_page))
    row("batch: a record and 3 labels", await timed(create))


def row(what: str, milliseconds: list[float]) -> None:
    """One line of the table."""
    ordered = sorted(milliseconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    print(f"| {what:<40} | {statistics.median(ordered):7.2f} | {p99:7.2f} | {ordered[0]:7.2f} |")


async def run(directory: Path, count: int) -> None:
    """Load, start again, measure."""
    for records in (10 * OWNER_RECORDS, count):
        place = directory / str(records)
        place.mkdir()
        started = time.perf_counter()
        with EmbeddedServer.start(place, sync_interval="2m") as server:
            await fill(server.url, BUCKET, loaded_records(records))
        loaded = time.perf_counter() - started
        with EmbeddedServer.start(place) as server:
            print(f"\n{records:,} records and as many labels, loaded in {loaded:.0f} s; ms\n")
            print(f"| {'':<40} |     p50 |     p99 |     min |")
            print(f"| {'-' * 40} | ------: | ------: | ------: |")
            await report(server.url, records)


async def report(url: str, records: int) -> None:
    """Wait until the server has recovered, then measure."""
    async with connected(url, BUCKET) as (store, js, _):
        while True:
            try:
                await store.list_keys("l.owner.0")
                break
            except UnavailableError:
                await asyncio.sleep(0.5)
        await measure(store, js, records // OWNER_RECORDS)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        asyncio.run(run(Path(directory), arguments.records))


if __name__ == "__main__":
    main()
