"""A verdict says met only if the promise was measured, at its own size, and reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.bench.contenders import NATSRPY
from tests.bench.promises import BLOB_PROMISES

from holdfast.cli.bench.blobs import BARE, NATS_PY
from holdfast.cli.bench.report import HOLDFAST, Figure, Machine, Report, judge

if TYPE_CHECKING:
    from holdfast.cli.bench.report import Verdict

MACHINE = Machine(
    cores=2, processor="p", memory_bytes=2**34, filesystem="ext4", system="Linux", versions={}
)


def test_every_promise_is_listed_even_when_nothing_was_measured() -> None:
    verdicts = verdicts_on()

    assert {verdict.outcome for verdict in verdicts} == {"not measured"}
    assert len([verdict for verdict in verdicts if verdict.kind == "promise"]) == 12


@pytest.mark.parametrize(("our_speed", "outcome"), [(1.2, "met"), (1.19, "missed")])
def test_a_get_is_judged_by_its_ratio_to_the_other_client(our_speed: float, outcome: str) -> None:
    verdict = find(
        verdicts_on(large(HOLDFAST, our_speed), large(NATSRPY, 1.0)),
        "speed of a get, 256 MiB, default sync / natsrpy",
    )

    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(our_speed)


def test_a_ratio_at_another_size_is_shown_and_not_judged() -> None:
    verdicts = verdicts_on(large(HOLDFAST, 2.0, size="1 MiB"), large(NATSRPY, 1.0, size="1 MiB"))

    verdict = find(verdicts, "speed of a get, 1 MiB, default sync / natsrpy")

    assert (verdict.outcome, verdict.measured) == ("not judged", 2.0)


def test_synced_puts_have_a_promise_of_their_own() -> None:
    verdicts = verdicts_on(
        large(HOLDFAST, 2.0, sync="always", what="put"),
        large(NATS_PY, 1.0, sync="always", what="put"),
    )

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
    verdicts = verdicts_on(
        figure(what=what, unit="p50 ms", values=[ours]),
        figure(what=what, unit="p50 ms", values=[0.1], contender=BARE),
    )

    verdict = find(verdicts, f"p50 of a {what}, 4 KiB, default sync / a bare request")

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
    verdicts = verdicts_on(
        figure(sync=sync, what=what, unit="per second", values=[ours]),
        figure(sync=sync, what=what, unit="per second", values=[20_000.0], contender=BARE),
    )

    verdict = find(verdicts, f"rate of a {what}, 4 KiB, {sync} sync / a bare request")

    assert verdict.outcome == outcome


def test_what_is_aimed_at_is_told_beside_what_is_promised() -> None:
    verdicts = verdicts_on(
        figure(what="get", unit="per second", values=[0.4]),
        figure(what="get", unit="per second", values=[1.0], contender=BARE),
    )

    told = [verdict for verdict in verdicts if "rate of a get" in verdict.what]

    assert [(each.kind, each.outcome) for each in told] == [
        ("promise", "met"),
        ("aim", "missed"),
    ]


@pytest.mark.parametrize(
    ("size", "milliseconds", "outcome"),
    [
        ("100,000 blobs", [10.0, 60.0, 9000.0], "met"),
        ("100,000 blobs", [10.0, 61.0, 100.0], "missed"),
        ("10,000 blobs", [10.0], "not judged"),
    ],
)
def test_has_is_judged_by_its_median_on_as_many_blobs_as_were_promised(
    size: str, milliseconds: list[float], outcome: str
) -> None:
    verdicts = verdicts_on(figure(what="has", size=size, unit="ms", values=milliseconds))

    assert find(verdicts, f"p50 of has, 1,024 digests on {size}").outcome == outcome


@pytest.mark.parametrize(
    ("size", "peak", "outcome"),
    [
        ("8 x 1024 MiB", 255.9, "met"),
        ("8 x 1024 MiB", 256.0, "missed"),
        ("8 x 64 MiB", 100.0, "not judged"),
        ("8 x 1024 MiB", None, "not measured"),
    ],
)
def test_a_workers_memory_stays_under_its_bound(
    size: str, peak: float | None, outcome: str
) -> None:
    measured = [figure(what="worker", size=size, unit="up MiB/s", values=[1.0])]
    if peak is not None:
        measured.append(figure(what="worker", size=size, unit="peak MiB", values=[peak]))

    verdict = find(verdicts_on(*measured), f"peak memory of a worker, {size}")

    assert verdict.outcome == outcome


def find(verdicts: list[Verdict], what: str) -> Verdict:
    """The one verdict on ``what``."""
    (found,) = (verdict for verdict in verdicts if verdict.what == what)
    return found


def verdicts_on(*figures: Figure) -> list[Verdict]:
    """The verdicts on a report of these figures."""
    return judge(Report(machine=MACHINE, workers=2, figures=list(figures)), BLOB_PROMISES)


def figure(
    *,
    what: str,
    unit: str,
    values: list[float],
    sync: str = "default",
    size: str = "",
    contender: str = HOLDFAST,
) -> Figure:
    """A figure under some title."""
    return Figure(
        table="figures",
        sync="always" if sync == "always" else "default",
        what=what,
        size=size,
        contender=contender,
        unit=unit,
        values=values,
    )


def large(
    contender: str,
    speed: float,
    *,
    size: str = "256 MiB",
    sync: str = "default",
    what: str = "get",
) -> Figure:
    """Three equal rounds with a large blob."""
    values = [speed] * 3
    return figure(sync=sync, what=what, contender=contender, size=size, unit="MiB/s", values=values)
