"""Paths, patterns and times, as they go over the wire."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.snapshots.paths import (
    asked_path,
    pattern_bytes,
    wire_excludes,
    wire_patterns,
)
from holdfast.errors import InvalidError
from holdfast.protocol.times import asked_time


@given(st.binary(max_size=50))
def test_bytes_of_any_path_can_be_had_back(raw: bytes) -> None:
    text, exact = asked_path(raw)

    assert (exact if exact is not None else text.encode()) == raw
    assert (exact is None) == _is_utf8(raw)
    assert asked_path(os.fsdecode(raw)) == (text, exact)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_a_path_object_is_a_path() -> None:
    assert asked_path(Path("a/b")) == ("a/b", None)


def test_one_pattern_is_not_taken_for_a_list_of_letters() -> None:
    assert wire_patterns("*.pyc") == ["*.pyc"]
    assert wire_patterns(iter(["a", "b"])) == ["a", "b"]


def test_a_pattern_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(InvalidError):
        wire_patterns([os.fsdecode(b"\xff")])


def test_patterns_that_exclude_are_sent_as_bytes_where_one_is_not_utf8() -> None:
    assert wire_excludes(["*.pyc", "ä"]) == (["*.pyc", "ä"], [])
    assert wire_excludes([b"\xe4", "a", os.fsdecode(b"\xff")]) == ([], [b"\xe4", b"a", b"\xff"])
    assert wire_excludes("*.pyc") == (["*.pyc"], [])


def test_patterns_are_bytes_as_names_of_files_are_in_any_locale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("latin-1"))

    assert pattern_bytes(["ä", b"\xff"]) == [b"\xe4", b"\xff"]
    assert pattern_bytes(["€"]) == ["€".encode()]


def test_times_are_sent_in_utc() -> None:
    at = datetime(2026, 11, 30, 12, tzinfo=timezone(timedelta(hours=2)))

    assert asked_time(at) == "2026-11-30T10:00:00.000000Z"
    assert asked_time("2026-11-30T10:00:00Z") == "2026-11-30T10:00:00Z"
    assert asked_time(None) is None


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidError):
        asked_time(datetime(2026, 11, 30, tzinfo=UTC).replace(tzinfo=None))


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_a_time_that_is_none_in_utc_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="between the years"):
        asked_time(datetime.fromisoformat(text))
