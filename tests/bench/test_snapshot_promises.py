"""A verdict on snapshots says met only if the promise was measured and reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.bench.backup_tools import BORG, RESTIC
from tests.bench.promises import LARGE_FILE, REPOSITORY, snapshot_promises

from holdfast.cli.bench.report import HOLDFAST, Figure, Machine, Report, judge
from holdfast.cli.bench.snapshots import Taken, action_figures, worker_peak
from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from holdfast.cli.bench.report import Verdict

MACHINE = Machine(
    cores=2, processor="p", memory_bytes=2**34, filesystem="ext4", system="Linux", versions={}
)


def figure(what: str, contender: str, unit: str, *values: float) -> Figure:
    return Figure(
        table="figures",
        sync="default",
        what=what,
        contender=contender,
        unit=unit,
        values=list(values),
    )


def verdicts_on(*figures: Figure) -> list[Verdict]:
    report = Report(machine=MACHINE, workers=1, figures=list(figures))
    return judge(report, snapshot_promises(["default"]))


def find(verdicts: list[Verdict], what: str) -> Verdict:
    return next(each for each in verdicts if each.what == what)


def test_every_promise_is_listed_even_when_nothing_was_measured() -> None:
    verdicts = verdicts_on()

    assert {verdict.outcome for verdict in verdicts} == {"not measured"}
    assert len([verdict for verdict in verdicts if verdict.kind == "promise"]) == 11


@pytest.mark.parametrize(("ours", "outcome"), [(1.0, "met"), (1.01, "missed")])
def test_a_speed_is_judged_by_the_median_of_ratios_of_the_same_round(
    ours: float, outcome: str
) -> None:
    verdicts = verdicts_on(
        figure("unchanged", HOLDFAST, "s", 10.0, ours, 1.0),
        figure("unchanged", RESTIC, "s", 1.0, 2.5, 9.0),
    )

    verdict = find(verdicts, "speed of snapshot of what has not changed, default sync / restic")

    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(2.5 / ours)


def test_a_command_of_ours_is_compared_with_one_file_by_restic() -> None:
    verdicts = verdicts_on(
        figure("command", HOLDFAST, "s", 0.5), figure("one file", RESTIC, "s", 1.0)
    )

    verdict = find(verdicts, "speed of one file, by a whole command, default sync / restic")

    assert (verdict.kind, verdict.measured, verdict.outcome) == ("aim", 2.0, "missed")


@pytest.mark.parametrize(("ours", "outcome"), [(105, "met"), (106, "missed")])
def test_stored_bytes_are_judged_beside_restics(ours: int, outcome: str) -> None:
    verdicts = verdicts_on(
        figure(REPOSITORY, HOLDFAST, "first MiB", ours),
        figure(REPOSITORY, HOLDFAST, "changed KiB", 5),
        figure(REPOSITORY, RESTIC, "first MiB", 100),
        figure(REPOSITORY, RESTIC, "changed KiB", 5),
    )

    assert find(verdicts, "bytes stored by the first, default sync / restic").outcome == outcome
    assert find(verdicts, "bytes added by the changed, default sync / restic").outcome == "met"


@pytest.mark.parametrize(("ours", "outcome"), [(120, "met"), (121, "missed")])
def test_a_large_file_is_judged_by_what_its_change_added(ours: int, outcome: str) -> None:
    verdicts = verdicts_on(
        figure(LARGE_FILE, HOLDFAST, "added MiB", ours),
        figure(LARGE_FILE, RESTIC, "added MiB", 100),
    )

    verdict = find(verdicts, "bytes added by blocks of one large file / restic")

    assert verdict.outcome == outcome


def test_the_workers_peak_is_the_largest_of_any_action() -> None:
    taken = {
        ("first", HOLDFAST): [taken_with(200 * MIB), taken_with(100 * MIB)],
        ("restore", BORG): [taken_with(900 * MIB)],
        ("restore", HOLDFAST): [taken_with(None)],
    }
    figures = [
        *action_figures("default", taken),
        figure(LARGE_FILE, HOLDFAST, "peak MiB", 301.0),
    ]

    verdict = find(verdicts_on(*figures, *worker_peak(figures)), "peak memory of the worker")

    assert (verdict.measured, verdict.outcome) == (301.0, "missed")


def taken_with(peak_bytes: int | None) -> Taken:
    return Taken(seconds=1.0, cpu_seconds=1.0, peak_bytes=peak_bytes)
