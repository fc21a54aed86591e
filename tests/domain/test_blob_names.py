"""Names of blobs, as headers and keys have them: what goes in comes out, and nothing else does."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.domain.blob_names import (
    MAX_BLOB_NAME_BYTES,
    MAX_LABELS_BYTES,
    Conditions,
    check_blob_name,
    check_name_labels,
    key_name,
    name_key,
    quote_labels,
    quote_text,
    split_version_key,
    unquote_labels,
    unquote_text,
    version_key,
)
from holdfast.errors import InvalidError
from holdfast.stores.keys import MAX_KEY_CHARS

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40) | st.text(
    "a/.=% +~\u00e9\u0301", min_size=1, max_size=12
)
label_keys = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,10}", fullmatch=True)
label_values = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=10
)
conditions = st.builds(
    Conditions,
    if_absent=st.booleans(),
    if_version=st.none() | st.integers(1, 3),
    if_digest=st.none() | st.sampled_from("ab"),
)


@given(name=names)
def test_a_name_comes_back_from_a_header_as_it_was(name: str) -> None:
    assert unquote_text(quote_text(name)) == name


@given(name=names)
def test_a_quoted_name_survives_whoever_strips_or_folds_headers(name: str) -> None:
    assert re.fullmatch(r"[!-~]+", quote_text(name))


@given(name=names)
@example("what's (new)!*")
def test_a_header_may_be_written_by_the_encoders_of_other_languages(name: str) -> None:
    lower_case = re.sub(r"%..", lambda found: found[0].lower(), quote_text(name))

    assert unquote_text(lower_case) == name
    assert unquote_text(quote(name, safe="/!~*'()")) == name  # as in JavaScript
    assert unquote_text(quote(name, safe="")) == name


@pytest.mark.parametrize("text", ["a b", "a+b", "é", "%", "%4", "%zz", "a\n", '"a"', "a=b", "a&b"])
def test_a_header_that_is_raw_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        unquote_text(text)


def test_a_header_with_a_lone_surrogate_or_half_a_character_is_refused() -> None:
    for text in ("%ED%A0%80", "%C3", "%C3%28"):
        with pytest.raises(InvalidError):
            unquote_text(text)
    with pytest.raises(InvalidError):
        quote_text("\ud800")


@given(labels=st.dictionaries(label_keys, label_values, max_size=5))
def test_labels_come_back_from_a_header_as_they_were(labels: dict[str, str]) -> None:
    assert unquote_labels(quote_labels(labels)) == labels


@pytest.mark.parametrize("text", ["k", "=", "k=v&", "&", "k=a&k=b", "k=a b", "k=%E9", "k=é"])
def test_a_header_that_holds_no_labels_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        check_name_labels(unquote_labels(text))


@given(name=names)
def test_a_name_comes_back_from_its_key(name: str) -> None:
    assert key_name(name_key(name)) == name
    assert re.fullmatch(r"[A-Za-z0-9_=-]+(\.[A-Za-z0-9_=-]+)*", name_key(name))


@given(name=names, version=st.integers(1, 2**53))
def test_a_version_comes_back_from_its_key_which_is_of_no_name(name: str, version: int) -> None:
    key = version_key(name, version)

    assert split_version_key(key) == (name, version)
    with pytest.raises(InvalidError):
        key_name(key)


@given(name=names, more=names)
def test_a_prefix_of_whole_tokens_is_a_prefix_of_keys(name: str, more: str) -> None:
    assert name_key(f"{name}/{more}").startswith(f"{name_key(name)}.")


@pytest.mark.parametrize("name", ["é" * 256, "/" * 512, "a/" * 256, "\x00" * 512])
def test_the_longest_names_have_keys_that_a_store_takes(name: str) -> None:
    assert len(check_blob_name(name).encode()) == MAX_BLOB_NAME_BYTES
    assert len(f"v.{version_key(name, 2**53)}") <= MAX_KEY_CHARS


@pytest.mark.parametrize("name", ["", "a" * 513, "é" * 257, "\ud800", "a\udcff"])
def test_what_is_empty_too_long_or_not_utf8_is_no_name(name: str) -> None:
    with pytest.raises(InvalidError):
        check_blob_name(name)


def test_the_labels_of_a_name_have_a_limit_together() -> None:
    labels = {f"k{number}": "v" * 256 for number in range(31)}
    check_name_labels(labels)

    with pytest.raises(InvalidError, match=str(MAX_LABELS_BYTES)):
        check_name_labels({f"k{number}": "v" * 256 for number in range(33)})


@given(asked=conditions, version=st.integers(1, 3), digest=st.sampled_from("ab"))
def test_conditions_hold_of_a_name_that_has_all_of_them(
    asked: Conditions, version: int, digest: str
) -> None:
    holds = (
        not asked.if_absent
        and asked.if_version in {None, version}
        and asked.if_digest in {None, digest}
    )

    assert (asked.failure(version, digest) is None) == holds


@given(asked=conditions)
def test_a_name_without_a_blob_fails_what_needs_one(asked: Conditions) -> None:
    needs_one = asked.if_version is not None or asked.if_digest is not None

    assert (asked.failure(0, None) is None) == (not needs_one)


@given(asked=conditions, may_be_absent=st.booleans(), may_be_present=st.booleans())
def test_conditions_that_contradict_each_other_or_the_change_are_invalid(
    asked: Conditions, may_be_absent: bool, may_be_present: bool
) -> None:
    needs_one = asked.if_version is not None or asked.if_digest is not None
    is_possible = not (
        (asked.if_absent and needs_one)
        or (asked.if_absent and not may_be_absent)
        or (needs_one and not may_be_present)
    )

    try:
        asked.check(may_be_absent=may_be_absent, may_be_present=may_be_present)
    except InvalidError:
        assert not is_possible
    else:
        assert is_possible
