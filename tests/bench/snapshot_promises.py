"""What was promised of snapshots, beside what was measured. Judged whatever the tree is.

``first`` may take as long as the others, everything else is so many times as fast as restic. What
restic is not measured beside is not judged. One file is promised as a service asks for it, on a
connection that is open; the same by a whole command, with its start, is an aim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct
from tests.bench.backup_tools import BORG, RESTIC
from tests.bench.figures import HOLDFAST
from tests.bench.promises import Verdict
from tests.bench.snapshot_figures import find_action, find_stored, peak_of, ratio

from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.figures import Sync
    from tests.bench.snapshot_figures import Action, LargeFileFigure, SnapshotReport

STORED_RATIO: Final = 1.05
CHANGED_RATIO: Final = 1.6
LARGE_RATIO: Final = 1.2
WORKER_MEMORY_BYTES: Final = 300 * MIB


class _Speed(Struct, frozen=True):
    action: Action
    contender: str
    bound: float
    kind: Literal["promise", "aim"] = "promise"


_SPEEDS: Final = (
    _Speed("first", RESTIC, 1.0),
    _Speed("first", BORG, 1.0),
    _Speed("unchanged", RESTIC, 2.5),
    _Speed("changed", RESTIC, 2.0),
    _Speed("restore", RESTIC, 1.5),
    _Speed("one file", RESTIC, 3.0),
    _Speed("command", RESTIC, 3.0, "aim"),
    _Speed("export", RESTIC, 5.0),
)
_NAMES: Final[dict[str, str]] = {
    "first": "first snapshot",
    "unchanged": "snapshot of what has not changed",
    "changed": "snapshot after a scattered change",
    "restore": "restore of everything",
    "one file": "one file, by a request",
    "command": "one file, by a whole command",
    "export": "export as an archive",
}


def judge_snapshots(report: SnapshotReport) -> list[Verdict]:
    """A verdict on every promise, in a fixed order, measured or not."""
    syncs = sorted({each.sync for each in report.actions}, reverse=True) or ["default"]
    return [
        *(verdict for sync in syncs for verdict in _judge_sync(report, sync)),
        _large(report.large),
        _memory(report),
    ]


def _judge_sync(report: SnapshotReport, sync: Sync) -> Iterator[Verdict]:
    for promised in _SPEEDS:
        yield _speed(report, sync, promised)
    yield _bytes(report, sync, "stored by the first", "first", STORED_RATIO)
    yield _bytes(report, sync, "added by the changed", "changed", CHANGED_RATIO)


def _speed(report: SnapshotReport, sync: Sync, promised: _Speed) -> Verdict:
    ours = find_action(report.actions, sync, promised.action, HOLDFAST)
    # The peers' single file is a command anyway.
    theirs_action = "one file" if promised.action == "command" else promised.action
    theirs = find_action(report.actions, sync, theirs_action, promised.contender)
    measured = None if ours is None or theirs is None else ratio(theirs.seconds, ours.seconds)
    return _verdict(
        f"speed of {_NAMES[promised.action]}, {sync} sync / {promised.contender}",
        measured,
        promised.bound,
        kind=promised.kind,
        comparison="at least",
    )


def _bytes(
    report: SnapshotReport, sync: Sync, what: str, field: Literal["first", "changed"], bound: float
) -> Verdict:
    ours = find_stored(report.stored, sync, HOLDFAST)
    theirs = find_stored(report.stored, sync, RESTIC)
    measured = None
    if ours is not None and theirs is not None and all(getattr(theirs, field)):
        measured = ratio(getattr(ours, field), getattr(theirs, field))
    return _verdict(f"bytes {what}, {sync} sync / {RESTIC}", measured, bound)


def _large(figures: Sequence[LargeFileFigure]) -> Verdict:
    added = {each.contender: each.added for each in figures}
    measured = None
    if HOLDFAST in added and added.get(RESTIC):
        measured = added[HOLDFAST] / added[RESTIC]
    return _verdict(f"bytes added by blocks of one large file / {RESTIC}", measured, LARGE_RATIO)


def _memory(report: SnapshotReport) -> Verdict:
    peak = peak_of([*report.actions, *report.large])
    return _verdict(
        "peak memory of the worker",
        None if peak is None else peak / MIB,
        WORKER_MEMORY_BYTES / MIB,
        unit="MiB",
    )


def _verdict(
    what: str,
    measured: float | None,
    bound: float,
    *,
    kind: Literal["promise", "aim"] = "promise",
    comparison: Literal["at least", "at most"] = "at most",
    unit: str = "x",
) -> Verdict:
    if measured is None:
        outcome: Literal["met", "missed", "not measured"] = "not measured"
    elif measured >= bound if comparison == "at least" else measured <= bound:
        outcome = "met"
    else:
        outcome = "missed"
    return Verdict(
        what=what,
        kind=kind,
        comparison=comparison,
        bound=bound,
        unit=unit,
        measured=measured,
        outcome=outcome,
    )
