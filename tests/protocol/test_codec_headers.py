"""Messages that travel as headers: each value has one spelling, and none forges another header."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.cases import REQUESTS_IN_HEADERS

from holdfast.errors import InternalError, InvalidError
from holdfast.protocol.blobs import BlobHead, PutBlob, PutPart
from holdfast.protocol.codec import (
    Encoding,
    decode_reply_headers,
    decode_request_headers,
    encode_headers,
    encoding_of,
    one_line,
)

DIGEST = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
HEAD = {
    "Blob-Digest": DIGEST,
    "Blob-Size": "5",
    "Blob-Offset": "0",
    "Blob-Length": "5",
    "Blob-Type": "text/plain",
}


def test_headers_that_are_not_ours_are_passed_over() -> None:
    headers = {"Op-Id": "7", "traceparent": "00-ab-cd-01", "Nats-Msg-Id": "x", "Blob-Part": "3"}

    assert decode_request_headers(headers, PutPart) == PutPart(part=3)


def test_a_field_that_is_not_there_is_no_header() -> None:
    assert encode_headers(PutPart(final=2)) == {"Blob-Final": "2"}
    assert encode_headers(PutPart(keep=True)) == {"Blob-Keep": "true"}
    assert decode_request_headers({"Blob-Keep": "true"}, PutPart) == PutPart(keep=True)
    assert encode_headers(PutBlob(digest=None)) == {}


@pytest.mark.fault("I05")
@pytest.mark.parametrize("operation", REQUESTS_IN_HEADERS)
@pytest.mark.parametrize("name", ["Blob-Digset", "blob-digest", "BLOB-DIGEST", "Blob-"])
def test_an_unknown_blob_header_is_invalid(operation: Any, name: str) -> None:
    with pytest.raises(InvalidError, match=name):
        decode_request_headers({name: DIGEST}, operation.request)


@pytest.mark.fault("I03")
@pytest.mark.parametrize(
    "text",
    [
        "", " ", " 1", "1 ", "+1", "-1", "-0", "01", "00", "1.0", "1.5", "1e3", "0x1", "1_0",
        "1\n", "null", "NULL", "None", "none", "true", "True", "false", "NaN", "inf", "1,000",
        "\N{ARABIC-INDIC DIGIT ONE}", "\N{SUPERSCRIPT TWO}", "9007199254740993",
        "18446744073709551616", "9" * 5000,
    ],
    ids=lambda text: repr(text[:20]),
)  # fmt: skip
def test_a_number_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidError, match="Blob-Part"):
        decode_request_headers({"Blob-Part": text}, PutPart)


@given(st.integers(min_value=0, max_value=2**53))
def test_a_plain_decimal_number_is_read(number: int) -> None:
    assert decode_request_headers({"Blob-Part": str(number)}, PutPart).part == number


@given(st.text(alphabet="0123456789+-._eExX \n", max_size=20))
def test_whatever_is_read_as_a_number_is_written_the_same(text: str) -> None:
    try:
        part = decode_request_headers({"Blob-Part": text}, PutPart).part
    except InvalidError:
        return
    assert str(part) == text


@pytest.mark.fault("I07")
@pytest.mark.parametrize(
    "text",
    ["", "null", "None", DIGEST.upper(), DIGEST + "\n", "../" + DIGEST[3:], "0", "true"],
    ids=lambda text: repr(text[:20]),
)
def test_a_digest_has_one_spelling(text: str) -> None:
    with pytest.raises(InvalidError, match="Blob-Digest"):
        decode_request_headers({"Blob-Digest": text}, PutBlob)


@pytest.mark.fault("I13")
@pytest.mark.parametrize(
    "text",
    ["", "text/plain\r\nNats-Rollup: all", "text/plain\n", "\x1b[31m", "caf\xe9", "a" * 256],
    ids=lambda text: repr(text[:20]),
)
def test_a_type_is_printable_ascii_within_bounds(text: str) -> None:
    with pytest.raises(InvalidError, match="Blob-Type"):
        decode_request_headers({"Blob-Type": text}, PutBlob)


@pytest.mark.parametrize("text", ["null", "5", "true", "1.0"])
def test_a_type_stays_text_whatever_it_looks_like(text: str) -> None:
    assert decode_request_headers({"Blob-Type": text}, PutBlob).type == text


def test_a_space_that_does_not_exist_is_invalid() -> None:
    with pytest.raises(InvalidError, match="elsewhere"):
        decode_request_headers({"Blob-Space": "elsewhere"}, PutBlob)


@pytest.mark.fault("I13")
@pytest.mark.parametrize(
    "text",
    ["a\r\nNats-Rollup: all", "a\rb", "a\nb", "a\0b", "a\x1b[2Jb", "a\x7fb", "a\u2028b", "\ud800"],
    ids=ascii,
)
def test_text_that_would_forge_a_header_is_not_sent(text: str) -> None:
    with pytest.raises(InvalidError, match="Blob-Type"):
        encode_headers(PutBlob(type=text))


def test_an_answer_may_have_headers_of_a_later_version() -> None:
    head = decode_reply_headers({**HEAD, "Blob-Compression": "none"}, BlobHead)

    assert head == BlobHead(digest=DIGEST, size=5, offset=0, length=5, type="text/plain")


@pytest.mark.parametrize("name", HEAD)
def test_an_answer_that_lacks_a_header_is_internal(name: str) -> None:
    with pytest.raises(InternalError, match=name):
        decode_reply_headers({key: HEAD[key] for key in HEAD if key != name}, BlobHead)


@pytest.mark.parametrize("size", ["-1", "5 B", "9" * 5000], ids=lambda text: text[:20])
def test_an_answer_with_an_unreadable_size_is_internal(size: str) -> None:
    with pytest.raises(InternalError, match="Blob-Size"):
        decode_reply_headers({**HEAD, "Blob-Size": size}, BlobHead)


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        pytest.param("application/json", Encoding.JSON, id="JSON"),
        pytest.param("application/json; charset=utf-8", Encoding.JSON, id="with a parameter"),
        pytest.param("application/msgpack", Encoding.MSGPACK, id="msgpack"),
        pytest.param(" Application/MsgPack ; x=y", Encoding.MSGPACK, id="capitals and spaces"),
        pytest.param("", Encoding.JSON, id="empty"),
        pytest.param("text/plain", Encoding.JSON, id="what tools send by themselves"),
        pytest.param("application/octet-stream", Encoding.JSON, id="beside a blob's bytes"),
    ],
)
def test_the_content_type_chooses_the_encoding(content_type: str, encoding: Encoding) -> None:
    assert encoding_of({"Content-Type": content_type}) is encoding


def test_without_a_content_type_it_is_json() -> None:
    assert encoding_of({}) is Encoding.JSON


@pytest.mark.parametrize("content_type", ["text/xml", "application/x-msgpack", "msgpack", "*/*"])
def test_another_content_type_is_invalid(content_type: str) -> None:
    with pytest.raises(InvalidError, match="Content-Type"):
        encoding_of({"Content-Type": content_type})


@pytest.mark.fault("I13")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("not found", "not found", id="plain"),
        pytest.param("a\r\nNats-Rollup: all", "a  Nats-Rollup: all", id="line break"),
        pytest.param("a\x1b[2Jb", "a [2Jb", id="escape"),
        pytest.param("a\0b\x7fc", "a b c", id="NUL and DEL"),
        pytest.param("a\u2028b\u202ec", "a b c", id="line separator and override"),
        pytest.param("a\ud800b", "a b", id="lone surrogate"),
        pytest.param("caf\xe9", "caf\xe9", id="accent"),
        pytest.param(" \n a \n ", "a", id="around"),
        pytest.param("", "", id="nothing"),
        pytest.param("x" * 1000, "x" * 300, id="long"),
    ],
)
def test_a_header_value_is_one_bounded_printable_line(text: str, line: str) -> None:
    assert one_line(text) == line


@given(st.text(), st.integers(min_value=0, max_value=50))
def test_no_text_escapes_its_line(text: str, max_chars: int) -> None:
    line = one_line(text, max_chars)

    assert line.isprintable()
    assert len(line) <= max_chars
    assert line == line.strip() == one_line(line, max_chars)
