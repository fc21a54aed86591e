"""Measures snapshots of a tree beside ``tar | zstd``: create, create again, restore, export.

Both take one step before either takes the next, so that they meet the same tree on the same
machine at nearly the same time.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from holdfast.archive.file_systems import RACY_NS
from holdfast.cli.bench.machine import (
    cpu_seconds,
    describe_machine,
    forget_peak,
    peak_resident_bytes,
)
from holdfast.cli.bench.pool import TIMEOUT_SECONDS, Pool, new_directory, run_directory, start_pool
from holdfast.cli.bench.report import HOLDFAST, Figure, Promise, Report, Sync
from holdfast.client import Client, connect
from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from holdfast.protocol.snapshots import RestoreRecord, SnapshotRecord

    type Say = Callable[[str], None]

APP: Final = "tree"
TAR: Final = "tar | zstd"
WORKER_PEAK: Final = "peak memory of the worker"
SETTLE_SECONDS: Final = RACY_NS / 1e9 + 0.5
"""A snapshot does not trust what changed so shortly before it; so changes are older here."""

PROMISES: Final = (
    Promise(
        name=WORKER_PEAK,
        sync=None,
        what=WORKER_PEAK,
        unit="peak MiB",
        comparison="at most",
        bound=300.0,
    ),
)
_ACTIONS: Final = "Seconds; the tree in the page cache, fresh repositories in every round"
_SPARE_BYTES: Final = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRun:
    """The settings: snapshots of ``source``, so many ``rounds`` on each kind of server."""

    source: Path
    syncs: tuple[Sync, ...]
    rounds: int
    directory: Path | None


class Taken(Struct, frozen=True, kw_only=True):
    """Costs of one action. ``peak_bytes`` is the largest of its processes; None: not known."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None = None


class PoolSnapshots:
    """holdfast with one worker, whose app the tree is. The peak is the worker's."""

    name = HOLDFAST

    def __init__(self, pool: Pool, client: Client) -> None:
        self.pool = pool
        self.client = client
        self.key = ""
        self.added: list[int] = []

    async def create(self, tree: Path) -> Taken:
        """A snapshot of ``tree``. ``added`` gets what its record says."""
        taken, record = await self.timed(self.client.snapshots.create(tree.name))
        self.key = _checked(record).key
        self.added.append(record.added)
        return taken

    async def restore(self, target: Path) -> Taken:
        """By the worker, into a new app: ``target``, which makes way for it."""
        await asyncio.to_thread(target.rmdir)
        taken, record = await self.timed(
            self.client.snapshots.restore(self.key, app=target.name, mode="new")
        )
        _checked(record)
        return taken

    async def export(self, target: Path) -> Taken | None:
        """The ``.tar.zst``."""
        taken, _ = await self.timed(self.client.snapshots.export_to(self.key, target))
        return taken

    async def timed[T](self, call: Awaitable[T]) -> tuple[Taken, T]:
        """The time of ``call`` by the caller's clock, CPU of client, worker and server."""
        forget_peak(self.pool.worker_pids[0])
        start, start_cpu = time.perf_counter(), self.cpu()
        result = await call
        taken = Taken(
            seconds=time.perf_counter() - start,
            cpu_seconds=self.cpu() - start_cpu,
            peak_bytes=peak_resident_bytes(self.pool.worker_pids[0]),
        )
        return taken, result

    def cpu(self) -> float:
        """CPU seconds of client, worker and server by now."""
        pids = (self.pool.server_pid, *self.pool.worker_pids)
        return time.process_time() + sum(cpu_seconds(pid) for pid in pids)


class TarZstd:
    """GNU tar through ``zstd -T0``: a whole new archive each time, and no repository."""

    name = TAR

    def __init__(self, archives: Path) -> None:
        self.archives = archives
        self._made = 0

    @property
    def latest(self) -> Path:
        """The newest archive."""
        return self.archives / f"{self._made}.tar.zst"

    async def create(self, tree: Path) -> Taken:
        """A new archive."""
        self._made += 1
        return await self.run(
            ["tar", "--create", "--xattrs", "--file", "-", "."],
            ["zstd", "-T0", "-3", "--quiet", "-o", self.latest],
            cwd=tree,
        )

    async def restore(self, target: Path) -> Taken:
        """Everything in it."""
        return await self.run(
            ["zstd", "--decompress", "--stdout", "--quiet", self.latest],
            ["tar", "--extract", "--xattrs", "--preserve-permissions", "--file", "-"],
            cwd=target,
        )

    async def export(self, target: Path) -> Taken | None:
        """It is one file already."""
        del target
        return None

    async def run(self, *commands: Sequence[str | Path], cwd: Path) -> Taken:
        """Run two commands, the second reading what the first writes."""
        return await asyncio.to_thread(_run_pipe, commands[0], commands[1], cwd)


