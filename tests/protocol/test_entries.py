"""Entries on the wire have their exact paths, and their times as they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from holdfast.form.entries import Kind
from holdfast.form.terms import EntryChange, EntryWarning
from holdfast.protocol.entries import KIND_NAMES, change_message, warning_message, wire_path
from holdfast.protocol.files import EntryKind
from holdfast.protocol.times import nanosecond_time, parse_time, wire_time

OFFSETS = st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))


@given(st.binary())
def test_a_path_is_text_and_bytes_only_where_text_cannot_say_it(path: bytes) -> None:
    text, raw = wire_path(path)

    assert (text.encode() if raw is None else raw) == path
    assert raw is None or "\ufffd" in text


def test_every_kind_has_its_name() -> None:
    assert {kind: KIND_NAMES[kind] for kind in Kind} == KIND_NAMES
    assert set(KIND_NAMES.values()) == set(get_args(EntryKind))


def test_a_warning_and_a_change_are_told_in_full() -> None:
    warning = warning_message(EntryWarning(kind="owner", path=b"a\xff", detail="why"))
    change = change_message(
        EntryChange(change="modified", path=b"a", kind=Kind.FILE, size_before=1, size_after=2)
    )
    removed = change_message(EntryChange(change="removed", path=b""))

    assert (warning.kind, warning.path, warning.path_bytes, warning.detail) == (
        "owner",
        "a\ufffd",
        b"a\xff",
        "why",
    )
    assert (change.change, change.path, change.kind) == ("modified", "a", "file")
    assert (change.size_before, change.size_after) == (1, 2)
    assert (removed.change, removed.path, removed.kind) == ("removed", "", None)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=OFFSETS))  # noqa: DTZ001  (bounds are without a zone)
def test_a_time_comes_back_as_it_was(at: datetime) -> None:
    assert parse_time(wire_time(at)) == at
    assert wire_time(at).endswith("Z")


def test_a_time_without_a_zone_is_in_utc_and_what_is_none_is_none() -> None:
    assert parse_time("2026-11-30T10:00:00") == datetime(2026, 11, 30, 10, tzinfo=UTC)
    assert parse_time("yesterday") is None


def test_times_of_files_have_nanoseconds_and_stay_within_the_years_there_are() -> None:
    assert nanosecond_time(1) == "1970-01-01T00:00:00.000000001Z"
    assert nanosecond_time(-(2**70)) == "0001-01-01T00:00:00.000000000Z"
    assert nanosecond_time(2**70) == "9999-12-31T00:00:00.000000000Z"
