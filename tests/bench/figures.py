"""What a run measured, as plain values: what ``--json`` prints and what promises are judged by.

Names of clients and of what was done are the keys between the parts; ``HOLDFAST`` is ours. Seconds
are per call, rounds are in order, and round ``i`` of every client ran side by side.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOLDFAST: Final = "holdfast"

Sync = Literal["always", "default"]
Action = Literal["put", "get"]


class LargeFigure(Struct, frozen=True, kw_only=True):
    """One client putting or getting one large blob, again and again."""

    sync: Sync
    action: Action
    client: str
    size: int
    seconds: list[float]

    def mib_per_second(self) -> list[float]:
        """The speed of each round."""
        return [self.size / 2**20 / seconds for seconds in self.seconds]


class SmallFigure(Struct, frozen=True, kw_only=True):
    """Requests of one kind: one after the other (p50, p99), then ``in_flight`` at once."""

    sync: Sync
    what: str
    size: int
    requests: int
    p50_seconds: float
    p99_seconds: float
    in_flight: int
    per_second: float


class HasFigure(Struct, frozen=True, kw_only=True):
    """``has`` of ``digests`` digests, every other one stored, on a store of ``blobs`` blobs."""

    sync: Sync
    blobs: int
    digests: int
    seconds: list[float]
    fill_seconds: float


class MemoryFigure(Struct, frozen=True, kw_only=True):
    """The most memory that a process had resident. None: this system does not tell."""

    process: Literal["worker", "client"]
    streams: int
    size: int
    peak_bytes: int | None
    up_seconds: float
    down_seconds: float


class Machine(Struct, frozen=True, kw_only=True):
    """Where the figures come from."""

    cores: int
    processor: str
    memory_bytes: int
    filesystem: str
    system: str
    versions: dict[str, str]


class Report(Struct, frozen=True, kw_only=True):
    """All of a run. ``problems``: clients that were asked for and could not be measured."""

    machine: Machine
    workers: int
    large: list[LargeFigure] = field(default_factory=list)
    small: list[SmallFigure] = field(default_factory=list)
    has: list[HasFigure] = field(default_factory=list)
    memory: list[MemoryFigure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def percentile(values: Iterable[float], percent: int) -> float:
    """The smallest of ``values`` that ``percent`` percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def speed_ratio(ours: LargeFigure, theirs: LargeFigure) -> float:
    """How many times as fast as theirs ours is: the median over the rounds.

    Round by round, for a shared machine changes its speed from minute to minute.
    """
    rounds = zip(theirs.seconds, ours.seconds, strict=True)
    return statistics.median(their / our for their, our in rounds)


def find_large(
    figures: Sequence[LargeFigure], sync: str, action: str, client: str
) -> LargeFigure | None:
    """The figure of that client, if it was measured."""
    wanted = (sync, action, client)
    return next((each for each in figures if (each.sync, each.action, each.client) == wanted), None)


def find_small(figures: Sequence[SmallFigure], sync: str, what: str) -> SmallFigure | None:
    """The figure of that kind of request, if it was measured."""
    return next((each for each in figures if (each.sync, each.what) == (sync, what)), None)


def small_figures(
    answer: dict[str, dict[str, Any]], *, sync: Sync, size: int, requests: int, in_flight: int
) -> list[SmallFigure]:
    """The figures in the answer of a client process."""
    return [
        SmallFigure(
            sync=sync,
            what=what,
            size=size,
            requests=requests,
            p50_seconds=measured["p50"],
            p99_seconds=measured["p99"],
            in_flight=in_flight,
            per_second=measured["per_second"],
        )
        for what, measured in answer.items()
    ]
