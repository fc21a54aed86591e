"""Pages of names, against a sorted model of them."""

from __future__ import annotations

import base64
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.examples import examples
from tests.repository.names.index.index_tools import (
    NOW,
    changed,
    content,
    hours,
    listing,
    name_record,
)

from holdfast.domain.limits import MAX_NAME_CURSOR_CHARS
from holdfast.errors import InvalidError
from holdfast.repository.names.index import listing as listing_module
from holdfast.repository.names.index.listing import read_page
from holdfast.repository.names.index.table import Table
from holdfast.repository.names.record import Keep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from holdfast.repository.names.index.listing import NamesPage
    from holdfast.repository.names.record import NameRecord

# Few characters, so that names meet: parts, dots, twins of an accent, the ends of UTF-8's lengths.
TEXTS = st.text(st.sampled_from("ab/./\u00e9e\u0301\x00\x7f\u0080\uffff\U0001f600\U0010ffff"))
NAMES = TEXTS.filter(lambda name: 0 < len(name.encode()) <= 512)
DELIMITERS = st.sampled_from(["", "/", "/", "a", "//", "\u00e9", "\U0010ffff"])

type Row = tuple[str, str]


def table_of(records: Iterable[NameRecord]) -> Table:
    table = Table()
    table.apply([changed(record, number) for number, record in enumerate(records, 1)])
    return table


def read(
    table: Table, keep: Callable[[str], Keep] = lambda _name: Keep(), **said: Any
) -> NamesPage:
    return read_page(table, listing(**said), keep)


def merged(page: NamesPage) -> list[Row]:
    """Names and prefixes in the order that they are told in."""
    names = [("name", entry.name) for entry in page.names]
    rows = [*names, *(("prefix", prefix) for prefix in page.prefixes)]
    return sorted(rows, key=lambda row: row[1].encode())


def read_on(table: Table, limit: int, **said: Any) -> list[Row]:
    """All pages of a list, joined."""
    rows: list[Row] = []
    cursor = None
    while True:
        page = read(table, limit=limit, cursor=cursor, **said)
        assert len(page.names) + len(page.prefixes) <= limit
        rows += merged(page)
        cursor = page.cursor
        if cursor is None:
            return rows
        assert len(cursor) <= MAX_NAME_CURSOR_CHARS


def model(names: Sequence[str], prefix: str, delimiter: str, start_after: str) -> list[Row]:
    """The rows that a list should have."""
    rows: list[Row] = []
    for name in sorted(names, key=str.encode):
        if not name.startswith(prefix):
            continue
        head, parting, _ = name[len(prefix) :].partition(delimiter or "\ud800")
        row = ("prefix", prefix + head + parting) if parting else ("name", name)
        is_over = name.encode() <= start_after.encode()
        if row[0] == "prefix":
            is_over = is_over or start_after.startswith(row[1])
        if not is_over and row not in rows:
            rows.append(row)
    return rows


@examples(300)
@given(st.sets(NAMES, max_size=12), TEXTS, DELIMITERS, TEXTS, st.integers(1, 4))
@example({"a/b", "a/c", "a"}, "", "/", "a/", 1)
@example({"a/b", "a/c", "a"}, "", "/", "a/b", 1)
def test_pages_joined_are_the_whole_list_in_order(
    names: set[str], prefix: str, delimiter: str, start_after: str, limit: int
) -> None:
    with closing(table_of(map(name_record, names))) as table:
        said: dict[str, Any] = {"prefix": prefix, "delimiter": delimiter}
        said["start_after"] = start_after

        found = read_on(table, limit, **said)

        assert found == model(list(names), prefix, delimiter, start_after)
        assert merged(read(table, **said)) == found


@examples(100)
@given(st.dictionaries(NAMES, st.sampled_from(["ok", "gone", "over"]), max_size=12), DELIMITERS)
def test_what_is_deleted_or_has_expired_is_in_no_list_nor_a_common_prefix_of_such(
    kinds: dict[str, str], delimiter: str
) -> None:
    over = content(expires_at=(NOW - hours(1)).isoformat())
    records: dict[str, Any] = {"ok": {}, "gone": {"state": "deleted"}, "over": {"content": over}}
    with closing(table_of(name_record(name, **records[kind]) for name, kind in kinds.items())) as t:
        living = [name for name, kind in kinds.items() if kind == "ok"]

        assert read_on(t, 2, delimiter=delimiter) == model(living, "", delimiter, "")


