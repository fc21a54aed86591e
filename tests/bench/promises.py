"""What was promised, beside what was measured. Nothing here is rounded in anyone's favour.

A promise names the size that it was made for: figures of another size are shown, and not judged.
An ``aim`` is what we would like to reach beyond what is promised.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct
from tests.bench.contenders import NATS_PY, NATSRPY, NATSRPY_128K
from tests.bench.figures import HOLDFAST, find_large, find_small, speed_ratio

from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from tests.bench.figures import Action, Report, Sync

LARGE_BYTES: Final = 256 * MIB
SMALL_BYTES: Final = 4 * 1024
HAS_BLOBS: Final = 100_000
HAS_MILLISECONDS: Final = 60.0
WORKER_STREAMS: Final = 8
WORKER_STREAM_BYTES: Final = 1024 * MIB
WORKER_MEMORY_BYTES: Final = 256 * MIB
CLIENT_STREAM_BYTES: Final = 4096 * MIB
CLIENT_MEMORY_BYTES: Final = 128 * MIB

SMALL_GET: Final = "get"
SMALL_PUT: Final = "put"
BARE: Final = "bare request like a {what}"
SYNCED_PUTS_PER_SECOND: Final = 1200.0
"""Many synced puts a second are enough, whatever a bare request takes."""

_Outcome = Literal["met", "missed", "not judged", "not measured"]


class Verdict(Struct, frozen=True, kw_only=True):
    """One promise. ``measured`` is in the unit of ``bound``, and None if it was not measured."""

    what: str
    kind: Literal["promise", "aim"]
    comparison: Literal["at least", "at most", "under"]
    bound: float
    unit: str
    measured: float | None
    outcome: _Outcome


class _Ratio(Struct, frozen=True):
    sync: Sync
    action: Action
    client: str
    bound: float
    kind: Literal["promise", "aim"] = "promise"


_RATIOS: Final = (
    _Ratio("default", "get", NATSRPY, 1.2),
    _Ratio("default", "get", NATSRPY_128K, 1.1, "aim"),
    _Ratio("default", "get", NATS_PY, 4.0),
    _Ratio("default", "put", NATS_PY, 1.1),
    _Ratio("default", "put", NATS_PY, 1.3, "aim"),
    _Ratio("default", "put", NATSRPY_128K, 1.0, "aim"),
    _Ratio("always", "put", NATS_PY, 2.0),
)


class _Small(Struct, frozen=True):
    """A small request beside a bare one that carries as much, alone or with others in flight."""

    sync: Sync
    what: Action
    measure: Literal["p50", "rate"]
    bound: float
    kind: Literal["promise", "aim"] = "promise"
    is_enough: float | None = None


_SMALL: Final = (
    _Small("default", SMALL_GET, "p50", 2.0),
    _Small("default", SMALL_GET, "rate", 0.3),
    _Small("default", SMALL_GET, "rate", 0.5, "aim"),
    _Small("default", SMALL_PUT, "p50", 2.5),
    _Small("default", SMALL_PUT, "rate", 0.25),
    _Small("always", SMALL_PUT, "rate", 0.1, is_enough=SYNCED_PUTS_PER_SECOND),
)
"""How a server syncs makes no difference to a get."""


def judge(report: Report) -> list[Verdict]:
    """A verdict on every promise, in a fixed order, measured or not."""
    return [
        *(_judge_ratio(report, ratio) for ratio in _RATIOS),
        *(_judge_small(report, small) for small in _SMALL),
        _judge_has(report),
        _judge_memory(report, "worker", WORKER_STREAMS, WORKER_STREAM_BYTES, WORKER_MEMORY_BYTES),
        _judge_memory(report, "client", 1, CLIENT_STREAM_BYTES, CLIENT_MEMORY_BYTES),
    ]


def _judge_ratio(report: Report, ratio: _Ratio) -> Verdict:
    ours = find_large(report.large, ratio.sync, ratio.action, HOLDFAST)
    theirs = find_large(report.large, ratio.sync, ratio.action, ratio.client)
    measured = None if ours is None or theirs is None else speed_ratio(ours, theirs)
    size = LARGE_BYTES if ours is None else ours.size
    return Verdict(
        what=f"speed of a {ratio.action}, {_mib(size)}, {ratio.sync} sync / {ratio.client}",
        kind=ratio.kind,
        comparison="at least",
        bound=ratio.bound,
        unit="x",
        measured=measured,
        outcome=_outcome(
            measured,
            meets=measured is not None and measured >= ratio.bound,
            comparable=size == LARGE_BYTES,
        ),
    )


def _judge_small(report: Report, small: _Small) -> Verdict:
    ours = find_small(report.small, small.sync, small.what)
    bare = find_small(report.small, small.sync, BARE.format(what=small.what))
    is_p50 = small.measure == "p50"
    measured, is_met = None, False
    if ours is not None and bare is not None:
        if is_p50:
            measured = ours.p50_seconds / bare.p50_seconds
            is_met = measured <= small.bound
        else:
            measured = ours.per_second / bare.per_second
            is_met = measured >= small.bound
            is_met = is_met or (small.is_enough is not None and ours.per_second >= small.is_enough)
    return Verdict(
        what=f"{small.measure} of a {small.what}, 4 KiB, {small.sync} sync / a bare request",
        kind=small.kind,
        comparison="at most" if is_p50 else "at least",
        bound=small.bound,
        unit="x",
        measured=measured,
        outcome=_outcome(
            measured, meets=is_met, comparable=ours is not None and ours.size == SMALL_BYTES
        ),
    )


def _judge_has(report: Report) -> Verdict:
    figure = max(report.has, key=lambda figure: figure.blobs, default=None)
    measured = None if figure is None else statistics.median(figure.seconds) * 1000
    blobs = HAS_BLOBS if figure is None else figure.blobs
    return Verdict(
        what=f"p50 of has, 1,024 digests on {blobs:,} blobs",
        kind="promise",
        comparison="at most",
        bound=HAS_MILLISECONDS,
        unit="ms",
        measured=measured,
        outcome=_outcome(
            measured,
            meets=measured is not None and measured <= HAS_MILLISECONDS,
            comparable=blobs >= HAS_BLOBS,
        ),
    )


def _judge_memory(
    report: Report, process: Literal["worker", "client"], streams: int, size: int, bound: int
) -> Verdict:
    figure = next((each for each in report.memory if each.process == process), None)
    measured = None
    if figure is not None:
        streams_and_size = figure.streams, figure.size
        measured = None if figure.peak_bytes is None else figure.peak_bytes / MIB
    else:
        streams_and_size = streams, size
    return Verdict(
        what=f"peak memory of a {process}, {streams_and_size[0]} x {_mib(streams_and_size[1])}",
        kind="promise",
        comparison="under",
        bound=bound / MIB,
        unit="MiB",
        measured=measured,
        outcome=_outcome(
            measured,
            meets=measured is not None and measured < bound / MIB,
            comparable=streams_and_size == (streams, size),
        ),
    )


def _mib(size: int) -> str:
    return f"{size / MIB:g} MiB"


def _outcome(measured: float | None, *, meets: bool, comparable: bool) -> _Outcome:
    if measured is None:
        return "not measured"
    if not comparable:
        return "not judged"
    return "met" if meets else "missed"
