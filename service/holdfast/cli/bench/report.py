"""Figures, the promises made of them, and tables of both, whatever is measured.

A figure alone says little on a shared machine: contenders take turns, round ``i`` of each ran side
by side, and what counts is the ratio within a round. Nothing is rounded in anyone's favour.
"""

from __future__ import annotations

import asyncio
import math
import operator
import statistics
import sys
import time
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from msgspec import Struct, field
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from rich.console import Console

HOLDFAST: Final = "holdfast"

Sync = Literal["always", "default"]
BoundKind = Literal["promise", "aim"]
Comparison = Literal["at least", "at most", "under"]

_MEETS: Final[dict[Comparison, Callable[[float, float], bool]]] = {
    "at least": operator.ge,
    "at most": operator.le,
    "under": operator.lt,
}
_SIGNS: Final[dict[Comparison, str]] = {"at least": ">=", "at most": "<=", "under": "<"}
_STYLES: Final = {"met": "green", "missed": "bold red", "not judged": "yellow"}


class Figure(Struct, frozen=True, kw_only=True):
    """The values of one contender for one thing, one for each round or request.

    ``size`` says of how much, and ``table`` under which title it is shown.
    """

    table: str
    sync: Sync
    what: str
    size: str = ""
    contender: str = HOLDFAST
    unit: str
    values: list[float]


class Promise(Struct, frozen=True, kw_only=True):
    """A bound on a figure of holdfast's, or on its ratio to that of ``against``.

    For seconds, the ratio is that of speeds. ``theirs`` is what the other did, if not the same. A
    figure of another ``size`` is shown and not judged; one that reaches ``enough`` meets the bound
    whatever the other's is. An ``aim`` is what we would like to reach beyond what is promised.
    ``name`` may hold ``{size}``.
    """

    name: str
    sync: Sync | None
    what: str
    unit: str
    comparison: Comparison
    bound: float
    size: str = ""
    against: str = ""
    theirs: str = ""
    enough: float = math.inf
    kind: BoundKind = "promise"


class Verdict(Struct, frozen=True, kw_only=True):
    """One promise. ``measured`` is in the unit of ``bound``, and None if it was not measured."""

    what: str
    kind: BoundKind
    comparison: Comparison
    bound: float
    unit: str
    measured: float | None
    outcome: Literal["met", "missed", "not judged", "not measured"]


class Machine(Struct, frozen=True, kw_only=True):
    """Where the figures come from."""

    cores: int
    processor: str
    memory_bytes: int
    filesystem: str
    system: str
    versions: dict[str, str]


class Report(Struct, frozen=True, kw_only=True):
    """All of a run. ``notes`` are to be read with it; ``problems``: what could not be measured."""

    machine: Machine
    workers: int
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def seconds_of(work: Awaitable[object]) -> float:
    """Seconds that ``work`` takes."""
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def seconds_of_each[T](
    items: Iterable[T], at_once: int, call: Callable[[T], Awaitable[object]]
) -> float:
    """Seconds that the calls with each of ``items`` take, ``at_once`` of them under way."""
    turns = iter(items)

    async def take_turns() -> None:
        for item in turns:
            await call(item)

    return await seconds_of(asyncio.gather(*(take_turns() for _ in range(at_once))))


