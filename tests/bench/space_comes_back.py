"""How much comes back of many snapshots, once all but one are deleted and collected.

    python -m tests.bench.space_comes_back [--files 20000] [--snapshots 100] [--settle 300]

Snapshots of a tree of small files and some large ones, of which a scattered hundredth changes
between each. All but the last are deleted, a collection runs, and what the packs take is compared
with what the last one takes in a store of its own: by the bytes that JetStream counts, and after
``--settle`` seconds by the files of the server, which rewrites a block of a stream only once less
than half of it lives. Then both are restored and exported in turn. Runs for half an hour; it
starts a nats-server of its own in a temporary directory, which takes some gigabytes.
"""

from __future__ import annotations

import argparse
import asyncio
import filecmp
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from nats.aio.client import Client as NatsClient
from tests.bench.cpu_per_request import Processes
from tests.bench.trees import scatter_change
from tests.deployment import Deployment

from holdfast.client import Client, connect
from holdfast.domain.limits import KIB, MIB
from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from holdfast.protocol.blobs import CollectedSpace

APP: Final = "shop"
LARGE_FILES: Final = 4
LARGE_BYTES: Final = 16 * MIB
ROUNDS: Final = 3
_MOST_SMALL_BYTES: Final = 8 * KIB
_GRACE_SECONDS: Final = 1
_SETTINGS: Final = {"collect_bytes_per_second": str(1 << 40)}


class Space(NamedTuple):
    """The space of packs: bytes and messages by JetStream, bytes of the server's files."""

    counted: int
    messages: int
    on_disk: int


def write_tree(root: Path, files: int) -> None:
    """Small files whose bytes are half random, in directories of a hundred, and large ones."""
    rng = random.Random(1)  # noqa: S311  (to be repeatable, not secret)
    for number in range(files):
        path = root / f"{number // 100:04}" / f"{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(_MOST_SMALL_BYTES // 2)).hex().encode())
    for number in range(LARGE_FILES):
        (root / f"large{number}").write_bytes(rng.randbytes(LARGE_BYTES))


