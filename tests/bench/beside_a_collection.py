"""How long puts take while collections run, beside how long they take without any.

    python -m tests.bench.beside_a_collection [--rounds 5] [--seconds 60] [--blobs 40000]

Not a test: it asserts nothing. Two workers, one server, one replica, the pace of a collection as it
is by default. In each round ``--callers`` put one small blob after the other, first while nothing
else is done, then while one collection follows another, which go over ``--blobs`` that stay and
remove ``--garbage`` that names have had. Each round's 95th percentiles are printed, and the median
of their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.deployment import Deployment

from holdfast.client import Client, connect
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

STAYING_BYTES: Final = 200
PUT_BYTES: Final = 4096
GARBAGE_BYTES: Final = 64 * 1024
NEVER: Final = "86400"
_AT_ONCE: Final = 64
_GRACE_SECONDS: Final = 1


async def fill(client: Client, count: int) -> None:
    """Store blobs that stay."""
    sources = (os.urandom(STAYING_BYTES) for _ in range(count))
    async for _ in client.put_many(sources):
        pass


async def litter(client: Client, count: int) -> None:
    """Give blobs to names that are deleted again; only a collection removes them."""
    for numbers in batched(range(count), _AT_ONCE):
        await _all(client.names.create(f"g/{one}", os.urandom(GARBAGE_BYTES)) for one in numbers)
        await _all(client.names.delete(f"g/{one}") for one in numbers)
    await asyncio.sleep(2 * _GRACE_SECONDS)


async def _all(doing: Iterable[Awaitable[object]]) -> None:
    await asyncio.gather(*doing)


async def put_for(client: Client, callers: int, seconds: float) -> list[float]:
    """Milliseconds of each put."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def put() -> None:
        while (began := time.perf_counter()) < end:
            await client.put(os.urandom(PUT_BYTES))
            taken.append(1e3 * (time.perf_counter() - began))

    await _all(put() for _ in range(callers))
    return taken


class Collections:
    """One collection after the other, until it is told to stop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_over = False
        self.runs = self.removed = 0

    async def run(self) -> None:
        """All of them."""
        while not self._is_over:
            report = await self._client.collect()
            self.runs += report.done
            self.removed += sum(space.removed for space in report.spaces if report.done)

    def stop(self) -> None:
        """After the one that is under way."""
        self._is_over = True


async def run(deployment: Deployment, options: argparse.Namespace) -> None:
    """All rounds."""
    ratios: list[float] = []
    url, prefix = deployment.url, deployment.prefix
    async with (
        await connect(servers=url, prefix=prefix) as client,
        await connect(servers=url, prefix=prefix) as collecting,
    ):
        await fill(client, options.blobs)
        for _ in range(options.rounds):
            await litter(client, options.garbage)
            idle = await put_for(client, options.callers, options.seconds)
            collections = Collections(collecting)
            running = asyncio.create_task(collections.run())
            busy = await put_for(client, options.callers, options.seconds)
            collections.stop()
            await running
            ratios.append(p95(busy) / p95(idle))
            say(
                f"idle: {len(idle)} puts, p95 {p95(idle):.2f} ms; beside {collections.runs}"
                f" collections that removed {collections.removed}: {len(busy)} puts,"
                f" p95 {p95(busy):.2f} ms; {ratios[-1]:.2f} x"
            )
    say(f"median of {options.rounds} rounds: {statistics.median(ratios):.2f} x")


def p95(taken: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(taken, n=20)[-1]


def say(line: str) -> None:
    """Print it now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Start all, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--blobs", type=int, default=5000)
    parser.add_argument("--garbage", type=int, default=500)
    parser.add_argument("--callers", type=int, default=4)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="holdfast-beside-") as directory,
        EmbeddedServer.start(Path(directory)) as server,
        Deployment(server.url, grace_seconds=_GRACE_SECONDS) as deployment,
    ):
        deployment.start("one", "two", collect_every_seconds=NEVER)
        asyncio.run(run(deployment, options))


if __name__ == "__main__":
    main()
