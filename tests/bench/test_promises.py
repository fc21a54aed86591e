"""A verdict says met only if the promise was measured, at its own size, and reached."""

from __future__ import annotations

import pytest

from holdfast.bench.contenders import NATS_PY, NATSRPY
from holdfast.bench.figures import (
    HOLDFAST,
    HasFigure,
    LargeFigure,
    Machine,
    MemoryFigure,
    Report,
    SmallFigure,
)
from holdfast.bench.promises import BARE_GET, SMALL_GET, Verdict, judge
from holdfast.domain.limits import MIB

MACHINE = Machine(
    cores=2, processor="p", memory_bytes=2**34, filesystem="ext4", system="Linux", versions={}
)


def test_every_promise_is_listed_even_when_nothing_was_measured() -> None:
    verdicts = judge(report())

    assert {verdict.outcome for verdict in verdicts} == {"not measured"}
    assert len([verdict for verdict in verdicts if verdict.kind == "promise"]) == 8


@pytest.mark.parametrize(("their_seconds", "outcome"), [(1.1, "met"), (1.09, "missed")])
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
            large(NATS_PY, 1.0, sync="always", action="put"),
        ]
    )

    verdicts = judge(measured)

    assert find(verdicts, "speed of a put, 256 MiB, always sync / nats-py").outcome == "met"
    assert find(verdicts, "speed of a put, 256 MiB, default sync / nats-py").measured is None


@pytest.mark.parametrize(("ours", "outcome"), [(0.4, "met"), (0.41, "missed")])
def test_a_small_get_may_take_four_times_as_long_as_a_bare_request(
    ours: float, outcome: str
) -> None:
    measured = report(small=[small(SMALL_GET, ours), small(BARE_GET, 0.1)])

    verdict = find(judge(measured), "p50 of a get, 4 KiB, default sync / a bare request")

    assert verdict.outcome == outcome


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


def small(what: str, p50_seconds: float) -> SmallFigure:
    """Small requests of one kind."""
    return SmallFigure(
        sync="default",
        what=what,
        size=4096,
        requests=100,
        p50_seconds=p50_seconds,
        p99_seconds=1.0,
        in_flight=64,
        per_second=1.0,
    )