def change_large(root: Path, seed: int) -> None:
    """Overwrite a hundredth of each large file, in one place."""
    rng = random.Random(seed)  # noqa: S311
    for number in range(LARGE_FILES):
        with (root / f"large{number}").open("r+b") as file:
            file.seek(rng.randrange(LARGE_BYTES - LARGE_BYTES // 100))
            file.write(rng.randbytes(LARGE_BYTES // 100))


async def space_of(deployment: Deployment, data: Path) -> Space:
    """The space of the packs of ``deployment`` now."""
    client = NatsClient()
    await client.connect(deployment.servers)
    stream = f"OBJ_{deployment.prefix}_packs"
    try:
        answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=30)
    finally:
        await client.close()
    state = json.loads(answer.data)["state"]
    on_disk = await asyncio.to_thread(_bytes_of_files, data, stream)
    return Space(state["bytes"], state["messages"], on_disk)


def _bytes_of_files(data: Path, stream: str) -> int:
    [directory] = data.rglob(f"streams/{stream}")
    return sum(one.stat().st_blocks * 512 for one in directory.rglob("*") if one.is_file())


async def collected(client: Client) -> CollectedSpace:
    """Collect once the grace time is over; the collection's work on the packs."""
    await asyncio.sleep(2 * _GRACE_SECONDS)
    report = await client.collect()
    packs = next(space for space in report.spaces if space.space == "packs")
    if report.off is not None or packs.failure is not None:
        raise SystemExit(report.off or packs.failure)
    return packs


class Took(NamedTuple):
    """Seconds by the clock, and of processors, by client, worker and server together."""

    elapsed: float
    processors: float


async def timed_reads(
    clients: dict[str, tuple[Client, str]], processes: Processes, scratch: Path
) -> dict[str, dict[str, list[Took]]]:
    """The cost of restores and exports of each of ``clients``' snapshots, in turn."""

    async def timed(read: Awaitable[object]) -> Took:
        began, spent = time.perf_counter(), sum(processes.seconds())
        await read
        return Took(time.perf_counter() - began, sum(processes.seconds()) - spent)

    took: dict[str, dict[str, list[Took]]] = {"restore": {}, "export": {}}
    for number in range(ROUNDS):
        for name in [*clients] if number % 2 else [*reversed(clients)]:
            snapshots, key = clients[name][0].snapshots, clients[name][1]
            target = scratch / f"{name}{number}"
            restored = await timed(snapshots.restore_to(key, target))
            exported = await timed(snapshots.export_to(key, scratch / "export.tar.zst"))
            took["restore"].setdefault(name, []).append(restored)
            took["export"].setdefault(name, []).append(exported)
            if number + 1 < ROUNDS:
                shutil.rmtree(target)
    return took


def differences(one: Path, other: Path) -> list[str]:
    """Paths below both that are not the same."""
    left = sorted(path.relative_to(one) for path in one.rglob("*"))
    right = sorted(path.relative_to(other) for path in other.rglob("*"))
    if left != right:
        return [str(path) for path in {*left} ^ {*right}]
    files = [str(path) for path in left if (one / path).is_file()]
    _, changed, errors = filecmp.cmpfiles(one, other, files, shallow=False)
    return changed + errors


async def measure(
    server: EmbeddedServer,
    many: Deployment,
    alone: Deployment,
    root: Path,
    snapshots: int,
    settle_seconds: float,
) -> list[str]:
    """All steps in two deployments whose worker has the app; a line about each figure."""
    tree, data, scratch = root / "apps" / APP, root / "data", root / "scratch"
    scratch.mkdir()
    async with (
        await connect(servers=many.url, prefix=many.prefix) as of_many,
        await connect(servers=alone.url, prefix=alone.prefix) as of_one,
    ):
        keys: list[str] = []
        for number in range(snapshots):
            if number:
                await asyncio.to_thread(scatter_change, tree, seed=number)
                await asyncio.to_thread(change_large, tree, number)
            keys.append((await of_many.snapshots.create(APP)).key)
        single = (await of_one.snapshots.create(APP)).key
        before = await space_of(many, data)
        for key in keys[:-1]:
            await of_many.snapshots.delete(key)
        began = time.perf_counter()
        packs = await collected(of_many)
        took = time.perf_counter() - began
        after, least = await space_of(many, data), await space_of(alone, data)
        await asyncio.sleep(settle_seconds)
        later, least_later = await space_of(many, data), await space_of(alone, data)
        workers = [*many.workers.values(), *alone.workers.values()]
        reads = await timed_reads(
            {"repacked": (of_many, keys[-1]), "fresh": (of_one, single)},
            Processes([worker.pid for worker in workers], server.pid),
            scratch,
        )
        differ = differences(tree, scratch / f"repacked{ROUNDS - 1}")
    return [
        f"{snapshots} snapshots, all but the last deleted",
        f"before: {_told(before)}",
        f"collection ({took:.1f} s): removed {packs.removed}, of {packs.repacked} packs a part,"
        f" {(packs.removed_bytes + packs.repacked_bytes) / MIB:.1f} MiB given back",
        f"after: {_told(after)}",
        f"the last one alone: {_told(least)}",
        f"bytes: {after.counted / least.counted:.3f} x those of the last one alone",
        f"after {settle_seconds:g} s: {_told(later)}; alone {_told(least_later)}",
        f"files: {later.on_disk / later.counted:.3f} x bytes",
        f"restored: {len(differ)} paths differ",
        *(_compared(what, by["repacked"], by["fresh"]) for what, by in reads.items()),
    ]


def _compared(what: str, repacked: list[Took], fresh: list[Took]) -> str:
    mine, other = (Took(*map(statistics.median, zip(*a, strict=True))) for a in (repacked, fresh))
    return (
        f"{what}: {other.elapsed / mine.elapsed:.2f} x the speed of a fresh one's"
        f" (medians of {ROUNDS}: {mine.elapsed:.2f} s and {other.elapsed:.2f} s);"
        f" by processors {other.processors / mine.processors:.2f} x"
        f" ({mine.processors:.2f} s and {other.processors:.2f} s)"
    )


def _told(space: Space) -> str:
    return (
        f"{space.counted / MIB:.1f} MiB in {space.messages} messages,"
        f" {space.on_disk / MIB:.1f} MiB of files"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--settle", type=float, default=300.0, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-space-") as directory:
        root = Path(directory)
        write_tree(root / "apps" / APP, options.files)
        with (
            EmbeddedServer.start(root / "data") as server,
            Deployment(server.url, grace_seconds=_GRACE_SECONDS) as many,
            Deployment(server.url, grace_seconds=_GRACE_SECONDS) as alone,
        ):
            for deployment in many, alone:
                deployment.start("one", apps=str(root / "apps"), **_SETTINGS)
            lines = asyncio.run(
                measure(server, many, alone, root, options.snapshots, options.settle)
            )
    sys.stdout.write("\n".join([f"{options.files} files", *lines]) + "\n")


if __name__ == "__main__":
    main()
