"""A command is found wherever it lies, by few reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.repository.states.pool import GatedJournal, StatesPool

from holdfast.errors import CorruptError
from holdfast.repository.states.logs import LogPlace, StateLogs
from holdfast.repository.states.places import CommandPlaces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Counted:
    """Counts calls."""

    def __init__(self) -> None:
        self.calls = 0

    async def run[T](self, function: Callable[[], Awaitable[T]]) -> T:
        """One more."""
        self.calls += 1
        return await function()

    write = run


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    gaps=st.lists(st.integers(0, 30), min_size=20, max_size=20),
)
@settings(max_examples=60)
async def test_every_command_is_found_however_groups_lie(sizes: list[int], gaps: list[int]) -> None:
    pool = StatesPool()
    worker = pool.worker()
    for size, gap in zip(sizes, gaps, strict=False):
        for _ in range(gap):
            pool.journal._last += 1
        await worker.append("s", *range(size))

    present = await worker.states.look("s")
    assert present.end is not None
    index = 0
    for size in sizes:
        first = index + 1
        for _ in range(size):
            index += 1
            places = CommandPlaces(worker.states.logs)
            place = await places.before(present.record, index, present.end.place)
            assert place.index == first - 1


async def test_a_command_of_a_long_log_is_found_by_few_reads() -> None:
    pool, counted = StatesPool(), Counted()
    worker = pool.worker()
    for n in range(2000):
        pool.journal._last += n % 7
        await worker.append("s", n)
    present = await worker.states.look("s")
    assert present.end is not None
    logs = StateLogs(GatedJournal(pool.journal, counted))  # type: ignore[arg-type]

    for index in (1, 2, 777, 1999, 2000):
        counted.calls = 0
        await CommandPlaces(logs).before(present.record, index, present.end.place)
        assert counted.calls <= 26


async def test_a_command_that_is_not_there_is_a_damage() -> None:
    pool = StatesPool()
    worker = pool.worker()
    for n in range(10):
        await worker.append("s", n)
    present = await worker.states.look("s")
    del pool.journal._logs["s"][4:6]

    with pytest.raises(CorruptError):
        await CommandPlaces(worker.states.logs).before(present.record, 5, LogPlace(10, 10))
