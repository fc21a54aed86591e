"""A whole run of ``bench snapshot``: the rounds on each kind of server, and the large file."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.backup_tools import NOTES, find_tools, tool_versions
from tests.bench.figures import HOLDFAST
from tests.bench.machine import describe_machine
from tests.bench.snapshot_figures import (
    ACTIONS,
    ActionFigure,
    SnapshotReport,
    StoredFigure,
    action_figure,
)
from tests.bench.snapshot_measure import APP, measure_large_file, measure_round
from tests.bench.trees import Change, copy_tree, describe_tree, warm

from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.bench.figures import Sync
    from tests.bench.snapshot_figures import LargeFileFigure
    from tests.bench.snapshot_measure import RoundFigures
    from tests.bench.trees import Tree

    type Say = Callable[[str], None]

_SPARE_BYTES: Final = 256 * MIB
_OWN_NOTE: Final = "one worker and one nats-server on this machine, one replica; not encrypted"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRun:
    """What to measure. ``large_file_size`` in bytes; 0 leaves it out, as 0 rounds do the rest."""

    source: Path
    syncs: tuple[Sync, ...]
    rounds: int
    large_file_size: int
    seed: int
    directory: Path | None


async def run_snapshot_bench(run: SnapshotRun, say: Say) -> SnapshotReport:
    """Everything that ``run`` asks for. ``say`` is told what is going on.

    Raises InvalidError when it cannot be run here, UnavailableError when holdfast does not work. A
    tool that fails is left out of that round, and named in the report.
    """
    source = run.source.expanduser().resolve()
    if not source.is_dir():
        raise InvalidError(f"{run.source} is not a directory")
    tree = await asyncio.to_thread(describe_tree, source)
    tools = find_tools()
    problems: list[str] = []
    rounds: dict[Sync, list[RoundFigures]] = {}
    large: list[LargeFileFigure] = []
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=run.directory) as name:
        directory = Path(name)
        _check_space(run, directory, tree, len(tools))
        machine = describe_machine(directory)
        if run.rounds:
            rounds = await _measure_rounds(run, source, directory, tools, problems, say)
        if run.large_file_size:
            with _place(directory, "large") as here:
                large = await measure_large_file(
                    tools,
                    here,
                    sync=run.syncs[0],
                    size=run.large_file_size,
                    seed=run.seed,
                    problems=problems,
                    say=say,
                )
    measured = [each for of_one in rounds.values() for each in of_one]
    return SnapshotReport(
        machine=machine,
        source=str(source),
        tree=tree,
        change=measured[-1].change if measured else Change(places=0, size=0),
        one_file_size=measured[-1].one_file_size if measured else 0,
        notes={HOLDFAST: _OWN_NOTE} | await _notes(tools),
        actions=[each for sync in rounds for each in _action_figures(sync, rounds[sync])],
        stored=[each for sync in rounds for each in _stored_figures(sync, rounds[sync])],
        large=large,
        problems=problems,
    )


async def _measure_rounds(
    run: SnapshotRun,
    source: Path,
    directory: Path,
    tools: Sequence[str],
    problems: list[str],
    say: Say,
) -> dict[Sync, list[RoundFigures]]:
    rounds: dict[Sync, list[RoundFigures]] = {}
    with _place(directory, "apps") as apps:
        say(f"copying {source}")
        await asyncio.to_thread(copy_tree, source, apps / APP)
        for sync in run.syncs:
            for number in range(run.rounds):

                def say_where(text: str, label: str = f"{sync} sync, round {number + 1}") -> None:
                    say(f"{label} of {run.rounds}: {text}")

                await asyncio.to_thread(warm, apps / APP)
                with _place(directory, f"{sync}-{number}") as here:
                    figures = await measure_round(
                        tools,
                        apps,
                        here,
                        sync=sync,
                        number=number,
                        seed=run.seed + number,
                        problems=problems,
                        say=say_where,
                    )
                rounds.setdefault(sync, []).append(figures)
    return rounds


def _action_figures(sync: Sync, rounds: Sequence[RoundFigures]) -> Iterator[ActionFigure]:
    """Of those that took part in every round."""
    for action in ACTIONS:
        for contender in rounds[0].stored:
            taken = [each.taken.get((action, contender)) for each in rounds]
            whole = [each for each in taken if each is not None]
            if len(whole) == len(rounds):
                yield action_figure(sync, action, contender, whole)


def _stored_figures(sync: Sync, rounds: Sequence[RoundFigures]) -> Iterator[StoredFigure]:
    for contender in rounds[0].stored:
        held = [each.stored.get(contender, []) for each in rounds]
        if any(len(each) < 3 for each in held):
            continue
        yield StoredFigure(
            sync=sync,
            contender=contender,
            first=[each[0] for each in held],
            unchanged=[each[1] - each[0] for each in held],
            changed=[each[2] - each[1] for each in held],
            reported=[each.reported for each in rounds] if contender == HOLDFAST else [],
        )


async def _notes(tools: Sequence[str]) -> dict[str, str]:
    versions = await tool_versions(tools)
    return {name: f"{versions[name]}; {NOTES[name]}" for name in tools}


@contextmanager
def _place(directory: Path, name: str) -> Iterator[Path]:
    """A new directory, removed with all that is in it afterwards."""
    path = directory / name
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _check_space(run: SnapshotRun, directory: Path, tree: Tree, tools: int) -> None:
    """Raise InvalidError when the copies and repositories would fill the disk."""
    contenders = tools + 1
    # The copy, a restored one, an archive, and each repository; whole archives of tar come twice.
    needed = tree.size * (4 + contenders + 2) if run.rounds else 0
    needed = max(needed, run.large_file_size * (2 + contenders)) + _SPARE_BYTES
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise InvalidError(
            f"{directory.parent} has {free >> 20:,} MiB free, and this run needs about"
            f" {needed >> 20:,}: choose another --directory, or a smaller tree"
        )
