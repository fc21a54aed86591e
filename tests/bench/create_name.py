"""How long a name takes to be created, beside a put of nats-py into a KV bucket, in one run.

    python -m tests.bench.create_name [--rounds 7] [--creates 150] [--sync always] [--size 1024]

Not a test: it asserts nothing. One request at a time, one server, one replica, one worker. The
two take turns; each round's ratio is printed, and the median of all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nats
from nats.js.api import KeyValueConfig
from tests.deployment import deployed

from holdfast.client import connect
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def times(count: int, ask: Callable[[int], Awaitable[object]]) -> list[float]:
    """Milliseconds of each of ``count`` requests, one after the other."""
    taken = []
    for number in range(count):
        started = time.perf_counter()
        await ask(number)
        taken.append(1e3 * (time.perf_counter() - started))
    return taken


async def run(url: str, prefix: str, options: argparse.Namespace) -> None:
    """All rounds."""
    other = await nats.connect(url)
    bucket = await other.jetstream().create_key_value(KeyValueConfig(bucket="bare"))
    ratios = []
    async with await connect(servers=url, prefix=prefix) as client:
        for number in range(options.rounds):
            data = os.urandom(options.size)

            async def put(one: int, data: bytes = data, number: int = number) -> None:
                await bucket.put(f"k.{number}.{one}", data)

            async def create(one: int, number: int = number) -> None:
                await client.names.create(f"k/{number}/{one}", os.urandom(options.size))

            bare = await times(options.creates, put)
            named = await times(options.creates, create)
            ratios.append(statistics.median(named) / statistics.median(bare))
            print(
                f"KV put p50 {statistics.median(bare):6.2f} ms   "
                f"create p50 {statistics.median(named):6.2f} ms   {ratios[-1]:5.2f} x",
                flush=True,
            )
    await other.close()
    print(f"median of {options.rounds} rounds: {statistics.median(ratios):.2f} x")


def main() -> None:
    """Start all, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--creates", type=int, default=150)
    parser.add_argument("--sync", default="always")
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServer.start(Path(directory), sync_interval=options.sync) as server,
        deployed(server.url, "one", monitor_url=server.monitor_url) as deployment,
    ):
        asyncio.run(run(server.url, deployment.prefix, options))


if __name__ == "__main__":
    main()
