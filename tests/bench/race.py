"""One round of ``snapshot``, and its large file: who does what, in which order.

All contenders take one step before any takes the next, beginning with another one each time, so
that they meet the same tree on the same machine at nearly the same time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import nats
from msgspec import Struct
from tests.bench.backup_tools import make_tool, run_timed
from tests.bench.processes import ProcessError
from tests.bench.promises import LARGE_FILE
from tests.bench.trees import (
    CHANGED_BLOCK_BYTES,
    Change,
    change_blocks,
    mid_file,
    scatter_change,
    write_large_file,
)

from holdfast.cli.bench.machine import peak_resident_bytes
from holdfast.cli.bench.pool import TIMEOUT_SECONDS, child_environment, new_directory, start_pool
from holdfast.cli.bench.report import HOLDFAST, Figure
from holdfast.cli.bench.snapshots import APP, SETTLE_SECONDS, PoolSnapshots, Taken
from holdfast.client import connect
from holdfast.domain.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from tests.bench.backup_tools import BackupTool

    from holdfast.cli.bench.report import Sync

    type Do = Callable[[BackupTool], Awaitable[Taken | None]]
    type Say = Callable[[str], None]

_RESTORED: Final = "restored"


class MeasuredSnapshots(PoolSnapshots):
    """holdfast, and what else is compared: one file, by a request and by a command."""

    async def prepare(self) -> None:
        """Nothing: the pool runs."""

    async def read_file(self, path: Path, target: Path) -> Taken:
        """One file, by a request on an open connection. Writing it is outside the clock."""
        taken, data = await self.timed(self.client.snapshots.read(self.key, str(path)))
        await asyncio.to_thread(target.write_bytes, data)
        return taken

    async def read_by_command(self, path: Path, target: Path) -> Taken:
        """The same by the whole command, its start included. The peak is the worker's."""
        directory = self.pool.directory
        before = self.cpu()
        taken = await run_timed(
            [[sys.executable, "-m", "holdfast", "snapshot", "cat", self.key, str(path)]],
            log=directory / "command.log",
            cwd=directory,
            environment=child_environment(os.environ, self.pool.url),
            stdout=target,
        )
        return Taken(
            seconds=taken.seconds,
            cpu_seconds=taken.cpu_seconds + self.cpu() - before,
            peak_bytes=peak_resident_bytes(self.pool.worker_pids[0]),
        )

    async def stored_bytes(self) -> int:
        """The bytes of all streams of the server: packs, records, and NATS's own part of each."""
        connection = await nats.connect(self.pool.url)
        try:
            streams = await connection.jetstream().streams_info()
        finally:
            await connection.close()
        return sum(stream.state.bytes for stream in streams)


class RoundFigures(Struct, frozen=True, kw_only=True):
    """One round's figures. ``stored`` and ``reported``: after or by first, unchanged, changed.

    ``stored`` is what the repository held, ``reported`` what holdfast's records say was added.
    """

    taken: dict[tuple[str, str], Taken]
    stored: dict[str, list[int]]
    reported: list[int]
    change: Change
    one_file_size: int


class Race:
    """The contenders of a round. One that fails leaves it, and ``problems`` says why."""

    def __init__(self, contenders: Sequence[BackupTool], *, turn: int, problems: list[str]) -> None:
        self.contenders = list(contenders)
        self.taken: dict[tuple[str, str], Taken] = {}
        self.stored: dict[str, list[int]] = {each.name: [] for each in contenders}
        self._turn = turn
        self._problems = problems

    async def step(self, action: str, do: Do) -> None:
        """Have each contender ``do`` it, one after the other. Raises what holdfast raises."""
        for contender in self._in_turn():
            # What one has written is not to be written back in another's time.
            await asyncio.to_thread(os.sync)
            await self._attempt(contender, action, do)

    async def weigh(self) -> None:
        """Note what each repository holds now."""
        for contender in self.contenders:
            self.stored[contender.name].append(await contender.stored_bytes())

    async def _attempt(self, contender: BackupTool, action: str, do: Do) -> None:
        try:
            taken = await do(contender)
        except ProcessError as error:
            if contender.name == HOLDFAST:
                raise
            self._problems.append(f"{action}: {error}")
            self.contenders.remove(contender)
        else:
            if taken is not None:
                self.taken[action, contender.name] = taken

    def _in_turn(self) -> list[BackupTool]:
        self._turn += 1
        at = self._turn % len(self.contenders)
        return [*self.contenders[at:], *self.contenders[:at]]


