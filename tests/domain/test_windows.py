"""Windows cover a read without a gap, and a cursor continues where the last one ended."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import convert

from holdfast.domain.limits import MAX_BLOB_BYTES
from holdfast.domain.windows import Cursor, Span, clip, decode_cursor, encode_cursor, first_window
from holdfast.errors import InvalidError
from holdfast.protocol.message import WireCursor

sizes = st.integers(min_value=0, max_value=MAX_BLOB_BYTES)
small = st.integers(min_value=0, max_value=500)
generations = st.text("abcXYZ019", min_size=1, max_size=64)


@given(sizes, sizes, st.none() | sizes)
def test_a_read_covers_what_a_slice_would(size: int, offset: int, length: int | None) -> None:
    span = clip(size, offset, length)
    wanted = range(size)[offset : None if length is None else offset + length]

    assert span.length == len(wanted)
    assert span.length == 0 or (span.start, span.stop) == (wanted.start, wanted.stop)
    assert 0 <= span.start <= span.stop <= size


@given(small, small, st.integers(1, 50), st.integers(1, 100))
def test_windows_cover_a_read_in_order_without_a_gap(
    start: int, length: int, part_size: int, window_bytes: int
) -> None:
    at, stop = start, start + length

    while at < stop:
        window = first_window(Span(at, stop), part_size, window_bytes)

        assert window.start == at
        assert 0 < window.length <= window_bytes
        at = window.stop

    assert at == stop


@given(small, small, st.integers(1, 50), st.integers(1, 10))
def test_a_window_ends_with_a_part_so_that_no_part_is_sent_twice(
    start: int, length: int, part_size: int, parts: int
) -> None:
    span = Span(start, start + length)
    window = first_window(span, part_size, parts * part_size)

    assert window.stop == span.stop or window.stop % part_size == 0


def test_a_window_smaller_than_a_part_still_gets_on() -> None:
    assert first_window(Span(1, 100), 64, 10) == Span(1, 11)


def test_an_empty_read_is_one_empty_window() -> None:
    assert first_window(Span(7, 7), 4, 8) == Span(7, 7)


@given(generations, sizes, sizes)
def test_a_cursor_reads_back_and_is_one_that_the_wire_takes(
    generation: str, one: int, other: int
) -> None:
    cursor = Cursor(generation, Span(min(one, other), max(one, other)))
    text = encode_cursor(cursor)

    assert decode_cursor(text, MAX_BLOB_BYTES) == cursor
    assert convert(text, WireCursor) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("abc", id="only a copy"),
        pytest.param("abc.1", id="no end"),
        pytest.param(".1.2", id="no copy"),
        pytest.param("abc.2.1", id="backwards"),
        pytest.param("abc.1.11", id="past the end"),
        pytest.param("abc.-1.2", id="before the start"),
        pytest.param("abc.1.2.3", id="one field too many"),
        pytest.param("abc.1.2\n", id="trailing newline"),
        pytest.param("a*c.1.2", id="wildcard"),
        pytest.param("abc.\N{ARABIC-INDIC DIGIT ONE}.2", id="digit of another script"),
        pytest.param("abc.1." + "9" * 5000, id="huge"),
        pytest.param("a" * 65 + ".1.2", id="long copy"),
    ],
)
def test_another_text_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidError):
        decode_cursor(text, 10)


def test_a_cursor_of_a_larger_blob_is_invalid() -> None:
    text = encode_cursor(Cursor("abc", Span(4, 10)))

    assert decode_cursor(text, 10).span == Span(4, 10)
    with pytest.raises(InvalidError):
        decode_cursor(text, 9)
