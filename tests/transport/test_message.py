"""Header blocks as ADR-4 has them, and what cannot be smuggled into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.transport.message import Message, format_headers, parse_headers

names = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1
)
values = st.text(st.characters(exclude_characters="\r\n", codec="utf-8")).map(str.strip)


@given(headers=st.dictionaries(names, values, max_size=6))
def test_headers_that_can_be_sent_read_back_as_written(headers: dict[str, str]) -> None:
    assert parse_headers(format_headers(headers)) == headers


def test_a_block_has_the_form_of_the_specification() -> None:
    block = format_headers({"Blob-Part": "3", "Blob-Type": "text/plain"})

    assert block == b"NATS/1.0\r\nBlob-Part: 3\r\nBlob-Type: text/plain\r\n\r\n"


@pytest.mark.fault("I13")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A", "b\r\nNats-Rollup: all"),
        ("A", "b\n"),
        ("A", "b\rc"),
        ("A\r\nNats-Rollup", "all"),
        ("A\nB", "c"),
        ("Ä", "b"),
        ("A\0", "b"),
        ("A: all\tNats-Rollup", "b"),
    ],
)
def test_a_header_that_would_break_out_of_its_line_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        format_headers({"First": "1", name: value})


@pytest.mark.parametrize("name", ["", "A:B", "Nats-Rollup: all", "A B"])
def test_a_name_that_would_be_read_as_another_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        format_headers({name: "x"})


@pytest.mark.parametrize(
    ("line", "status", "description"),
    [
        (b"NATS/1.0 503", "503", ""),
        (b"NATS/1.0 404 Message Not Found", "404", "Message Not Found"),
        (b"NATS/1.0 204 EOB", "204", "EOB"),
    ],
)
def test_an_inline_status_is_read(line: bytes, status: str, description: str) -> None:
    headers = parse_headers(line + b"\r\nNats-Num-Pending: 4\r\n\r\n")

    assert headers == {"Status": status, "Description": description, "Nats-Num-Pending": "4"}


def test_of_a_repeated_header_the_last_counts() -> None:
    assert parse_headers(b"NATS/1.0\r\nA: 1\r\na: 2\r\nA:3\r\n\r\n") == {"A": "3", "a": "2"}


@given(block=st.binary(max_size=200))
def test_any_block_can_be_read(block: bytes) -> None:
    headers = parse_headers(b"NATS/1.0" + block)

    assert all(isinstance(value, str) for value in headers.values())


def test_a_message_without_headers_has_none() -> None:
    assert Message("a", "", b"").headers == {}


def test_a_message_reads_its_headers_when_asked() -> None:
    message = Message("a", "r", b"x", b"NATS/1.0\r\nA: b\r\n\r\n")

    assert message.headers == {"A": "b"}
    assert message.headers is message.headers