def percentile(values: Iterable[float], percent: int) -> float:
    """The smallest of ``values`` that ``percent`` percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Ours divided by theirs: the median over the rounds."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def find(
    figures: Iterable[Figure], sync: Sync | None, what: str, contender: str, unit: str
) -> Figure | None:
    """The figure of that contender, of any ``sync`` if None; None if it was not measured."""
    wanted = (what, contender, unit)
    for figure in figures:
        if (figure.what, figure.contender, figure.unit) == wanted and sync in (None, figure.sync):
            return figure
    return None


def judge(report: Report, promises: Iterable[Promise]) -> list[Verdict]:
    """A verdict on each of ``promises``, measured or not."""
    return [_judge(report.figures, promise) for promise in promises]


def _judge(figures: Sequence[Figure], promise: Promise) -> Verdict:
    ours = find(figures, promise.sync, promise.what, HOLDFAST, promise.unit)
    measured = None if ours is None else _measured(figures, promise, ours)
    outcome: Literal["met", "missed", "not judged", "not measured"]
    if ours is None or measured is None:
        outcome = "not measured"
    elif promise.size not in ("", ours.size):
        outcome = "not judged"
    else:
        is_met = _MEETS[promise.comparison](measured, promise.bound)
        outcome = "met" if is_met or min(ours.values) >= promise.enough else "missed"
    return Verdict(
        what=promise.name.format(size=promise.size if ours is None else ours.size),
        kind=promise.kind,
        comparison=promise.comparison,
        bound=promise.bound,
        unit="x" if promise.against else promise.unit.removeprefix("peak "),
        measured=measured,
        outcome=outcome,
    )


def _measured(figures: Sequence[Figure], promise: Promise, ours: Figure) -> float | None:
    if not promise.against:
        return statistics.median(ours.values)
    what = promise.theirs or promise.what
    theirs = find(figures, ours.sync, what, promise.against, promise.unit)
    return None if theirs is None or not all(theirs.values) else _compare(ours, theirs)


def _compare(ours: Figure, theirs: Figure) -> float:
    if ours.unit == "s":
        return ratio(theirs.values, ours.values)
    return ratio(ours.values, theirs.values)


def write_report(
    console: Console, report: Report, verdicts: Sequence[Verdict], *, json: bool
) -> None:
    """Everything as one JSON object on standard output, or for people on ``console``."""
    if json:
        figures = msgspec.to_builtins(report) | {"verdicts": msgspec.to_builtins(verdicts)}
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
        return
    machine = report.machine
    console.print(
        Text(
            f"{machine.cores} x {machine.processor}, {machine.memory_bytes / MIB / 1024:.0f} GiB,"
            f" {machine.system}, {machine.filesystem}; {report.workers} worker(s)\n"
            + ", ".join(f"{name} {version}" for name, version in machine.versions.items())
        )
    )
    for note in report.notes:
        console.print(Text(note))
    for title in dict.fromkeys(figure.table for figure in report.figures):
        console.print()
        console.print(_table([each for each in report.figures if each.table == title]))
    console.print()
    console.print(_verdict_table(verdicts))
    for problem in report.problems:
        console.print(Text(f"Not measured: {problem}"))


def _table(figures: Sequence[Figure]) -> Table:
    """A row for each thing that a contender did, a column for each unit."""
    units = list(dict.fromkeys(figure.unit for figure in figures))
    is_time = units[0].endswith("ms")  # less is better, and read as a share of the other's
    heading = "holdfast takes" if is_time else "holdfast is"
    table = _empty_table(figures[0].table, ("sync", "", "", "contender"), (*units, heading))
    rows = dict.fromkeys((each.sync, each.what, each.size, each.contender) for each in figures)
    for sync, what, size, contender in rows:
        row = [find(figures, sync, what, contender, unit) for unit in units]
        ours = find(figures, sync, what, HOLDFAST, units[0])
        first = row[0]
        is_compared = ours and first and ours is not first and all(first.values)
        table.add_row(
            sync,
            what,
            size,
            contender,
            *(_values_text(each) for each in row),
            f"{_compare(ours, first):.2f} x" if is_compared and ours and first else "",
            style="bold" if contender == HOLDFAST else None,
        )
    return table


def _values_text(figure: Figure | None) -> str:
    """The median, and the least and the most."""
    if figure is None or not figure.values:
        return ""
    digits = 0 if (middle := statistics.median(figure.values)) >= 100 else 3 if middle < 10 else 1
    if len(figure.values) == 1:
        return f"{middle:,.{digits}f}"
    least, most = min(figure.values), max(figure.values)
    return f"{middle:,.{digits}f} ({least:,.{digits}f} - {most:,.{digits}f})"


def _verdict_table(verdicts: Sequence[Verdict]) -> Table:
    table = _empty_table("Promised and measured", ("", "what", "promised"), ("measured",))
    table.add_column("")
    for verdict in verdicts:
        table.add_row(
            verdict.kind,
            verdict.what,
            f"{_SIGNS[verdict.comparison]} {verdict.bound:g} {verdict.unit}",
            "" if verdict.measured is None else f"{verdict.measured:.2f}",
            Text(verdict.outcome, style=_STYLES.get(verdict.outcome, "dim")),
        )
    return table


def _empty_table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table
