"""The growth of the store: the bytes that each snapshot added, one upon the other, as a plot."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from holdfast.protocol.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.protocol.snapshots import SnapshotRecord

MAX_SNAPSHOTS: Final = 2000
WIDTH: Final = 720
HEIGHT: Final = 160
_LEAST: Final = 2
_LONG: Final = timedelta(hours=1)
_UNIT: Final = 1024
_ROUND: Final = (2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400, 600, 800, 1000)
_LARGEST: Final = _ROUND[-1]


@dataclass(frozen=True, slots=True)
class GrowthPlot:
    """A plot of ``WIDTH`` by ``HEIGHT``: ``line`` and ``area`` are paths of SVG.

    ``total`` bytes were added by ``count`` snapshots. ``sizes`` are what the upright axis says from
    its top to its foot, and ``times`` what the other one says from left to right; both at equal
    distances.
    """

    line: str
    area: str
    total: int
    count: int
    sizes: tuple[int, int, int]
    times: tuple[str, str, str]
    width: int = WIDTH
    height: int = HEIGHT


def growth_of(records: Sequence[SnapshotRecord]) -> GrowthPlot | None:
    """The plot of ``records``, newest first; None of fewer than two times."""
    points = [
        (at, record.added)
        for record in reversed(records)
        if (at := parse_time(record.created_at)) is not None
    ]
    points.sort(key=lambda point: point[0])
    if len(points) < _LEAST or points[0][0] == points[-1][0]:
        return None
    began, ended = points[0][0], points[-1][0]
    span = ended - began
    total = sum(added for _, added in points)
    top = _top(total)
    line = _line(points, top)
    return GrowthPlot(
        line=line,
        area=f"{line}V{HEIGHT}H0Z",
        total=total,
        count=len(points),
        sizes=(top, top // 2, 0),
        times=(_moment(began, span), _moment(began + span / 2, span), _moment(ended, span)),
    )


def _top(total: int) -> int:
    """The roundest number of bytes that is no less than ``total``, for the top of an axis."""
    unit = 1
    while unit * _LARGEST < total:
        unit *= _UNIT
    return next(unit * count for count in _ROUND if unit * count >= total)


def _moment(at: datetime, span: timedelta) -> str:
    """A time as the axis has it: as exact as what it shows, which takes ``span``."""
    return f"{at:{'%Y-%m-%d %H:%M' if span >= _LONG else '%H:%M:%S'}}"


def _line(points: Sequence[tuple[datetime, int]], top: int) -> str:
    """Steps: what a snapshot added is there from its time on. ``top`` bytes are at the top."""
    began, ended = points[0][0], points[-1][0]
    span = (ended - began).total_seconds()
    steps, height = [f"M0 {HEIGHT}"], 0
    for at, added in points:
        height += added
        x = (at - began).total_seconds() / span * WIDTH
        y = HEIGHT - height / top * HEIGHT
        steps.append(f"H{x:.1f}V{y:.1f}")
    return "".join(steps)
