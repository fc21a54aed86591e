"""A whole run of ``snapshot``: the rounds on each kind of server, and the large file."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.backup_tools import NOTES, find_tools, tool_versions
from tests.bench.promises import REPOSITORY
from tests.bench.race import measure_large_file, measure_round
from tests.bench.trees import warm

from holdfast.cli.bench.machine import describe_machine
from holdfast.cli.bench.pool import new_directory, run_directory
from holdfast.cli.bench.report import HOLDFAST, Figure, Report
from holdfast.cli.bench.snapshots import (
    APP,
    SnapshotRun,
    action_figures,
    copy_tree,
    describe_tree,
    source_of,
    worker_peak,
)
from holdfast.domain.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.bench.race import RoundFigures

    from holdfast.cli.bench.report import Sync
    from holdfast.cli.bench.snapshots import Taken

    type Say = Callable[[str], None]

ACTIONS: Final = (
    "first",
    "unchanged",
    "changed",
    "restore",
    "one file",
    "command",
    "export",
)
"""``command`` is one file again, by a whole command with its start."""

_STORED: Final = (
    "In the repository (holdfast: in all streams), and added to it; what holdfast's record says"
)
_OWN_NOTE: Final = "one worker and one nats-server on this machine, one replica; not encrypted"
_SPARE_BYTES: Final = 256 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class FullRun(SnapshotRun):
    """Settings. ``large_file_size`` in bytes; 0 leaves it out, as 0 rounds do the rest."""

    large_file_size: int
    seed: int


async def run_snapshot_bench(run: FullRun, say: Say) -> Report:
    """Everything that ``run`` asks for. ``say`` is told what is going on.

    Raises InvalidError when it cannot be run here, UnavailableError when holdfast does not work. A
    tool that fails is left out of that round, and named in the report.
    """
    source = source_of(run.source)
    note, size = await asyncio.to_thread(describe_tree, source)
    tools = find_tools()
    contenders = len(tools) + 1
    # The copy, a restored one, an archive, and each repository; whole archives of tar come twice.
    needed = size * (4 + contenders + 2) if run.rounds else 0
    needed = max(needed, run.large_file_size * (2 + contenders)) + _SPARE_BYTES
    with run_directory(run.directory, needed, "a smaller tree") as directory:
        versions = await tool_versions(tools)
        report = Report(
            machine=describe_machine(directory),
            workers=1,
            notes=[
                note,
                f"{HOLDFAST}: {_OWN_NOTE}",
                *(f"{name}: {versions[name]}; {NOTES[name]}" for name in tools),
            ],
        )
        if run.rounds:
            await _measure_rounds(run, source, directory, tools, report, say)
        if run.large_file_size:
            with new_directory(directory / "large") as here:
                large = await measure_large_file(
                    tools,
                    here,
                    sync=run.syncs[0],
                    size=run.large_file_size,
                    seed=run.seed,
                    problems=report.problems,
                    say=say,
                )
            report.figures.extend(large)
    report.figures.extend([*worker_peak(report.figures)])
    return report


async def _measure_rounds(
    run: FullRun, source: Path, directory: Path, tools: Sequence[str], report: Report, say: Say
) -> None:
    with new_directory(directory / "apps") as apps:
        say(f"copying {source}")
        await asyncio.to_thread(copy_tree, source, apps / APP)
        rounds: list[RoundFigures] = []
        for sync in run.syncs:
            rounds = []
            for number in range(run.rounds):

                def say_where(text: str, label: str = f"{sync} sync, round {number + 1}") -> None:
                    say(f"{label} of {run.rounds}: {text}")

                await asyncio.to_thread(warm, apps / APP)
                with new_directory(directory / f"{sync}-{number}") as here:
                    figures = await measure_round(
                        tools,
                        apps,
                        here,
                        sync=sync,
                        number=number,
                        seed=run.seed + number,
                        problems=report.problems,
                        say=say_where,
                    )
                rounds.append(figures)
            report.figures.extend(action_figures(sync, _whole(rounds)))
            report.figures.extend(_stored_figures(sync, rounds))
        change = rounds[-1].change
        report.notes.append(
            f"changed {change.size:,} bytes in {change.places:,} files;"
            f" one file of {rounds[-1].one_file_size / KIB:.1f} KiB"
        )


def _whole(rounds: Sequence[RoundFigures]) -> dict[tuple[str, str], list[Taken]]:
    """The figures of those who took part in every round."""
    whole = {}
    for action in ACTIONS:
        for contender in rounds[0].stored:
            taken = [each.taken.get((action, contender)) for each in rounds]
            found = [each for each in taken if each is not None]
            if len(found) == len(rounds):
                whole[action, contender] = found
    return whole


def _stored_figures(sync: Sync, rounds: Sequence[RoundFigures]) -> Iterator[Figure]:
    for contender in rounds[0].stored:
        held = [each.stored.get(contender, []) for each in rounds]
        if any(len(each) < 3 for each in held):
            continue
        values = {
            "first MiB": [each[0] / MIB for each in held],
            "unchanged KiB": [(each[1] - each[0]) / KIB for each in held],
            "changed KiB": [(each[2] - each[1]) / KIB for each in held],
        }
        if contender == HOLDFAST:
            values |= {
                "recorded first MiB": [each.reported[0] / MIB for each in rounds],
                "recorded changed KiB": [each.reported[2] / KIB for each in rounds],
            }
        for unit, measured in values.items():
            yield Figure(
                table=_STORED,
                sync=sync,
                what=REPOSITORY,
                contender=contender,
                unit=unit,
                values=measured,
            )
