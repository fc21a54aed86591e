"""Many watchers of many changes, while a worker is killed in the middle.

    python -m tests.bench.watchers [--watchers 100] [--rate 200] [--seconds 60] [--synced]

Not a test: it asserts nothing. It starts a nats-server and three workers of its own, replaces names
at the rate, all of which every watcher watches, and kills one worker half way. Each replace of a
name makes one step with the next version, so whoever lacks one, or has them out of order, is
counted. The latency is from the time of the step, by the worker that took it, to its arrival here.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.deployment import Deployment

from holdfast.client import connect
from holdfast.errors import HoldfastError
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from holdfast.client import Client

NAMES: Final = 400
CONNECTIONS: Final = 10
IN_FLIGHT: Final = 32
NODES: Final = ("one", "two", "three")
SETTLE_SECONDS: Final = 30.0


class Watcher:
    """Takes what it is told; ``versions`` is the last of each name."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.events = 0
        self.faults = 0
        self.milliseconds: list[float] = []

    async def watch(self, client: Client, since: int) -> None:
        """For ever."""
        async with aclosing(client.watch("names", since=since)) as events:
            async for event in events:
                self.events += 1
                at = datetime.fromisoformat(event.time).timestamp()
                self.milliseconds.append((time.time() - at) * 1000)
                version = event.data["version"]
                self.faults += version != self.versions.get(event.subject, 1) + 1
                self.versions[event.subject] = version


async def write(client: Client, rate: float, seconds: float) -> Counter[str]:
    """Replace names in turn, ``rate`` a second; the outcomes."""
    outcomes: Counter[str] = Counter()
    slots = asyncio.Semaphore(IN_FLIGHT)
    tasks: set[asyncio.Task[None]] = set()

    async def replace(number: int) -> None:
        try:
            await client.names.replace(f"n{number % NAMES}", number.to_bytes(8))
            outcomes["ok"] += 1
        except HoldfastError as error:
            outcomes[error.code] += 1
        finally:
            slots.release()

    started = time.monotonic()
    for number in itertools.count():
        due = started + number / rate
        if due > started + seconds:
            break
        await asyncio.sleep(max(due - time.monotonic(), 0))
        await slots.acquire()
        task = asyncio.create_task(replace(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    outcomes["seconds"] = round(time.monotonic() - started)
    return outcomes


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, with its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(deployment: Deployment, server: int, options: argparse.Namespace) -> None:
    """Print what each has seen."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                await connect(servers=deployment.url, prefix=deployment.prefix)
            )
            for _ in range(CONNECTIONS)
        ]
        writer = clients[0]
        for number in range(NAMES):
            await writer.names.create(f"n{number}", b"")
        since = await writer.position("names")
        watchers = [Watcher() for _ in range(options.watchers)]
        watching = [
            asyncio.create_task(watcher.watch(clients[number % CONNECTIONS], since))
            for number, watcher in enumerate(watchers)
        ]
        pids = {node: worker.pid for node, worker in deployment.workers.items()}
        pids |= {"server": server, "clients": os.getpid()}
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        writing = asyncio.create_task(write(writer, options.rate, options.seconds))
        await asyncio.sleep(options.seconds / 2)
        used = {NODES[0]: cpu_seconds(pids[NODES[0]]) - before[NODES[0]]}
        deployment.kill(NODES[0])
        outcomes = await writing
        used |= {n: cpu_seconds(p) - before[n] for n, p in pids.items() if n != NODES[0]}
        final = {
            f"n{number}": (await writer.names.stat(f"n{number}")).version for number in range(NAMES)
        }
        wanted = {name: version for name, version in final.items() if version and version > 1}
        deadline = time.monotonic() + SETTLE_SECONDS
        while (  # noqa: ASYNC110  (no event tells)
            any(w.versions != wanted for w in watchers) and time.monotonic() < deadline
        ):
            await asyncio.sleep(0.1)
        for task in watching:
            task.cancel()
        ended = await asyncio.gather(*watching, return_exceptions=True)
        failures = Counter(repr(e) for e in ended if not isinstance(e, asyncio.CancelledError))
        print(f"watches that failed: {dict(failures)}")
    report(watchers, wanted, outcomes, used)


def report(
    watchers: list[Watcher],
    wanted: dict[str, int],
    outcomes: Counter[str],
    used: dict[str, float],
) -> None:
    """Print it."""
    changes = sum(version - 1 for version in wanted.values())
    print(f"writes: {dict(outcomes)}; steps made: {changes}")
    counts = sorted(watcher.events for watcher in watchers)
    print(f"events that a watcher had: {counts[0]} to {counts[-1]}")
    complete = sum(watcher.versions == wanted and not watcher.faults for watcher in watchers)
    print(f"watchers that had every step, in order: {complete} of {len(watchers)}")
    latencies = sorted(ms for watcher in watchers for ms in watcher.milliseconds)
    if latencies:
        cuts = statistics.quantiles(latencies, n=100)
        print(
            f"latency ms: p50 {cuts[49]:.0f}, p95 {cuts[94]:.0f}, p99 {cuts[98]:.0f}, "
            f"longest {latencies[-1]:.0f}"
        )
    print("CPU seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in used.items()))


def main() -> None:
    """Run it as the arguments say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--synced", action="store_true", help="the server syncs each write")
    options = parser.parse_args()
    sync = "always" if options.synced else "2m"
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServer.start(Path(directory), sync_interval=sync) as server,
        Deployment(server.url) as deployment,
    ):
        deployment.start(*NODES)
        asyncio.run(measure(deployment, server.pid, options))


if __name__ == "__main__":
    main()
