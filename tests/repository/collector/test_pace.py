"""A collection goes on no faster than it may."""

from __future__ import annotations

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
