"""Hybrid logical clocks: whoever merges what was seen only goes on, and texts sort as times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.domain.hlc import MAX_COUNTER, MAX_DRIFT, ZERO, Hlc, check_drift, later, parse_hlc
from holdfast.errors import InvalidError

NOW: Final = datetime(2026, 11, 29, 23, tzinfo=UTC)
YEAR_3000_MS: Final = 32_503_680_000_000

times = st.builds(Hlc, st.integers(0, YEAR_3000_MS), st.integers(0, MAX_COUNTER))
moments = st.datetimes(datetime(1970, 1, 1), datetime(3000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  (the zone is beside it)


@given(times)
def test_a_time_reads_back_as_it_was_written(time: Hlc) -> None:
    assert parse_hlc(str(time)) == time


@given(times, times)
def test_texts_have_one_width_and_sort_as_times_do(one: Hlc, other: Hlc) -> None:
    assert len(str(one)) == len(str(other))
    assert (str(one) < str(other)) == (one < other)


@given(times, st.integers(0, 1000), st.integers(0, 1000))
@example(Hlc(0, MAX_COUNTER), 0, 1)
@example(Hlc(0, MAX_COUNTER), 0, 2)
def test_texts_of_times_that_follow_are_those_of_each(time: Hlc, first: int, count: int) -> None:
    steps = range(first, first + count)

    assert time.texts(steps) == [str(time.advanced(step)) for step in steps]


def test_a_text_is_a_time_of_day_and_a_counter() -> None:
    assert str(later(NOW, Hlc(0, 5))) == "2026-11-29T23:00:00.000Z-0000"
    assert str(ZERO.advanced(0x1A)) == "1970-01-01T00:00:00.000Z-001a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-29T23:00:00.000Z",
        "2026-11-29T23:00:00.000Z-1",
        "2026-11-29T23:00:00.000Z-00001",
        "2026-11-29T23:00:00.000Z-000G",
        "2026-11-29T23:00:00.000Z-000A",
        "2026-11-29T23:00:00Z-0000",
        "2026-11-29T23:00:00.000+00:00-0000",
        "2026-11-29 23:00:00.000Z-0000",
        "2026-13-29T23:00:00.000Z-0000",
        "0000-01-01T00:00:00.000Z-0000",
        "\N{FULLWIDTH DIGIT TWO}026-11-29T23:00:00.000Z-0000",
        " 2026-11-29T23:00:00.000Z-0000",
        "2026-11-29T23:00:00.000Z-0000\n",
    ],
)
def test_what_is_spelt_otherwise_is_invalid(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_hlc(text)


@given(moments, st.lists(times, max_size=5))
def test_a_time_is_later_than_all_that_were_seen_and_not_before_the_clock(
    now: datetime, seen: list[Hlc]
) -> None:
    found = later(now, *seen)

    assert all(found > one for one in seen)
    assert found.at >= now - timedelta(milliseconds=1)


@given(moments, times)
def test_a_time_is_no_later_than_it_must_be(now: datetime, seen: Hlc) -> None:
    found = later(now, seen)

    assert found == seen.advanced(1) or found.at <= now


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-5000, 5000), st.integers(1, 3))))
def test_writers_with_clocks_that_differ_and_jump_write_times_that_only_rise(
    writes: list[tuple[int, int, int]],
) -> None:
    skews = (timedelta(seconds=-30), timedelta(0), timedelta(seconds=45))
    log: list[Hlc] = [ZERO]

    for writer, jump_ms, commands in writes:
        now = NOW + skews[writer] + timedelta(milliseconds=jump_ms)
        first = later(now, log[-1])
        log += [first.advanced(number) for number in range(commands)]

    assert log == sorted(set(log))


@given(times, st.integers(0, 200_000), st.integers(0, 200_000))
def test_a_counter_that_is_full_carries_into_the_time(time: Hlc, some: int, more: int) -> None:
    found = time.advanced(some)

    assert found.counter <= MAX_COUNTER
    assert found.advanced(more) == time.advanced(some + more)
    assert (found > time) == (some > 0)
    assert Hlc(7, MAX_COUNTER).advanced(1) == Hlc(8, 0)


@given(st.integers(-100_000, 100_000))
def test_a_time_may_be_so_far_ahead_and_no_further(ahead_ms: int) -> None:
    time = later(NOW + timedelta(milliseconds=ahead_ms))

    if timedelta(milliseconds=ahead_ms) <= MAX_DRIFT:
        check_drift(time, NOW)
    else:
        with pytest.raises(InvalidError) as refused:
            check_drift(time, NOW)
        assert str(time) in refused.value.detail
        assert NOW.isoformat() in refused.value.detail


def test_a_time_that_is_long_past_drifts_from_nothing() -> None:
    check_drift(ZERO, NOW)
