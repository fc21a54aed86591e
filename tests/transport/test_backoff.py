"""Waits before another attempt: growing, spread, and never past the end of anybody's patience."""

from __future__ import annotations

from holdfast.deadline import deadline
from holdfast.transport.backoff import Backoff


def test_a_wait_grows_up_to_its_limit_and_is_never_less_than_half_as_long_as_it_may_be() -> None:
    for _ in range(50):
        backoff = Backoff(1.0, 5.0)

        waits = [backoff.next() for _ in range(6)]

        longest = [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_who_failed_together_does_not_come_back_together() -> None:
    assert len({Backoff(1.0, 5.0).next() for _ in range(100)}) > 50


async def test_there_is_no_wait_that_would_outlast_the_deadline_or_the_patience() -> None:
    with deadline(10):
        assert not await Backoff(1000.0, 1000.0).wait()
        assert await Backoff(0.001, 1.0).wait()
    assert not await Backoff(1000.0, 1000.0, within_seconds=10).wait()
    assert await Backoff(0.001, 1.0, within_seconds=10).wait()