async def measure_round(
    tools: Sequence[str],
    apps: Path,
    directory: Path,
    *,
    sync: Sync,
    number: int,
    seed: int,
    problems: list[str],
    say: Say,
) -> RoundFigures:
    """Everything once, on fresh repositories in ``directory``. The tree is changed on the way.

    Raises what holdfast raises.
    """
    tree = apps / APP
    async with _contenders(tools, apps, directory, sync=sync, problems=problems) as contenders:
        race = Race(contenders, turn=number, problems=problems)
        ours = next(each for each in contenders if isinstance(each, MeasuredSnapshots))
        await _back_up(race, "first", tree, say)
        await _back_up(race, "unchanged", tree, say)
        change = await asyncio.to_thread(scatter_change, tree, seed=seed)
        await _back_up(race, "changed", tree, say)
        say("restoring everything")
        await race.step("restore", lambda each: _restore(each, apps, directory))
        say("reading one file")
        one = await asyncio.to_thread(mid_file, tree)
        await race.step("one file", lambda each: _read(each, one, tree, directory))
        await race.step("command", lambda each: _read_by_command(each, one, tree, directory))
        say("exporting")
        await race.step("export", lambda each: _export(each, directory))
        return RoundFigures(
            taken=race.taken,
            stored=race.stored,
            reported=ours.added,
            change=change,
            one_file_size=(tree / one).stat().st_size,
        )


async def _back_up(race: Race, action: str, tree: Path, say: Say) -> None:
    say(f"{action} snapshot")
    await asyncio.sleep(SETTLE_SECONDS)
    await race.step(action, lambda each: each.create(tree))
    await race.weigh()


async def measure_large_file(
    tools: Sequence[str],
    directory: Path,
    *,
    sync: Sync,
    size: int,
    seed: int,
    problems: list[str],
    say: Say,
) -> list[Figure]:
    """One file of ``size`` random bytes, then the same with one block in a hundred overwritten."""
    apps = directory / "apps"
    tree = apps / APP
    tree.mkdir(parents=True)
    file = tree / "large"
    say(f"writing one file of {size:,} bytes")
    await asyncio.to_thread(write_large_file, file, size, seed=seed)
    async with _contenders(tools, apps, directory, sync=sync, problems=problems) as contenders:
        race = Race(contenders, turn=0, problems=problems)
        say("one large file, first")
        await race.step("first", lambda each: each.create(tree))
        await race.weigh()
        change = await asyncio.to_thread(change_blocks, file, seed=seed)
        say("one large file, changed")
        await race.step("changed", lambda each: each.create(tree))
        await race.weigh()
    what = f"{size / MIB:g} MiB, {change.places} blocks of {CHANGED_BLOCK_BYTES / KIB:g} KiB"
    return [
        figure for each in race.contenders for figure in _large_figures(race, each.name, sync, what)
    ]


def _large_figures(race: Race, name: str, sync: Sync, size: str) -> Iterator[Figure]:
    first, again = race.taken["first", name], race.taken["changed", name]
    peaks = [each.peak_bytes / MIB for each in (first, again) if each.peak_bytes is not None]
    values = {
        "first s": first.seconds,
        "again s": again.seconds,
        "added MiB": (race.stored[name][1] - race.stored[name][0]) / MIB,
        "peak MiB": max(peaks, default=None),
    }
    for unit, value in values.items():
        if value is not None:
            yield Figure(
                table="One file of random bytes, then with scattered blocks overwritten",
                sync=sync,
                what=LARGE_FILE,
                size=size,
                contender=name,
                unit=unit,
                values=[value],
            )


@asynccontextmanager
async def _contenders(
    tools: Sequence[str], apps: Path, directory: Path, *, sync: Sync, problems: list[str]
) -> AsyncIterator[list[BackupTool]]:
    """Holdfast and every tool, each with a fresh repository."""
    settings = {"HOLDFAST_APPS": str(apps)}
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(
            start_pool(directory / "pool", sync=sync, workers=1, settings=settings)
        )
        client = await stack.enter_async_context(
            await connect(servers=pool.url, timeout_seconds=TIMEOUT_SECONDS)
        )
        ready: list[BackupTool] = [MeasuredSnapshots(pool, client)]
        for number, name in enumerate(tools):
            tool = make_tool(name, directory / f"tool-{number}")
            try:
                await tool.prepare()
            except ProcessError as error:
                problems.append(f"preparing: {error}")
            else:
                ready.append(tool)
        yield ready


async def _restore(contender: BackupTool, apps: Path, directory: Path) -> Taken:
    """A worker restores into a new app, a tool into an empty directory; then it is removed."""
    parent = apps if isinstance(contender, PoolSnapshots) else directory
    with new_directory(parent / _RESTORED) as target:
        return await contender.restore(target)


async def _read(contender: BackupTool, path: Path, tree: Path, directory: Path) -> Taken:
    target = directory / "one-file"
    return _compared(contender, await contender.read_file(path, target), target, tree / path)


async def _read_by_command(
    contender: BackupTool, path: Path, tree: Path, directory: Path
) -> Taken | None:
    if not isinstance(contender, MeasuredSnapshots):
        return None  # what a tool does is a command already
    target = directory / "one-file"
    taken = await contender.read_by_command(path, target)
    return _compared(contender, taken, target, tree / path)


def _compared(contender: BackupTool, taken: Taken, read: Path, original: Path) -> Taken:
    if read.read_bytes() != original.read_bytes():
        raise ProcessError(f"{contender.name} read other bytes than {original.name} has")
    return taken


async def _export(contender: BackupTool, directory: Path) -> Taken | None:
    target = directory / "exported"
    try:
        return await contender.export(target)
    finally:
        target.unlink(missing_ok=True)