@examples(60)
@given(st.dictionaries(NAMES, st.sampled_from("xyz"), max_size=10), DELIMITERS, st.integers(1, 3))
def test_a_page_that_has_looked_at_enough_names_ends_early_and_nothing_is_passed_over(
    labels: dict[str, str], delimiter: str, looked_at: int
) -> None:
    records = [name_record(n, content=content(labels={"l": value})) for n, value in labels.items()]
    with closing(table_of(records)) as table, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing_module, "MAX_LOOKED_AT", looked_at)

        found = read_on(table, 2, labels={"l": "x"}, delimiter=delimiter)

        labelled = [name for name, value in labels.items() if value == "x"]
        assert found == model(labelled, "", delimiter, "")


def test_all_labels_have_to_match() -> None:
    both = name_record("both", content=content(labels={"a": "1", "b": "2"}))
    one = name_record("one", content=content(labels={"a": "1"}))
    with closing(table_of([both, one, name_record("none")])) as table:
        page = read(table, labels={"a": "1", "b": "2"})

        assert [(entry.name, entry.labels) for entry in page.names] == [
            ("both", {"a": "1", "b": "2"})
        ]


def test_a_name_is_told_with_what_its_record_says() -> None:
    expires = (NOW + hours(1)).isoformat()
    record = name_record("n", version=7, content=content(5, expires_at=expires))
    with closing(table_of([record])) as table:
        [entry] = read(table).names

    assert record.content is not None
    assert (entry.state, entry.version, entry.modified_at) == ("ok", 7, NOW.isoformat())
    assert (entry.digest, entry.size, entry.type) == (record.content.digest, 5, "text/plain")
    assert entry.expires_at == expires


def test_names_without_a_blob_are_told_with_their_state() -> None:
    expired = content(expires_at=(NOW - hours(1)).isoformat())
    records = [
        name_record("a", "pending"),
        name_record("b", "failure"),
        name_record("c", "pending", content=expired),
    ]
    with closing(table_of(records)) as table:
        entries = read(table).names

    assert [(entry.name, entry.state, entry.digest) for entry in entries] == [
        ("a", "pending", None),
        ("b", "failure", None),
        ("c", "pending", None),
    ]


def test_names_expire_by_a_rule_as_it_is_when_they_are_listed() -> None:
    with closing(table_of([name_record("a/1"), name_record("b/1")])) as table:
        keep = {"a": Keep(expire_seconds=60), "b": Keep()}

        page = read(table, lambda name: keep[name[0]], now=NOW + hours(1))
        before = read(table, lambda name: keep[name[0]], now=NOW)

    assert [entry.name for entry in page.names] == ["b/1"]
    assert [entry.expires_at for entry in before.names] == ["2026-03-01T00:01:00+00:00", None]


def test_the_longest_name_fits_a_cursor() -> None:
    names = ["\U0010ffff" * 128, "\U0010ffff" * 127 + "a"]
    with closing(table_of(map(name_record, names))) as table:
        assert [name for _, name in read_on(table, 1)] == sorted(names, key=str.encode)


def test_a_list_of_nothing_is_empty() -> None:
    with closing(Table()) as table:
        assert read_on(table, 10) == []


def encoded(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "dGE=",
        "dGE\n",
        "d",
        "dGF",  # not how its bytes are spelled
        encoded(b"t"),
        encoded(b"xphotos/a"),
        encoded(b"tother/a"),
        encoded(b"tphotos/" + b"a" * 512),
    ],
)
def test_a_cursor_of_another_list_is_invalid(cursor: str) -> None:
    with closing(Table()) as table, pytest.raises(InvalidError):
        read(table, prefix="photos/", cursor=cursor)


@pytest.mark.parametrize(
    "said",
    [
        {"limit": 0},
        {"limit": 1001},
        {"prefix": "\ud800"},
        {"delimiter": "\ud800"},
        {"start_after": "\ud800"},
        {"labels": {"no key!": "a"}},
        {"labels": {"a": ""}},
    ],
    ids=repr,
)
def test_what_cannot_be_asked_for_is_invalid(said: dict[str, Any]) -> None:
    with closing(Table()) as table, pytest.raises(InvalidError):
        read(table, **said)
