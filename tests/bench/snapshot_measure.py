"""One round of ``bench snapshot``, and its large file: who does what, in which order.

All contenders take one step before any takes the next, beginning with another one each time, so
that they meet the same tree on the same machine at nearly the same time.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from tests.bench.backup_tools import make_tool
from tests.bench.figures import HOLDFAST
from tests.bench.processes import ProcessError
from tests.bench.snapshot_figures import LargeFileFigure
from tests.bench.snapshot_workers import Snapshots, start_snapshots
from tests.bench.trees import (
    CHANGED_BLOCK_BYTES,
    Change,
    change_blocks,
    mid_file,
    scatter_change,
    write_large_file,
)

from holdfast.archive.file_systems import RACY_NS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from tests.bench.backup_tools import BackupTool, Taken
    from tests.bench.figures import Sync
    from tests.bench.snapshot_figures import Action

    type Do = Callable[[BackupTool], Awaitable[Taken | None]]

SETTLE_SECONDS: Final = RACY_NS / 1e9 + 0.5
"""A snapshot does not trust what changed so shortly before it; so changes are older here."""

APP: Final = "tree"
_RESTORED: Final = "restored"


class RoundFigures(Struct, frozen=True, kw_only=True):
    """What one round measured. ``stored`` and ``reported``: after or by first, unchanged, changed.

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

    async def step(self, action: Action, do: Do) -> None:
        """Have each contender ``do`` it, one after the other. Raises what holdfast raises."""
        for contender in self._in_turn():
            # What one has written is not to be written back in another's time.
            await asyncio.to_thread(os.sync)
            await self._attempt(contender, action, do)

    async def weigh(self) -> None:
        """Note what each repository holds now."""
        for contender in self.contenders:
            self.stored[contender.name].append(await contender.stored_bytes())

    async def _attempt(self, contender: BackupTool, action: Action, do: Do) -> None:
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
    say: Callable[[str], None],
) -> RoundFigures:
    """Everything once, on fresh repositories in ``directory``. The tree is changed on the way.

    Raises what holdfast raises.
    """
    tree = apps / APP
    async with _contenders(tools, apps, directory, sync=sync, problems=problems) as contenders:
        race = Race(contenders, turn=number, problems=problems)
        ours = next(each for each in contenders if isinstance(each, Snapshots))
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


async def _back_up(race: Race, action: Action, tree: Path, say: Callable[[str], None]) -> None:
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
    say: Callable[[str], None],
) -> list[LargeFileFigure]:
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
        return [_large_figure(race, each.name, size, change) for each in race.contenders]


def _large_figure(race: Race, name: str, size: int, change: Change) -> LargeFileFigure:
    first, again = race.taken["first", name], race.taken["changed", name]
    peaks = [each.peak_bytes for each in (first, again) if each.peak_bytes is not None]
    return LargeFileFigure(
        contender=name,
        size=size,
        block=CHANGED_BLOCK_BYTES,
        change=change,
        first_seconds=first.seconds,
        again_seconds=again.seconds,
        added=race.stored[name][1] - race.stored[name][0],
        peak_bytes=max(peaks, default=None),
    )


@asynccontextmanager
async def _contenders(
    tools: Sequence[str], apps: Path, directory: Path, *, sync: Sync, problems: list[str]
) -> AsyncIterator[list[BackupTool]]:
    """Holdfast and every tool, each with a fresh repository."""
    async with AsyncExitStack() as stack:
        pool = directory / "pool"
        pool.mkdir()
        ready: list[BackupTool] = [
            await stack.enter_async_context(start_snapshots(pool, sync=sync, apps=apps))
        ]
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
    if isinstance(contender, Snapshots):
        target = apps / _RESTORED
    else:
        target = directory / _RESTORED
        target.mkdir()
    try:
        return await contender.restore(target)
    finally:
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)


async def _read(contender: BackupTool, path: Path, tree: Path, directory: Path) -> Taken:
    target = directory / "one-file"
    taken = await contender.read_file(path, target)
    return _compared(contender, taken, target, tree / path)


async def _read_by_command(
    contender: BackupTool, path: Path, tree: Path, directory: Path
) -> Taken | None:
    if not isinstance(contender, Snapshots):
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
