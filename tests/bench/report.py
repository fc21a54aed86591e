"""A report for people: tables on a console. ``--json`` is for everything else."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from tests.bench.figures import HOLDFAST, find_large, speed_ratio

from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from tests.bench.figures import Machine, Report
    from tests.bench.promises import Verdict

_STYLES: Final = {"met": "green", "missed": "bold red", "not judged": "yellow"}
_SIGNS: Final = {"at least": ">=", "at most": "<=", "under": "<"}
_ORDER: Final = {"put": 0, "get": 1}


def print_report(console: Console, report: Report, verdicts: Sequence[Verdict]) -> None:
    """Write every table that has rows, then the promises, then what could not be measured."""
    console.print(machine_text(report.machine, report.workers))
    for table in (
        _large_table(report),
        _small_table(report),
        _has_table(report),
        _memory_table(report),
        verdict_table(verdicts),
    ):
        if table.row_count:
            console.print()
            console.print(table)
    for problem in report.problems:
        console.print(Text(f"Not measured: {problem}"))


def machine_text(machine: Machine, workers: int) -> Text:
    """The machine and the versions, in two lines."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return Text(
        f"{machine.cores} x {machine.processor}, {machine.memory_bytes / MIB / 1024:.0f} GiB,"
        f" {machine.system}, {machine.filesystem}; {workers} worker(s)\n{versions}"
    )


def _large_table(report: Report) -> Table:
    sizes = " and ".join(sorted({f"{figure.size / MIB:g} MiB" for figure in report.large}))
    table = make_table(
        f"One blob of {sizes} at a time; holdfast through a worker, the others straight to the"
        " server; every client checks what it reads",
        ("sync", "", "client"),
        ("median MiB/s", "min - max", "holdfast is"),
    )
    ordered = sorted(
        report.large,
        key=lambda figure: (
            figure.sync != "default",
            _ORDER[figure.action],
            figure.client != HOLDFAST,
        ),
    )
    for figure in ordered:
        speeds = figure.mib_per_second()
        ours = find_large(report.large, figure.sync, figure.action, HOLDFAST)
        table.add_row(
            figure.sync,
            figure.action,
            figure.client,
            f"{statistics.median(speeds):.0f}",
            f"{min(speeds):.0f} - {max(speeds):.0f}",
            "" if ours is None or ours is figure else f"{speed_ratio(ours, figure):.2f} x",
            style="bold" if ours is figure else None,
        )
    return table


def _small_table(report: Report) -> Table:
    table = make_table(
        "Small requests: one at a time, the kinds in turn; then many at once",
        ("sync", "request"),
        ("bytes", "p50 ms", "p99 ms", "in flight", "per second"),
    )
    for figure in report.small:
        table.add_row(
            figure.sync,
            figure.what,
            f"{figure.size:,}",
            f"{figure.p50_seconds * 1000:.2f}",
            f"{figure.p99_seconds * 1000:.2f}",
            f"{figure.in_flight}",
            f"{figure.per_second:,.0f}",
        )
    return table


def _has_table(report: Report) -> Table:
    table = make_table(
        "has, every other digest stored",
        ("sync",),
        ("blobs", "digests", "p50 ms", "max ms", "filled per second"),
    )
    for figure in report.has:
        table.add_row(
            figure.sync,
            f"{figure.blobs:,}",
            f"{figure.digests:,}",
            f"{statistics.median(figure.seconds) * 1000:.1f}",
            f"{max(figure.seconds) * 1000:.1f}",
            f"{figure.blobs / figure.fill_seconds:,.0f}",
        )
    return table


def _memory_table(report: Report) -> Table:
    table = make_table(
        "Peak resident memory while blobs are streamed up, then down, through one worker",
        ("process",),
        ("streams", "MiB each", "peak MiB", "up MiB/s", "down MiB/s"),
    )
    for figure in report.memory:
        streamed = figure.streams * figure.size / MIB
        peak = "unknown" if figure.peak_bytes is None else f"{figure.peak_bytes / MIB:.0f}"
        table.add_row(
            figure.process,
            f"{figure.streams}",
            f"{figure.size / MIB:g}",
            peak,
            f"{streamed / figure.up_seconds:.0f}",
            f"{streamed / figure.down_seconds:.0f}",
        )
    return table


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """What was promised beside what was measured."""
    table = make_table("Promised and measured", ("", "what", "promised"), ("measured",), ("",))
    for verdict in verdicts:
        measured = "" if verdict.measured is None else f"{verdict.measured:.2f}"
        table.add_row(
            verdict.kind,
            verdict.what,
            f"{_SIGNS[verdict.comparison]} {verdict.bound:g} {verdict.unit}",
            measured,
            Text(verdict.outcome, style=_STYLES.get(verdict.outcome, "dim")),
        )
    return table


def make_table(
    title: str, left: Sequence[str], right: Sequence[str], after: Sequence[str] = ()
) -> Table:
    """An empty table: columns to the left, to the right, and again to the left."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    for name in after:
        table.add_column(name)
    return table
