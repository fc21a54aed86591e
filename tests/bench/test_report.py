"""The arithmetic under every table, and the tables: percentiles, and ratios between contenders."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from holdfast.cli.bench.report import (
    HOLDFAST,
    Figure,
    Machine,
    Promise,
    Report,
    judge,
    percentile,
    ratio,
    write_report,
)

MACHINE = Machine(
    cores=2, processor="p", memory_bytes=2**34, filesystem="ext4", system="Linux", versions={}
)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        (list(map(float, range(1, 101))), 99, 99.0),
        (list(map(float, range(1, 101))), 100, 100.0),
        (list(map(float, range(1, 1001))), 99, 990.0),
    ],
)
def test_a_percentile_is_a_measured_value(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_contenders_are_compared_round_by_round_so_that_a_slow_minute_hits_both() -> None:
    # The machine ran at half speed in the second round; ours took half of their time in each.
    ours, theirs = [1.0, 2.0, 1.0], [2.0, 4.0, 2.0]

    assert ratio(theirs, ours) == 2.0
    assert ratio(ours, theirs) == 0.5


def test_one_odd_round_does_not_move_the_ratio() -> None:
    assert ratio([1.5, 60.0, 1.5], [1.0, 1.0, 1.0]) == 1.5


def test_everything_measured_promised_and_not_measured_is_shown() -> None:
    report = Report(
        machine=MACHINE,
        workers=1,
        notes=["a tree"],
        figures=[
            figure("get", HOLDFAST, "s", 1.0, 2.0, 3.0),
            figure("get", "other", "s", 3.0, 6.0, 9.0),
            figure("get", HOLDFAST, "peak MiB", 1234.0),
        ],
        problems=["a tool broke"],
    )
    promise = Promise(
        name="speed",
        sync=None,
        what="get",
        unit="s",
        against="other",
        comparison="at least",
        bound=4,
    )
    console = Console(file=io.StringIO(), width=200)

    write_report(console, report, judge(report, [promise]), json=False)

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for text in (
        "a tree",
        "2.000 (1.000 - 3.000)",
        "1,234",
        "3.00 x",
        "Promised and measured",
        ">= 4 x",
        "missed",
        "Not measured: a tool broke",
    ):
        assert text in shown


def figure(what: str, contender: str, unit: str, *values: float) -> Figure:
    return Figure(
        table="figures",
        sync="default",
        what=what,
        contender=contender,
        unit=unit,
        values=list(values),
    )
