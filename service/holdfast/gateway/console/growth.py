"""How what is stored grew: the bytes that each snapshot added, one upon the other, as a plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.protocol.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdfast.protocol.snapshots import SnapshotRecord

MAX_SNAPSHOTS: Final = 2000
WIDTH: Final = 720
HEIGHT: Final = 160
_LEAST: Final = 2


@dataclass(frozen=True, slots=True)
class GrowthPlot:
    """A plot of ``WIDTH`` by ``HEIGHT``: ``line`` and ``area`` are paths of SVG.

    ``total`` bytes were added by ``count`` snapshots from ``first`` to ``last``, times of the wire.
    """

    line: str
    area: str
    total: int
    count: int
    first: str
    last: str
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
    line = _line(points)
    return GrowthPlot(
        line=line,
        area=f"{line}V{HEIGHT}H0Z",
        total=sum(added for _, added in points),
        count=len(points),
        first=records[-1].created_at,
        last=records[0].created_at,
    )


def _line(points: Sequence[tuple[datetime, int]]) -> str:
    """Steps: what a snapshot added is there from its time on."""
    began, ended = points[0][0], points[-1][0]
    span = (ended - began).total_seconds()
    total = max(1, sum(added for _, added in points))
    steps, height = [f"M0 {HEIGHT}"], 0
    for at, added in points:
        height += added
        x = (at - began).total_seconds() / span * WIDTH
        y = HEIGHT - height / total * (HEIGHT - 2)
        steps.append(f"H{x:.1f}V{y:.1f}")
    return "".join(steps)
