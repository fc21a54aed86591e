"""How long a snapshot of a tree takes in which nothing has changed, here and in other checkouts.

    python -m tests.bench.unchanged TREE [--rounds 40] [--sync always] [--beside NAME=PATH ...]

Not a test: it asserts nothing. ``--beside`` names other versions, by where Python is to look for
their packages. Each version has a server and a worker of its own, all at the same time, and they
take turns. Printed are milliseconds by the caller's clock, those of the processors of worker and
server, and the messages that the worker sends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nats

import holdfast
from holdfast.cli.bench.machine import cpu_seconds
from holdfast.cli.bench.pool import child_environment
from holdfast.cli.bench.snapshots import APP, SETTLE_SECONDS, copy_tree
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from nats.aio.client import Client

HERE = str(Path(holdfast.__file__).parents[1])
_REQUEST = json.dumps({"app": APP, "wait_seconds": 25}).encode()
_PAUSE_SECONDS = 0.05
_FIRST = 2


class Taken(NamedTuple):
    """Costs of one snapshot."""

    ms: float
    cpu_ms: float
    messages: int


class Version:
    """A server and a worker of one version."""

    def __init__(self, server: EmbeddedServer, worker: subprocess.Popen[bytes]) -> None:
        self.server = server
        self.worker = worker

    async def snapshot(self, client: Client) -> Taken:
        """One more of the same."""
        messages, cpu, start = self.messages(client), self.cpu(), time.perf_counter()
        answer = json.loads((await client.request("snapshot.create", _REQUEST, 30)).data)
        took = time.perf_counter() - start
        assert answer["state"] == "ok", answer
        return Taken(1e3 * took, 1e3 * (self.cpu() - cpu), self.messages(client) - messages)

    def cpu(self) -> float:
        """Seconds of worker and server by now."""
        return cpu_seconds(self.server.pid) + cpu_seconds(self.worker.pid)

    def messages(self, client: Client) -> int:
        """Those that the server got by now, but from ``client``."""
        with urllib.request.urlopen(f"{self.server.monitor_url}/connz") as answer:  # noqa: S310
            connections = json.load(answer)["connections"]
        return sum(one["in_msgs"] for one in connections if one["cid"] != client.client_id)


@contextmanager
def running(path: str, tree: Path, directory: Path, sync: str) -> Iterator[Version]:
    """The version that lies at ``path``, with an app that is a copy of ``tree``."""
    directory.mkdir()
    apps = directory / "apps"
    apps.mkdir()
    copy_tree(tree, apps / APP)
    with EmbeddedServer.start(directory / "nats", sync_interval=sync) as server:
        environment = child_environment(os.environ, server.url) | {
            "PYTHONPATH": path,
            "HOLDFAST_APPS": str(apps),
            "HOLDFAST_MONITOR_URL": server.monitor_url,
        }
        command = [sys.executable, "-m", "holdfast"]
        init = [*command, "admin", "init"]
        subprocess.run(init, env=environment, stdout=subprocess.DEVNULL, check=True)
        worker = subprocess.Popen([*command, "worker"], env=environment, cwd=directory)
        try:
            yield Version(server, worker)
        finally:
            worker.terminate()
            worker.wait()


async def measure(versions: Mapping[str, Version], rounds: int) -> dict[str, list[Taken]]:
    """The costs of the snapshots of each, made in turns."""
    taken: dict[str, list[Taken]] = {name: [] for name in versions}
    clients = {name: await nats.connect(one.server.url) for name, one in versions.items()}
    await asyncio.sleep(SETTLE_SECONDS)
    for number in range(_FIRST + rounds):
        names = list(versions)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(await versions[name].snapshot(clients[name]))
            await asyncio.sleep(_PAUSE_SECONDS)
    for client in clients.values():
        await client.close()
    return {name: all_taken[_FIRST:] for name, all_taken in taken.items()}


def show(taken: Mapping[str, Sequence[Taken]]) -> None:
    """A line for each version."""
    for name, all_taken in taken.items():
        ms, cpu, messages = zip(*all_taken, strict=True)
        ratios = [mine.ms / other.ms for mine, other in zip(taken["here"], all_taken, strict=True)]
        print(
            f"{name:8}   least {min(ms):6.1f} ms   p50 {statistics.median(ms):6.1f} ms"
            f"   processor {statistics.mean(cpu):6.1f} ms"
            f"   messages {statistics.median(messages):4.0f}"
            f"   here takes {statistics.median(ratios):.2f} times as long"
        )


def main() -> None:
    """Start all, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--sync", default="always")
    parser.add_argument("--beside", nargs="*", default=[])
    options = parser.parse_args()
    paths = {"here": HERE} | dict(one.split("=", 1) for one in options.beside)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        versions = {
            version: stack.enter_context(
                running(path, options.tree, Path(name) / version, options.sync)
            )
            for version, path in paths.items()
        }
        show(asyncio.run(measure(versions, options.rounds)))


if __name__ == "__main__":
    main()
