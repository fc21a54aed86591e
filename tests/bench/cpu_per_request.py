"""The cost of one small request to client, workers and server, in microseconds of processor.

    python -m tests.bench.cpu_per_request [--seconds 4] [--sync 2m] [--in-flight 64] [--size 4096]

Not a test: it asserts nothing. It starts a nats-server and two workers of its own, and asks with
one client. Processor time (user and system) is the steady figure on a machine that does other
things; the rate beside it is not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.deployment import deployed

from holdfast.client import Client, connect
from holdfast.runtime.embedded import EmbeddedServer
from holdfast.transport import connection as transport
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Ask = Callable[[int], Awaitable[object]]

BLOBS: Final = 500
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Processes:
    """Whose processor time is looked at."""

    workers: list[int]
    server: int

    def seconds(self) -> tuple[float, float, float]:
        """Of this process, of the workers together and of the server, so far."""
        return time.process_time(), sum(map(seconds_of, self.workers)), seconds_of(self.server)


def seconds_of(pid: int) -> float:
    """Of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


async def measure(
    name: str, ask: Ask, processes: Processes, *, in_flight: int, seconds: float
) -> None:
    """Ask for ``seconds``, ``in_flight`` at a time, and print a row."""
    taken: list[float] = []
    numbers = iter(range(10**9))
    until = time.monotonic() + seconds

    async def run() -> None:
        while (started := time.monotonic()) < until:
            await ask(next(numbers))
            taken.append(time.monotonic() - started)

    before = processes.seconds()
    began = time.monotonic()
    await asyncio.gather(*(run() for _ in range(in_flight)))
    wall = time.monotonic() - began
    spent = [after - at for after, at in zip(processes.seconds(), before, strict=True)]
    client, workers, server = (1e6 * part / len(taken) for part in spent)
    p50 = 1e3 * statistics.median(taken)
    print(
        f"{name:14} {in_flight:4} {len(taken) / wall:8.0f}/s  p50 {p50:7.2f} ms"
        f"   client {client:5.0f}  workers {workers:5.0f}  server {server:5.0f} us",
        flush=True,
    )


async def bare(url: str, processes: Processes, in_flight: int, seconds: float, size: int) -> None:
    """A request that somebody on another connection answers with ``size`` bytes."""
    asking, answering = [await transport.connect(NatsOptions(servers=(url,))) for _ in range(2)]
    data = os.urandom(size)
    answering.route("bare", lambda message: answering.send(message.reply, data))
    await answering.wait_flushed(30)
    inbox = Inbox(asking)
    await measure(
        "bare, ours x2",
        lambda _: inbox.request("bare", b"x" * 64, timeout_seconds=5),
        processes,
        in_flight=in_flight,
        seconds=seconds,
    )
    await asking.close()
    await answering.close()


async def run(url: str, prefix: str, processes: Processes, options: argparse.Namespace) -> None:
    """All rows."""
    client: Client
    async with await connect(servers=url, prefix=prefix) as client:
        data = [os.urandom(options.size) for _ in range(BLOBS)]
        digests = [(await client.put(blob)).digest for blob in data]
        for in_flight in (options.in_flight, 1):
            await bare(url, processes, in_flight, options.seconds, options.size)
            rows: tuple[tuple[str, Ask], ...] = (
                ("get", lambda n: client.get(digests[n % BLOBS])),
                ("put", lambda n: client.put(os.urandom(options.size))),
            )
            for name, ask in rows:
                await measure(name, ask, processes, in_flight=in_flight, seconds=options.seconds)


def main() -> None:
    """Start all, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--sync", default="2m")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--size", type=int, default=4096)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServer.start(Path(directory), sync_interval=options.sync) as server,
        deployed(server.url, "one", "two", monitor_url=server.monitor_url) as deployment,
    ):
        workers = [process.pid for process in deployment.workers.values()]
        processes = Processes(workers, server.pid)
        asyncio.run(run(server.url, deployment.prefix, processes, options))


if __name__ == "__main__":
    main()
