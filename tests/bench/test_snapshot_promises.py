"""A verdict on snapshots says met only if the promise was measured and reached."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from tests.bench.backup_tools import BORG, RESTIC
from tests.bench.figures import HOLDFAST, Machine
from tests.bench.snapshot_figures import (
    ActionFigure,
    LargeFileFigure,
    SnapshotReport,
    StoredFigure,
)
from tests.bench.snapshot_promises import judge_snapshots
from tests.bench.snapshot_report import print_snapshot_report
from tests.bench.trees import Change, Tree

from holdfast.domain.limits import KIB, MIB

if TYPE_CHECKING:
    from tests.bench.promises import Verdict
    from tests.bench.snapshot_figures import Action

MACHINE = Machine(
    cores=2, processor="p", memory_bytes=2**34, filesystem="ext4", system="Linux", versions={}
)


def report(
    *actions: ActionFigure,
    stored: tuple[StoredFigure, ...] = (),
    large: tuple[LargeFileFigure, ...] = (),
) -> SnapshotReport:
    return SnapshotReport(
        machine=MACHINE,
        source="somewhere",
        tree=Tree(entries=3, files=2, size=MIB),
        change=Change(places=1, size=16),
        one_file_size=KIB,
        notes={HOLDFAST: "ours"},
        actions=list(actions),
        stored=list(stored),
        large=list(large),
        problems=["a tool broke"],
    )


def action(
    name: Action, contender: str, *seconds: float, peak_bytes: int | None = MIB
) -> ActionFigure:
    return ActionFigure(
        sync="default",
        action=name,
        contender=contender,
        seconds=list(seconds),
        cpu_seconds=list(seconds),
        peak_bytes=peak_bytes,
    )


def stored(contender: str, first: int, changed: int) -> StoredFigure:
    return StoredFigure(
        sync="default", contender=contender, first=[first], unchanged=[10], changed=[changed]
    )


def large(contender: str, added: int, *, peak_bytes: int = MIB) -> LargeFileFigure:
    return LargeFileFigure(
        contender=contender,
        size=100 * MIB,
        block=64 * KIB,
        change=Change(places=16, size=MIB),
        first_seconds=1.0,
        again_seconds=1.0,
        added=added,
        peak_bytes=peak_bytes,
    )


def find(verdicts: list[Verdict], what: str) -> Verdict:
    return next(each for each in verdicts if each.what == what)


def test_every_promise_is_listed_even_when_nothing_was_measured() -> None:
    verdicts = judge_snapshots(report())

    assert {verdict.outcome for verdict in verdicts} == {"not measured"}
    assert len([verdict for verdict in verdicts if verdict.kind == "promise"]) == 11


@pytest.mark.parametrize(("ours", "outcome"), [(1.0, "met"), (1.01, "missed")])
def test_a_speed_is_judged_by_the_median_of_ratios_of_the_same_round(
    ours: float, outcome: str
) -> None:
    measured = report(
        action("unchanged", HOLDFAST, 10.0, ours, 1.0), action("unchanged", RESTIC, 1.0, 2.5, 9.0)
    )

    verdict = find(
        judge_snapshots(measured),
        "speed of snapshot of what has not changed, default sync / restic",
    )

    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(2.5 / ours)


def test_a_command_of_ours_is_compared_with_one_file_by_restic() -> None:
    measured = report(action("command", HOLDFAST, 0.5), action("one file", RESTIC, 1.0))

    verdict = find(
        judge_snapshots(measured), "speed of one file, by a whole command, default sync / restic"
    )

    assert (verdict.kind, verdict.measured, verdict.outcome) == ("aim", 2.0, "missed")


@pytest.mark.parametrize(("ours", "outcome"), [(105, "met"), (106, "missed")])
def test_stored_bytes_are_judged_beside_restics(ours: int, outcome: str) -> None:
    measured = report(stored=(stored(HOLDFAST, ours, 5), stored(RESTIC, 100, 5)))

    verdicts = judge_snapshots(measured)

    assert find(verdicts, "bytes stored by the first, default sync / restic").outcome == outcome
    assert find(verdicts, "bytes added by the changed, default sync / restic").outcome == "met"


@pytest.mark.parametrize(("ours", "outcome"), [(120, "met"), (121, "missed")])
def test_a_large_file_is_judged_by_what_its_change_added(ours: int, outcome: str) -> None:
    measured = report(large=(large(HOLDFAST, ours), large(RESTIC, 100)))

    verdict = find(judge_snapshots(measured), "bytes added by blocks of one large file / restic")

    assert verdict.outcome == outcome


def test_the_workers_peak_is_the_largest_of_any_action() -> None:
    measured = report(
        action("first", HOLDFAST, 1.0, peak_bytes=200 * MIB),
        action("restore", BORG, 1.0, peak_bytes=900 * MIB),
        large=(large(HOLDFAST, 1, peak_bytes=301 * MIB),),
    )

    verdict = find(judge_snapshots(measured), "peak memory of the worker")

    assert (verdict.measured, verdict.outcome) == (301.0, "missed")


def test_the_report_shows_figures_promises_and_what_failed() -> None:
    measured = report(
        action("first", HOLDFAST, 1.0, peak_bytes=None),
        action("first", RESTIC, 3.0),
        stored=(stored(HOLDFAST, 2 * MIB, 512), stored(RESTIC, MIB, 1024)),
        large=(large(HOLDFAST, 2 * MIB),),
    )
    console = Console(file=io.StringIO(), width=200)

    print_snapshot_report(console, measured, judge_snapshots(measured))

    file = console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    assert "3.00 x as fast" in text
    assert "unknown" in text
    assert "2.00 x" in text
    assert "Promised and measured" in text
    assert "Not measured: a tool broke" in text
