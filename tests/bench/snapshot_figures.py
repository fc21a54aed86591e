"""What a run of ``bench snapshot`` measured, as plain values: what ``--json`` prints.

Round ``i`` of every contender ran side by side on the same tree, so ratios are taken round by
round. Bytes are bytes, seconds are seconds, and peaks are of one process.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct, field
from tests.bench.figures import HOLDFAST, Machine, Sync
from tests.bench.trees import Change, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.backup_tools import Taken

Action = Literal["first", "unchanged", "changed", "restore", "one file", "command", "export"]
"""``command`` is one file again, by a whole command with its start."""

ACTIONS: Final[tuple[Action, ...]] = (
    "first",
    "unchanged",
    "changed",
    "restore",
    "one file",
    "command",
    "export",
)


class ActionFigure(Struct, frozen=True, kw_only=True):
    """One contender doing one thing, round after round.

    ``cpu_seconds`` are of all processes that did it: for holdfast worker, server and client.
    ``peak_bytes`` is the largest of any round, for holdfast the worker's; None: not known.
    """

    sync: Sync
    action: Action
    contender: str
    seconds: list[float]
    cpu_seconds: list[float]
    peak_bytes: int | None


class StoredFigure(Struct, frozen=True, kw_only=True):
    """What one contender's repository held after the first backup, and what the others added.

    ``reported`` is what holdfast's records say was added, in the same order; others say nothing.
    """

    sync: Sync
    contender: str
    first: list[int]
    unchanged: list[int]
    changed: list[int]
    reported: list[list[int]] = field(default_factory=list)


class LargeFileFigure(Struct, frozen=True, kw_only=True):
    """One large file, then the same with some of its blocks overwritten. Peaks as above."""

    contender: str
    size: int
    block: int
    change: Change
    first_seconds: float
    again_seconds: float
    added: int
    peak_bytes: int | None


class SnapshotReport(Struct, frozen=True, kw_only=True):
    """All of a run. ``problems``: what was asked for and could not be measured."""

    machine: Machine
    source: str
    tree: Tree
    change: Change
    one_file_size: int
    notes: dict[str, str]
    actions: list[ActionFigure] = field(default_factory=list)
    stored: list[StoredFigure] = field(default_factory=list)
    large: list[LargeFileFigure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def action_figure(
    sync: Sync, action: Action, contender: str, taken: Sequence[Taken]
) -> ActionFigure:
    """The figure of what was ``taken`` in each round."""
    peaks = [each.peak_bytes for each in taken if each.peak_bytes is not None]
    return ActionFigure(
        sync=sync,
        action=action,
        contender=contender,
        seconds=[each.seconds for each in taken],
        cpu_seconds=[each.cpu_seconds for each in taken],
        peak_bytes=max(peaks, default=None),
    )


def find_action(
    figures: Sequence[ActionFigure], sync: str, action: str, contender: str
) -> ActionFigure | None:
    """The figure of that contender, if it was measured."""
    wanted = (sync, action, contender)
    return next(
        (each for each in figures if (each.sync, each.action, each.contender) == wanted), None
    )


def find_stored(figures: Sequence[StoredFigure], sync: str, contender: str) -> StoredFigure | None:
    """What that contender stored, if it was measured."""
    wanted = (sync, contender)
    return next((each for each in figures if (each.sync, each.contender) == wanted), None)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times theirs ours is: the median over the rounds."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


def peak_of(
    figures: Sequence[ActionFigure | LargeFileFigure], contender: str = HOLDFAST
) -> int | None:
    """The largest peak of ``contender`` in any of ``figures``."""
    peaks = [each.peak_bytes for each in figures if each.contender == contender]
    return max((peak for peak in peaks if peak is not None), default=None)
