"""The arithmetic under every table: percentiles, and ratios between clients."""

from __future__ import annotations

import pytest
from tests.bench.figures import HOLDFAST, LargeFigure, percentile, speed_ratio


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        (list(map(float, range(1, 101))), 99, 99.0),
        (list(map(float, range(1, 101))), 100, 100.0),
        (list(map(float, range(1, 1001))), 99, 990.0),
    ],
)
def test_a_percentile_is_a_measured_value(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent) == expected


def test_clients_are_compared_round_by_round_so_that_a_slow_minute_hits_both() -> None:
    # The machine ran at half speed in the second round; ours took half of their time in each.
    ours = large(HOLDFAST, [1.0, 2.0, 1.0])
    theirs = large("nats-py", [2.0, 4.0, 2.0])

    assert speed_ratio(ours, theirs) == 2.0
    assert speed_ratio(theirs, ours) == 0.5


def test_one_odd_round_does_not_move_the_ratio() -> None:
    ours = large(HOLDFAST, [1.0, 1.0, 1.0])
    theirs = large("nats-py", [1.5, 60.0, 1.5])

    assert speed_ratio(ours, theirs) == 1.5


def test_speed_is_in_mebibytes_per_second() -> None:
    assert large(HOLDFAST, [2.0], size=64 * 2**20).mib_per_second() == [32.0]


def large(client: str, seconds: list[float], *, size: int = 2**20) -> LargeFigure:
    """Gets of one client."""
    return LargeFigure(sync="default", action="get", client=client, size=size, seconds=seconds)
