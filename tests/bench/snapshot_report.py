"""The report of ``bench snapshot`` for people: tables on a console."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from rich.text import Text
from tests.bench.figures import HOLDFAST
from tests.bench.report import machine_text, make_table, verdict_table
from tests.bench.snapshot_figures import find_action, find_stored, ratio

from holdfast.domain.limits import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table
    from tests.bench.promises import Verdict
    from tests.bench.snapshot_figures import ActionFigure, SnapshotReport, StoredFigure

_WHAT: Final = {
    "first": "first",
    "unchanged": "unchanged",
    "changed": "1 % of the files changed",
    "restore": "restore of everything",
    "one file": "one file (holdfast: by a request)",
    "command": "one file (by a command)",
    "export": "export as an archive",
}


def print_snapshot_report(
    console: Console, report: SnapshotReport, verdicts: Sequence[Verdict]
) -> None:
    """Write every table that has rows, then the promises, then what could not be measured."""
    console.print(machine_text(report.machine, 1))
    console.print(_source_text(report))
    for table in (
        _action_table(report),
        _stored_table(report),
        _large_table(report),
        verdict_table(verdicts),
    ):
        if table.row_count:
            console.print()
            console.print(table)
    for problem in report.problems:
        console.print(Text(f"Not measured: {problem}"))


def _source_text(report: SnapshotReport) -> Text:
    tree, change = report.tree, report.change
    lines = [
        f"{report.source}: {tree.entries:,} entries, {tree.files:,} files,"
        f" {tree.size / MIB:.1f} MiB; changed {change.size:,} bytes in {change.places:,} files;"
        f" one file of {report.one_file_size / KIB:.1f} KiB",
        *(f"{name}: {note}" for name, note in report.notes.items()),
    ]
    return Text("\n".join(lines))


def _action_table(report: SnapshotReport) -> Table:
    table = make_table(
        "Seconds; the tree in the page cache, fresh repositories in every round",
        ("sync", "", "contender"),
        ("median s", "min - max", "CPU s", "peak MiB", "holdfast is"),
    )
    for figure in report.actions:
        ours = find_action(report.actions, figure.sync, figure.action, HOLDFAST)
        table.add_row(
            figure.sync,
            _WHAT[figure.action],
            figure.contender,
            f"{statistics.median(figure.seconds):.3f}",
            f"{min(figure.seconds):.3f} - {max(figure.seconds):.3f}",
            f"{statistics.median(figure.cpu_seconds):.2f}",
            _peak(figure.peak_bytes),
            _times(ours, figure),
            style="bold" if ours is figure else None,
        )
    return table


def _peak(peak_bytes: int | None) -> str:
    return "unknown" if peak_bytes is None else f"{peak_bytes / MIB:.0f}"


def _times(ours: ActionFigure | None, theirs: ActionFigure) -> str:
    if ours is None or ours is theirs:
        return ""
    return f"{ratio(theirs.seconds, ours.seconds):.2f} x as fast"


def _stored_table(report: SnapshotReport) -> Table:
    table = make_table(
        "MiB in the repository (holdfast: in all streams), and KiB that were added to it;"
        " in brackets what the record says",
        ("sync", "contender"),
        ("first MiB", "unchanged KiB", "changed KiB", "first", "changed"),
    )
    for figure in report.stored:
        ours = find_stored(report.stored, figure.sync, HOLDFAST)
        table.add_row(
            figure.sync,
            figure.contender,
            f"{statistics.median(figure.first) / MIB:.1f}{_said(figure, 0, MIB)}",
            f"{statistics.median(figure.unchanged) / KIB:.1f}{_said(figure, 1, KIB)}",
            f"{statistics.median(figure.changed) / KIB:.1f}{_said(figure, 2, KIB)}",
            *_shares(ours, figure),
            style="bold" if ours is figure else None,
        )
    return table


def _said(figure: StoredFigure, index: int, unit: int) -> str:
    if not figure.reported:
        return ""
    return f" ({statistics.median(each[index] for each in figure.reported) / unit:.1f})"


def _shares(ours: StoredFigure | None, theirs: StoredFigure) -> tuple[str, str]:
    """What holdfast stores and adds, in parts of theirs."""
    if ours is None or ours is theirs or not all((*theirs.first, *theirs.changed)):
        return "", ""
    return (
        f"{ratio(ours.first, theirs.first):.2f} x",
        f"{ratio(ours.changed, theirs.changed):.2f} x",
    )


def _large_table(report: SnapshotReport) -> Table:
    blocks = sorted({(each.size, each.block, each.change.places) for each in report.large})
    sizes = ", ".join(
        f"{size / MIB:g} MiB, {places} blocks of {block / KIB:g} KiB"
        for size, block, places in blocks
    )
    table = make_table(
        f"One file of random bytes, then with scattered blocks overwritten: {sizes}",
        ("contender",),
        ("first s", "again s", "added MiB", "peak MiB"),
    )
    for figure in report.large:
        table.add_row(
            figure.contender,
            f"{figure.first_seconds:.2f}",
            f"{figure.again_seconds:.2f}",
            f"{figure.added / MIB:.1f}",
            _peak(figure.peak_bytes),
        )
    return table
