"""Paths from outside, brought into the form that snapshots have, or refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.archive.paths import is_below, parent_of, parse_path, path_text
from holdfast.errors import InvalidError, TooLargeError


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("", b""),
        (".", b""),
        ("./", b""),
        ("a", b"a"),
        ("./a/b/", b"a/b"),
        ("a//./b", b"a/b"),
        ("ä", "ä".encode()),
        ("a..b/...", b"a..b/..."),
        (b"\xff\xfe/x", b"\xff\xfe/x"),
        (os.fsdecode(b"\xff"), b"\xff"),
    ],
)
def test_a_path_is_taken_in_its_shortest_form(given_: str | bytes, expected: bytes) -> None:
    assert parse_path(given_) == expected


@pytest.mark.fault("I07")
@pytest.mark.parametrize(
    "path", ["/", "/a", "//a", "..", "a/..", "../a", "a/../b", "a\0b", "\ud800"]
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidError):
        parse_path(path)


def test_lengths_are_limited() -> None:
    assert len(parse_path("n" * 255)) == 255
    assert len(parse_path("d/" * 2047 + "ff")) == 4096
    for path in ("n" * 256, "d/" * 2047 + "fff", "ä" * 128):
        with pytest.raises(TooLargeError):
            parse_path(path)


@given(st.binary(max_size=40))
def test_what_is_taken_stays_as_it_is(raw: bytes) -> None:
    try:
        path = parse_path(raw)
    except InvalidError:
        return

    assert parse_path(path) == path
    assert parse_path(b"./" + path) == path
    assert is_below(path, parent_of(path))


def test_text_shows_what_is_not_utf_8() -> None:
    assert path_text(b"a\xffb") == "a\ufffdb"
    assert path_text("ä".encode()) == "ä"


@pytest.mark.parametrize(
    ("path", "under", "expected"),
    [
        (b"a/b", b"", True),
        (b"", b"", True),
        (b"a", b"a", True),
        (b"a/b", b"a", True),
        (b"a-b", b"a", False),
        (b"", b"a", False),
    ],
)
def test_below_is_by_whole_names(path: bytes, under: bytes, *, expected: bool) -> None:
    assert is_below(path, under) is expected
