"""Choosing entries of a snapshot by paths and globs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples

from holdfast.archive.select import MAX_SELECT_PATTERNS, Selection
from holdfast.errors import InvalidError, NotFoundError, TooLargeError


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a", "a"),
        ("a", "a/b/c"),
        ("./a/", "a/b"),
        ("", ""),
        ("", "anything"),
        ("*", "a/b"),
        ("a/*.txt", "a/x.txt"),
        ("a/*.txt", "a/x.txt/below"),
        ("**/x", "x"),
        ("**/x", "a/b/x"),
        ("a/**", "a/b/c"),
        ("a/**/d", "a/d"),
        ("a/**/c/**/d", "a/1/c/2/3/d"),
        ("a/**/**/d", "a/b/d"),
        ("*a*b*", "xxaxxbx"),
        ("?", "ä"),
        ("[a-c]x", "bx"),
        ("[!a-c]x", "dx"),
        ("[]a]", "]"),
        ("a[1].txt", "a1.txt"),
        ("a[1].txt", "a[1].txt"),
        ("[", "["),
        ("what?", "what?"),
    ],
)
def test_a_pattern_selects_what_it_names_and_all_below(pattern: str, path: str) -> None:
    selection = Selection([pattern])

    assert selection.selects(path.encode())


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a", "ab"),
        ("a", ""),
        ("a/b", "a"),
        ("a/*.txt", "a/b/x.txt"),
        ("a/**", "a"),
        ("**", ""),
        ("**/x", "xx"),
        ("*", ""),
        ("?", "ab"),
        ("?", "äb"),
        ("[!a-c]x", "bx"),
        ("*a*b*c", "xxaxxbx"),
        ("a*c", "a/c"),
    ],
)
def test_a_pattern_does_not_select_anything_else(pattern: str, path: str) -> None:
    selection = Selection([pattern])

    assert not selection.selects(path.encode())


def test_names_that_are_not_utf8_are_matched_byte_by_byte() -> None:
    selection = Selection([b"caf?", b"\xff*"])

    assert selection.selects(b"caf\xe9")
    assert selection.selects(b"\xff\xfe/below")


def test_no_pattern_at_all_selects_everything_but_what_is_left_out() -> None:
    selection = Selection(leave_out=(".chowned",))

    assert selection.is_whole
    assert selection.selects(b"")
    assert not selection.selects(b".chowned")
    assert not selection.selects(b".chowned/below")
    assert selection.selects(b".chowned2")
    assert selection.selects(b"a/.chowned")
    assert list(selection.indices([b"", b".chowned", b"a"])) == [0, 2]
    assert selection.indices([b"b", b"c"]) == range(2)


@pytest.mark.parametrize("pattern", ["/etc", "a/../b", "a\0b"])
def test_a_pattern_that_can_be_no_path_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidError):
        Selection([pattern])


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(TooLargeError, match=str(MAX_SELECT_PATTERNS)):
        Selection([f"p{number}" for number in range(MAX_SELECT_PATTERNS + 1)])


def test_the_pattern_that_selected_nothing_is_named() -> None:
    selection = Selection(["here", "no*where"])

    assert selection.selects(b"here")

    with pytest.raises(NotFoundError, match=r"no\*where"):
        selection.check_all_matched()


def test_only_pages_that_may_hold_what_is_wanted_are_asked_for() -> None:
    first_paths = [b"", b"a/m", b"b/c", b"b/d", b"c"]

    def page_of(path: bytes) -> int:
        return max(number for number, first in enumerate(first_paths) if first <= path)

    assert Selection(["b/*"]).pages(first_paths, page_of) == [1, 2, 3]
    assert Selection(["a/z", "c/x"]).pages(first_paths, page_of) == [1, 4]
    assert Selection(["**/x"]).pages(first_paths, page_of) == [0, 1, 2, 3, 4]


def test_directories_with_nothing_wanted_below_are_told() -> None:
    selection = Selection(["a/*/c", "**/x/y"])
    narrow = Selection(["a/*/c"])

    assert selection.may_select_below(b"q/r")
    assert narrow.may_select_below(b"a/b")
    assert not narrow.may_select_below(b"b")
    assert not narrow.may_select_below(b"a/b/d")


def test_a_pattern_made_to_take_for_ever_does_not() -> None:
    selection = Selection(["/".join(["**", "*a" * 100 + "b"] * 10).lstrip("/")])

    assert not selection.selects(b"/".join([b"a" * 250] * 12))


@given(
    names=st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=4),
    data=st.data(),
)
@examples(80)
def test_every_path_is_selected_by_itself_and_by_each_of_its_parents(
    names: list[bytes], data: st.DataObject
) -> None:
    clean = [name.translate(bytes.maketrans(b"/\0.*?[", b"uvwxyz")) for name in names]
    path = b"/".join(clean)
    parent = b"/".join(clean[: data.draw(st.integers(0, len(clean)))])

    assert Selection([parent]).selects(path)
    assert Selection([b"/".join([b"*"] * len(clean))]).selects(path)
    assert Selection([b"**/" + clean[-1]]).selects(path)
