"""Results that are asked for ahead come in order, no more than allowed, and with failures."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from holdfast.client.states.ahead import Ahead
from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Numbers:
    """Counts from 0 on, and then fails where it is told to."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.given = 0
        self.is_closed = False
        self._count = count
        self._error = error

    async def items(self) -> AsyncGenerator[int]:
        """One number after the other."""
        try:
            for number in range(self._count):
                self.given += 1
                yield number
            if self._error is not None:
                raise self._error
        finally:
            self.is_closed = True


async def turns(count: int = 50) -> None:
    """Let others go on for some turns of the loop."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("most", [1, 3, 100])
async def test_all_of_it_comes_in_order(most: int) -> None:
    numbers = Numbers(20)

    async with aclosing(Ahead(numbers.items(), most)) as ahead:
        found = [number async for number in ahead.items()]

    assert found == list(range(20))
    assert numbers.is_closed


async def test_no_more_is_taken_ahead_than_was_allowed() -> None:
    numbers = Numbers(20)

    async with aclosing(Ahead(numbers.items(), 3)) as ahead:
        await turns()
        before = numbers.given
        assert await anext(ahead.items()) == 0
        await turns()

        assert (before, numbers.given) == (3, 4)


async def test_a_failure_comes_behind_what_was_there_before() -> None:
    numbers = Numbers(2, NotFoundError("trimmed"))

    async with aclosing(Ahead(numbers.items(), 10)) as ahead:
        await turns()
        items = ahead.items()
        found = [await anext(items), await anext(items)]
        with pytest.raises(NotFoundError):
            await anext(items)

    assert found == [0, 1]


async def test_whoever_stops_early_has_the_source_closed() -> None:
    numbers = Numbers(20)

    async with aclosing(Ahead(numbers.items(), 3)):
        await turns()

    assert numbers.is_closed
