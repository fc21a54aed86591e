"""A verdict says met only if the promise was measured, at its own size, and reached."""

from __future__ import annotations

import pytest
from tests.bench.contenders import NATS_PY, NATSRPY
from tests.bench.figures import (
    HOLDFAST,
    HasFigure,
    LargeFigure,
    Machine,
    MemoryFigure,
    Report,
    SmallFigure,
)
from tests.bench.promises import Verdict, judge

from holdfast.domain.limits import MIB

BARE_GET = "bare request like a get"
MACHINE = Machine(
    cores=2, processor="p", memory_bytes=2**34, filesystem="ext4", system="Linux", versions={}
)


def test_every_promise_is_listed_even_when_nothing_was_measured() -> None:
    verdicts = judge(report())

    assert {verdict.outcome for verdict in verdicts} == {"not measured"}
    assert len([verdict for verdict in verdicts if verdict.kind == "promise"]) == 12


@pytest.mark.parametrize(("their_seconds", "outcome"), [(1.2, "met"), (1.19, "missed")])
def test_a_get_is_judged_by_its_ratio_to_the_other_client(
    their_seconds: float, outcome: str
) -> None:
    measured = report(large=[large(HOLDFAST, 1.0), large(NATSRPY, their_seconds)])

    verdict = find(judge(measured), "speed of a get, 256 MiB, default sync / natsrpy")

    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(their_seconds)


def test_a_ratio_at_another_size_is_shown_and_not_judged() -> None:
    measured = report(
        large=[large(HOLDFAST, 1.0, size=MIB), large(NATSRPY, 2.0, size=MIB)],
    )

    verdict = find(judge(measured), "speed of a get, 1 MiB, default sync / natsrpy")

    assert (verdict.outcome, verdict.measured) == ("not judged", 2.0)


def test_synced_puts_have_a_promise_of_their_own() -> None:
    measured = report(
        large=[
            large(HOLDFAST, 1.0, sync="always", action="put"),
            large(NATS_PY, 2.0, sync="always", action="put"),
        ]
    )

    verdicts = judge(measured)

    assert find(verdicts, "speed of a put, 256 MiB, always sync / nats-py").outcome == "met"
    assert {
        verdict.measured
        for verdict in verdicts
        if verdict.what == "speed of a put, 256 MiB, default sync / nats-py"
    } == {None}


@pytest.mark.parametrize(
    ("what", "ours", "outcome"),
    [("get", 0.2, "met"), ("get", 0.21, "missed"), ("put", 0.25, "met"), ("put", 0.26, "missed")],
)
def test_a_small_request_may_take_some_times_as_long_as_a_bare_one(
    what: str, ours: float, outcome: str
) -> None:
    bare = small(f"bare request like a {what}", 0.1)
    measured = report(small=[small(what, ours), bare])

    verdict = find(judge(measured), f"p50 of a {what}, 4 KiB, default sync / a bare request")

    assert verdict.outcome == outcome


@pytest.mark.parametrize(
    ("what", "sync", "ours", "outcome"),
    [
        ("put", "default", 5000.0, "met"),
        ("put", "default", 4999.0, "missed"),
        ("put", "always", 2000.0, "met"),
        ("put", "always", 1200.0, "met"),
        ("put", "always", 1199.0, "missed"),
    ],
)
def test_many_small_requests_in_flight_reach_a_part_of_the_rate_of_bare_ones(
    what: str, sync: str, ours: float, outcome: str
) -> None:
    bare = small(f"bare request like a {what}", 0.1, sync=sync, per_second=20_000.0)
    measured = report(small=[small(what, 0.1, sync=sync, per_second=ours), bare])

    verdict = find(judge(measured), f"rate of a {what}, 4 KiB, {sync} sync / a bare request")

    assert verdict.outcome == outcome


def test_what_is_aimed_at_is_told_beside_what_is_promised() -> None:
    measured = report(small=[small("get", 0.1, per_second=0.4), small(BARE_GET, 0.1)])

    verdicts = [verdict for verdict in judge(measured) if "rate of a get" in verdict.what]

    assert [(each.kind, each.outcome) for each in verdicts] == [
        ("promise", "met"),
        ("aim", "missed"),
    ]


@pytest.mark.parametrize(
    ("blobs", "seconds", "outcome"),
    [
        (100_000, [0.01, 0.06, 9.0], "met"),
        (100_000, [0.01, 0.061, 0.1], "missed"),
        (10_000, [0.01], "not judged"),
    ],
)
def test_has_is_judged_by_its_median_on_as_many_blobs_as_were_promised(
    blobs: int, seconds: list[float], outcome: str
) -> None:
    figure = HasFigure(sync="default", blobs=blobs, digests=1024, seconds=seconds, fill_seconds=1.0)

    verdict = find(judge(report(has=[figure])), f"p50 of has, 1,024 digests on {blobs:,} blobs")

    assert verdict.outcome == outcome


@pytest.mark.parametrize(
    ("streams", "size", "peak", "outcome"),
    [
        (8, 1024 * MIB, 256 * MIB - 1, "met"),
        (8, 1024 * MIB, 256 * MIB, "missed"),
        (8, 64 * MIB, 100 * MIB, "not judged"),
        (8, 1024 * MIB, None, "not measured"),
    ],
)
def test_a_workers_memory_stays_under_its_bound(
    streams: int, size: int, peak: int | None, outcome: str
) -> None:
    figure = MemoryFigure(
        process="worker",
        streams=streams,
        size=size,
        peak_bytes=peak,
        up_seconds=1.0,
        down_seconds=1.0,
    )

    verdict = find(
        judge(report(memory=[figure])), f"peak memory of a worker, 8 x {size // MIB} MiB"
    )

    assert verdict.outcome == outcome


def find(verdicts: list[Verdict], what: str) -> Verdict:
    """The one verdict on ``what``."""
    (found,) = (verdict for verdict in verdicts if verdict.what == what)
    return found


def report(
    *,
    large: list[LargeFigure] | None = None,
    small: list[SmallFigure] | None = None,
    has: list[HasFigure] | None = None,
    memory: list[MemoryFigure] | None = None,
) -> Report:
    """A report of these figures."""
    return Report(
        machine=MACHINE,
        workers=2,
        large=large or [],
        small=small or [],
        has=has or [],
        memory=memory or [],
    )


def large(
    client: str,
    seconds: float,
    *,
    size: int = 256 * MIB,
    sync: str = "default",
    action: str = "get",
) -> LargeFigure:
    """Three equal rounds."""
    return LargeFigure(
        sync="always" if sync == "always" else "default",
        action="put" if action == "put" else "get",
        client=client,
        size=size,
        seconds=[seconds] * 3,
    )


def small(
    what: str, p50_seconds: float, *, sync: str = "default", per_second: float = 1.0
) -> SmallFigure:
    """Small requests of one kind."""
    return SmallFigure(
        sync="always" if sync == "always" else "default",
        what=what,
        size=4096,
        requests=100,
        p50_seconds=p50_seconds,
        p99_seconds=1.0,
        in_flight=64,
        per_second=per_second,
    )
