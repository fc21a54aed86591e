"""Names are checked before use, and tokens of subjects spell them one way only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.limits import MAX_LABELS
from holdfast.domain.names import (
    MAX_LABEL_TOKENS_CHARS,
    MAX_LABEL_VALUE_CHARS,
    MAX_NAME_CHARS,
    SnapshotKey,
    check_app,
    check_id,
    check_labels,
    created_at_of,
    id_floor,
    later_id,
    token,
    untoken,
)
from holdfast.errors import InvalidError

ID = "019a8d3c-1f00-7abc-8def-0123456789ab"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
moments = st.datetimes(
    min_value=datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None),
    max_value=datetime.max.replace(tzinfo=UTC).replace(tzinfo=None),
    timezones=st.just(UTC),
)


@pytest.mark.parametrize("app", ["a", "shop", "A.b_c-9", "_x", "-x", "a" * MAX_NAME_CHARS])
def test_an_app_may_have_the_name(app: str) -> None:
    assert check_app(app) == app


@pytest.mark.parametrize(
    "app",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "../a",
        "a b",
        "a:b",
        "ä",
        "a\n",
        "a\0",
        "a" * 129,
        "a*",
        ">",
    ],
)
def test_an_app_may_not_have_the_name(app: str) -> None:
    with pytest.raises(InvalidError):
        check_app(app)


def test_a_key_reads_back_as_it_was_written() -> None:
    key = SnapshotKey.parse(f"shop:{ID}")

    assert key == SnapshotKey("shop", ID)
    assert str(key) == f"shop:{ID}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shop",
        ID,
        f":{ID}",
        f"../x:{ID}",
        f"shop:{ID.upper()}",
        f"shop:{ID}\n",
        f"shop:x:{ID}",
        f"shop:{ID.replace('-7', '-4')}",
        "shop:019a8d3c-1f00-7abc-7def-0123456789ab",
        "shop:ffffffff-ffff-7abc-8def-0123456789ab",
    ],
)
def test_a_text_is_no_key(text: str) -> None:
    with pytest.raises(InvalidError):
        SnapshotKey.parse(text)


def test_labels_may_have_any_printable_value() -> None:
    check_labels({"tier": "gold", "a.b": "Zürich, 3. Stock ✓", "k" * 128: "v" * 256})


@pytest.mark.parametrize(
    "labels",
    [
        {"": "v"},
        {".k": "v"},
        {"k:x": "v"},
        {"k": ""},
        {"k": "v" * (MAX_LABEL_VALUE_CHARS + 1)},
        {"k": "a\nb"},
        {"k": "a\0"},
        {"k": "\ud800"},
        {"k": "ü" * (MAX_LABEL_TOKENS_CHARS // 6)},
        {f"k{number}": "v" for number in range(MAX_LABELS + 1)},
    ],
)
def test_a_snapshot_may_not_have_these_labels(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidError):
        check_labels(labels)


def test_the_longest_names_make_a_key_that_records_can_have() -> None:
    app = "a" + "." * (MAX_NAME_CHARS - 1)
    key = "k" * (MAX_LABEL_TOKENS_CHARS % 6 + 6)
    value = "ü" * (MAX_LABEL_TOKENS_CHARS // 6 - 1)

    check_app(app)
    check_labels({key: value})

    record_key = ".".join(("l", token(key), token(value), token(app), ID))
    assert len(record_key) <= 1024


@given(texts)
def test_a_token_reads_back_as_the_text(text: str) -> None:
    assert untoken(token(text)) == text


@given(texts)
def test_a_token_is_one_subject_token(text: str) -> None:
    assert set(token(text)) <= set(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-="
    )


def test_a_token_escapes_dots() -> None:
    assert token("a.b-c_d é") == "a=2Eb-c_d=20=C3=A9"


@pytest.mark.parametrize("text", ["a.b", "=2e", "=4", "=41", "=C3", "é", "=ZZ", "a b"])
def test_what_no_name_is_written_as_is_no_token(text: str) -> None:
    with pytest.raises(InvalidError):
        untoken(text)


def test_an_id_tells_when_it_was_made() -> None:
    assert created_at_of(ID) == datetime(2025, 11, 16, 15, 15, 18, 912000, tzinfo=UTC)


@given(moments)
def test_the_floor_is_the_smallest_id_of_its_millisecond(at: datetime) -> None:
    floor = id_floor(at)

    assert check_id(floor) == floor
    assert timedelta(0) <= at - created_at_of(floor) < timedelta(milliseconds=1)


@given(moments, moments)
def test_floors_ascend_with_time(a: datetime, b: datetime) -> None:
    earlier, later = sorted((a, b))

    assert id_floor(earlier) <= id_floor(later)


def test_the_floor_of_a_time_before_1970_is_the_first_id() -> None:
    at = datetime(1960, 1, 1, tzinfo=timezone(timedelta(hours=2)))

    assert id_floor(at) == "00000000-0000-7000-8000-000000000000"


times = st.integers(0, 253_402_214_400_000).map(
    lambda milliseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
)


@given(times, times)
def test_an_id_is_later_than_the_newest_and_no_later_than_it_has_to_be(
    made: datetime, newest: datetime
) -> None:
    fresh, before = id_floor(made), id_floor(newest)

    later = later_id(fresh, before)

    assert check_id(later) == later
    assert later > before
    at = created_at_of(later)
    assert at in {created_at_of(fresh), created_at_of(before) + timedelta(milliseconds=1)}
    assert later_id(fresh, None) == fresh
