"""A collection goes on no faster than it may, and rests."""

from __future__ import annotations

import pytest

from holdfast.repository.collector.pace import Pace


class Clock:
    """Seconds that pass while somebody sleeps, or when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_bytes_take_their_time_and_rest_is_not_saved_up() -> None:
    clock = Clock()
    pace = Pace(100, monotonic=clock.monotonic, sleep=clock.sleep)

    for _ in range(5):
        await pace.spend(50)
    assert clock.now == 1002.0
    clock.now += 3600
    for _ in range(5):
        await pace.spend(50)
    assert clock.now == 1002.0 + 3600 + 2.0


async def test_a_rest_is_so_many_times_as_long_as_the_work_before_it() -> None:
    clock = Clock()
    pace = Pace(1e9, monotonic=clock.monotonic, sleep=clock.sleep, rest=2.0)

    rests: list[float] = []
    for work in (0.125, 0.0, 0.25):
        clock.now += work
        worked_until = clock.now
        await pace.spend(1)
        rests.append(clock.now - worked_until)

    assert rests == pytest.approx([0.25, 0.0, 0.5], abs=1e-6)


async def test_what_lies_far_back_makes_no_long_rest() -> None:
    clock = Clock()
    pace = Pace(1e9, monotonic=clock.monotonic, sleep=clock.sleep, rest=2.0)
    clock.now += 3600

    await pace.spend(1)

    assert clock.now <= 1000 + 3600 + 1
