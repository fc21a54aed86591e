"""How values look: nothing hides in what others wrote, and sizes and plots say what is so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import InvalidError
from holdfast.gateway.console.base.asked import seconds_typed, time_typed
from holdfast.gateway.console.base.texts import (
    duration_text,
    mode_text,
    place,
    shown,
    size_text,
)
from holdfast.gateway.console.base.tree import is_text
from holdfast.gateway.console.care.growth import HEIGHT, WIDTH, growth_of
from holdfast.protocol.snapshots import SnapshotRecord


@given(st.binary() | st.text())
def test_what_is_shown_has_printable_characters_only(text: str | bytes) -> None:
    assert shown(text).isprintable()


def test_what_does_not_print_is_escaped() -> None:
    assert shown(b"a\nb\xff\xe2\x80\xae") == "a\\nb\\xff\\u202e"
    assert shown("Grüße, 世界") == "Grüße, 世界"


def test_a_size_has_the_unit_that_fits() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 5 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 TiB",
    ]


def test_a_mode_is_shown_as_everybody_knows_it() -> None:
    assert mode_text(0o754) == "rwxr-xr--"


def test_a_place_has_what_it_is_given_percent_encoded() -> None:
    assert place("/hf", "/names", name="a/b&c", path=b"\xff", version=3, cursor=None) == (
        "/hf/console/names?name=a%2Fb%26c&path=%FF&version=3"
    )


@pytest.mark.parametrize(
    ("data", "is_so"),
    [
        (b"", True),
        (b"a\tb\r\n", True),
        ("aü".encode(), True),
        ("aü".encode()[:-1], True),
        (b"\0", False),
        (b"\xff\xfe", False),
        (b"\x89PNG", False),
    ],
)
def test_text_is_what_a_person_can_read(data: bytes, *, is_so: bool) -> None:
    assert is_text(data) is is_so


def records(*added: int) -> list[SnapshotRecord]:
    """Newest first, an hour apart."""
    made = [
        SnapshotRecord(
            key=f"a:{hour}",
            app="a",
            state="ok",
            created_at=f"2026-11-30T{hour:02}:00:00Z",
            added=size,
        )
        for hour, size in enumerate(added)
    ]
    return made[::-1]


def test_growth_begins_with_the_second_snapshot() -> None:
    assert growth_of(records()) is None
    assert growth_of(records(5)) is None


def test_growth_ends_with_all_that_was_added() -> None:
    growth = growth_of(records(10, 0, 30))

    assert growth is not None
    assert (growth.total, growth.count) == (40, 3)
    assert growth.line.startswith(f"M0 {HEIGHT}H0.0V")
    assert growth.line.endswith(f"H{WIDTH:.1f}V0.0")
    assert growth.sizes == (40, 20, 0)
    assert [at[-5:] for at in growth.times] == ["00:00", "01:00", "02:00"]


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_the_top_of_the_axis_is_above_all_that_was_added(first: int, second: int) -> None:
    growth = growth_of(records(first, second))

    assert growth is not None
    assert first + second <= growth.sizes[0] <= max(2, 2.1 * (first + second))


@given(st.integers(1, 10**8), st.sampled_from("smhdw"))
def test_a_duration_is_shown_as_it_may_be_typed(count: int, unit: str) -> None:
    seconds = seconds_typed(f"{count}{unit}")

    assert seconds_typed(duration_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["1", "d", "-1d", "1 year", "1.5h", "٣d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        seconds_typed(text)


def test_a_day_is_one_of_utc_and_a_time_may_say_otherwise() -> None:
    assert time_typed("") is None
    assert time_typed("2027-01-31") == datetime(2027, 1, 31, tzinfo=UTC)
    assert time_typed("2027-01-31T12:00:00") == datetime(2027, 1, 31, 12, tzinfo=UTC)
    assert time_typed("2027-01-31T12:00:00+01:00") == datetime(2027, 1, 31, 11, tzinfo=UTC)
    with pytest.raises(InvalidError):
        time_typed("tomorrow")