def _run_pipe(first: Sequence[str | Path], second: Sequence[str | Path], cwd: Path) -> Taken:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with subprocess.Popen(first, cwd=cwd, stdout=subprocess.PIPE) as source:  # noqa: S603
        status = subprocess.run(second, cwd=cwd, stdin=source.stdout, check=False).returncode  # noqa: S603
        if source.stdout:
            source.stdout.close()  # so that the first ends when the second does
    seconds = time.perf_counter() - start
    if status or source.returncode:
        raise UnavailableError(f"{TAR} ended with {source.returncode}, {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds=seconds, cpu_seconds=cpu)


async def run_snapshot_bench(run: SnapshotRun, say: Say) -> Report:
    """Everything that ``run`` asks for. ``say`` is told what is going on.

    Raises InvalidError when it cannot be run here, UnavailableError when something does not work.
    """
    source = source_of(run.source)
    note, size = await asyncio.to_thread(describe_tree, source)
    with run_directory(run.directory, size * 8 + _SPARE_BYTES, "a smaller tree") as directory:
        report = Report(machine=describe_machine(directory), workers=1, notes=[note])
        with new_directory(directory / "apps") as apps:
            say(f"copying {source}")
            await asyncio.to_thread(copy_tree, source, apps / APP)
            await asyncio.sleep(SETTLE_SECONDS)
            for sync in run.syncs:
                taken: dict[tuple[str, str], list[Taken]] = {}
                for number in range(run.rounds):
                    say(f"{sync} sync, round {number + 1} of {run.rounds}")
                    await _measure_round(apps, directory / f"{sync}-{number}", sync, taken)
                report.figures.extend(action_figures(sync, taken))
    report.figures.extend(worker_peak(report.figures))
    return report


async def _measure_round(
    apps: Path, directory: Path, sync: Sync, taken: dict[tuple[str, str], list[Taken]]
) -> None:
    tree, restored, exported = apps / APP, apps / "restored", directory / "exported"
    settings = {"HOLDFAST_APPS": str(apps)}
    async with (
        start_pool(directory, sync=sync, workers=1, settings=settings) as pool,
        await connect(servers=pool.url, timeout_seconds=TIMEOUT_SECONDS) as client,
    ):
        archivers: list[PoolSnapshots | TarZstd] = [PoolSnapshots(pool, client)]
        if shutil.which("tar") and shutil.which("zstd"):
            archivers.append(TarZstd(directory))

        async def restore(archiver: PoolSnapshots | TarZstd) -> Taken:
            with new_directory(restored):
                return await archiver.restore(restored)

        steps: dict[str, Callable[[PoolSnapshots | TarZstd], Awaitable[Taken | None]]] = {
            "first": lambda archiver: archiver.create(tree),
            "unchanged": lambda archiver: archiver.create(tree),
            "restore": restore,
            "export": lambda archiver: archiver.export(exported),
        }
        for action, step in steps.items():
            for archiver in archivers:
                # Data of one archiver is not to be written back in the other's time.
                await asyncio.to_thread(os.sync)
                if (one := await step(archiver)) is not None:
                    taken.setdefault((action, archiver.name), []).append(one)


def action_figures(sync: Sync, taken: dict[tuple[str, str], list[Taken]]) -> Iterator[Figure]:
    """The costs ``taken``, by action and contender."""
    for (action, contender), rounds in taken.items():
        peaks = [each.peak_bytes / MIB for each in rounds if each.peak_bytes is not None]
        for unit, values in (
            ("s", [each.seconds for each in rounds]),
            ("CPU s", [each.cpu_seconds for each in rounds]),
            ("peak MiB", [max(peaks)] if peaks else []),
        ):
            if values:
                yield Figure(
                    table=_ACTIONS,
                    sync=sync,
                    what=action,
                    contender=contender,
                    unit=unit,
                    values=values,
                )


def worker_peak(figures: Iterable[Figure]) -> Iterator[Figure]:
    """The largest of holdfast's peaks, where it is known."""
    ours = [each for each in figures if (each.contender, each.unit) == (HOLDFAST, "peak MiB")]
    if ours:
        most = max(value for each in ours for value in each.values)
        yield Figure(
            table="Of all actions",
            sync=ours[0].sync,
            what=WORKER_PEAK,
            unit="peak MiB",
            values=[most],
        )


def source_of(path: Path) -> Path:
    """The directory to archive. Raises InvalidError when it is none."""
    source = path.expanduser().resolve()
    if not source.is_dir():
        raise InvalidError(f"{path} is not a directory")
    return source


def describe_tree(tree: Path) -> tuple[str, int]:
    """The content of ``tree`` in a line; the bytes of its regular files."""
    statuses = [status for _, status in walk(tree)]
    sizes = [status.st_size for status in statuses if stat.S_ISREG(status.st_mode)]
    size = sum(sizes)
    return (
        f"{tree}: {len(statuses):,} entries, {len(sizes):,} files, {size / MIB:.1f} MiB",
        size,
    )


def copy_tree(source: Path, target: Path) -> None:
    """A copy of ``source`` with all that ``cp -a`` keeps. Raises InvalidError."""
    copied = subprocess.run(  # noqa: S603
        ["cp", "-a", "--", source, target],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if copied.returncode:
        raise InvalidError(f"{source} cannot be copied: {copied.stderr.strip()[:500]}")


def walk(tree: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below ``tree`` and its status. Symbolic links are not followed."""
    for directory, directories, names in tree.walk():
        for name in (*directories, *names):
            path = directory / name
            yield path, path.lstat()


def _checked[R: (SnapshotRecord, RestoreRecord)](record: R) -> R:
    if record.state != "ok":
        raise UnavailableError(f"{record.key} is {record.state}: {record.reason}")
    return record
