"""Waiting for what may pass by itself, and for nothing else."""

from __future__ import annotations

import pytest

from holdfast.errors import NotFoundError
from holdfast.stores.jetstream.buckets.readiness import NotReadyError, wait_ready


class Attempts:
    """Fails with these, one after the other, and then gives 7."""

    def __init__(self, *failures: Exception) -> None:
        self.left = list(failures)

    async def __call__(self) -> int:
        if self.left:
            raise self.left.pop(0)
        return 7


async def test_it_is_tried_until_it_goes_well_and_each_reason_is_told_once() -> None:
    attempts = Attempts(*map(NotReadyError, ["no connection", "no leader", "no leader"]))
    told: list[str] = []

    assert await wait_ready(attempts, 60, waiting=told.append) == 7

    assert told == ["no connection", "no leader"]


async def test_without_time_it_is_tried_once() -> None:
    attempts = Attempts(NotReadyError("first"), NotReadyError("second"))

    with pytest.raises(NotReadyError, match="first"):
        await wait_ready(attempts, 0)


async def test_any_other_failure_is_final() -> None:
    attempts = Attempts(NotReadyError("first"), NotFoundError("second"), NotReadyError("third"))

    with pytest.raises(NotFoundError):
        await wait_ready(attempts, 60)

    assert len(attempts.left) == 1
