"""Whatever is wrong with a request is ``invalid``, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.examples import examples
from tests.protocol.cases import EACH_MESSAGE, REQUESTS_IN_BODIES
from tests.protocol.generate import messages

from holdfast.errors import InvalidError
from holdfast.protocol.blobs import DeleteBlob, GetBlob, HasBlobs, ListBlobs
from holdfast.protocol.codec import Encoding, decode_request, encode
from holdfast.protocol.message import Request

DIGEST = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
JSON, MSGPACK = Encoding.JSON, Encoding.MSGPACK
GET = {"digest": DIGEST}

both_encodings = pytest.mark.parametrize("encoding", Encoding, ids=lambda encoding: encoding.name)


class Anything(Request, frozen=True, kw_only=True):
    """A request that takes any value, as the commands of a log will."""

    value: Any


def write(value: Any, encoding: Encoding) -> bytes:
    """``value`` as a careless client writes it: no schema, and NaN if need be."""
    return msgspec.msgpack.encode(value) if encoding is MSGPACK else json.dumps(value).encode()


def refuse(body: bytes, kind: type[Request] = GetBlob, encoding: Encoding = JSON) -> str:
    with pytest.raises(InvalidError) as caught:
        decode_request(body, kind, encoding)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) <= 300
    return caught.value.detail


@both_encodings
def test_an_empty_body_is_the_message_without_fields(encoding: Encoding) -> None:
    assert decode_request(b"", ListBlobs, encoding) == ListBlobs()


@pytest.mark.fault("I01")
@both_encodings
def test_an_empty_body_is_invalid_where_a_field_is_needed(encoding: Encoding) -> None:
    assert "digests" in refuse(b"", HasBlobs, encoding)


@both_encodings
def test_a_request_is_read_from_any_buffer(encoding: Encoding) -> None:
    body = encode(GetBlob(digest=DIGEST), encoding)

    assert decode_request(memoryview(bytearray(body)), GetBlob, encoding).digest == DIGEST


@pytest.mark.fault("I01")
@both_encodings
def test_a_request_cut_off_at_any_byte_is_invalid(encoding: Encoding) -> None:
    body = encode(
        GetBlob(digest=DIGEST, offset=70_000, length=5, cursor="c.1", proxy=True, space="packs"),
        encoding,
    )

    for length in range(1, len(body)):
        refuse(body[:length], GetBlob, encoding)


@pytest.mark.fault("I01")
@both_encodings
def test_anything_after_the_message_is_invalid(encoding: Encoding) -> None:
    body = encode(GetBlob(digest=DIGEST), encoding)

    for extra in (b"\0", b"x", body):
        refuse(body + extra, GetBlob, encoding)


@pytest.mark.fault("I01")
@pytest.mark.parametrize("byte", range(256), ids="byte {:#04x}".format)
def test_one_byte_is_never_a_request(byte: int) -> None:
    for encoding in Encoding:
        refuse(bytes([byte]), HasBlobs, encoding)


@pytest.mark.fault("I01")
@pytest.mark.parametrize("operation", REQUESTS_IN_BODIES)
@given(body=st.binary())
@example(b"\xc1")
@example(b"\xdf\xff\xff\xff\xff")
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x81\xa6digest\xd4\x01x")
@example(b"\x81\xc7\x0c\xff" + b"\xff" * 12)
def test_noise_is_a_request_or_invalid(operation: Any, body: bytes) -> None:
    for encoding in Encoding:
        try:
            request = decode_request(body, operation.request, encoding)
        except InvalidError:
            continue
        assert decode_request(encode(request), operation.request, JSON) == request


@pytest.mark.fault("I01")
@pytest.mark.parametrize("operation", REQUESTS_IN_BODIES)
@examples(EACH_MESSAGE)
@given(data=st.data())
def test_a_damaged_request_is_a_request_or_invalid(operation: Any, data: st.DataObject) -> None:
    for encoding in Encoding:
        body = bytearray(encode(data.draw(messages(operation.request)), encoding))
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] ^= data.draw(st.integers(1, 255))
        try:
            request = decode_request(body, operation.request, encoding)
        except InvalidError:
            continue
        assert decode_request(encode(request), operation.request, JSON) == request


@pytest.mark.fault("I02")
@both_encodings
@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("digest", 5, id="number for text"),
        pytest.param("space", None, id="null for text"),
        pytest.param("digest", [DIGEST], id="list for text"),
        pytest.param("digest", {"sha256": DIGEST}, id="object for text"),
        pytest.param("digest", "", id="no text"),
        pytest.param("offset", True, id="boolean for a size"),
        pytest.param("offset", 1.0, id="whole float for a size"),
        pytest.param("offset", 1.5, id="float for a size"),
        pytest.param("offset", "1", id="text for a size"),
        pytest.param("offset", None, id="null for a size"),
        pytest.param("length", False, id="boolean for an optional size"),
        pytest.param("length", "1", id="text for an optional size"),
        pytest.param("proxy", 1, id="number for a boolean"),
        pytest.param("proxy", "true", id="text for a boolean"),
        pytest.param("proxy", None, id="null for a boolean"),
        pytest.param("cursor", 0, id="number for a cursor"),
        pytest.param("cursor", "", id="empty cursor"),
        pytest.param("space", "Blobs", id="no such space"),
        pytest.param("space", 0, id="number for a choice"),
    ],
)
def test_a_wrong_type_is_invalid_and_the_field_is_named(
    encoding: Encoding, field: str, value: object
) -> None:
    assert field in refuse(write({**GET, field: value}, encoding), GetBlob, encoding)


@pytest.mark.fault("I02")
@both_encodings
@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", [], [GET]], ids=repr)
def test_a_request_is_an_object(encoding: Encoding, value: object) -> None:
    refuse(write(value, encoding), GetBlob, encoding)


@pytest.mark.fault("I02")
@pytest.mark.parametrize("key", [1, None, True, b"digest"], ids=repr)
def test_a_msgpack_key_that_is_not_text_is_invalid(key: object) -> None:
    refuse(msgspec.msgpack.encode({key: DIGEST}), GetBlob, MSGPACK)


@pytest.mark.fault("I02")
def test_msgpack_bytes_are_not_text() -> None:
    refuse(msgspec.msgpack.encode({"digest": DIGEST.encode()}), GetBlob, MSGPACK)


@pytest.mark.fault("I03")
@both_encodings
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(-1, id="minus one"),
        pytest.param(-(2**63), id="-2^63"),
        pytest.param(2**44 + 1, id="one byte over the largest blob"),
        pytest.param(2**53 + 1, id="2^53 + 1"),
        pytest.param(2**63 - 1, id="2^63 - 1"),
        pytest.param(2**63, id="2^63"),
        pytest.param(2**64 - 1, id="2^64 - 1"),
        pytest.param(-0.0, id="minus nothing, a float"),
        pytest.param(1e308, id="1e308"),
        pytest.param(float("nan"), id="NaN"),
        pytest.param(float("inf"), id="infinity"),
        pytest.param(float("-inf"), id="minus infinity"),
    ],
)
def test_a_number_out_of_bounds_is_invalid(encoding: Encoding, value: float) -> None:
    for field in ("offset", "length"):
        refuse(write({**GET, field: value}, encoding), GetBlob, encoding)


@pytest.mark.fault("I03")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(b"18446744073709551616", id="2^64"),
        pytest.param(b"-9223372036854775809", id="-2^63 - 1"),
        pytest.param(b"9" * 5000, id="5,000 digits"),
        pytest.param(b"1e400", id="beyond any float"),
        pytest.param(b"1e3", id="with an exponent"),
        pytest.param(b"01", id="leading zero"),
        pytest.param(b"+1", id="plus sign"),
        pytest.param(b"0x1", id="hexadecimal"),
        pytest.param(b"1_0", id="underscore"),
        pytest.param(b"1.", id="no fraction after the point"),
        pytest.param(b".1", id="nothing before the point"),
    ],
)
def test_a_number_that_only_some_readers_take_is_invalid(number: bytes) -> None:
    refuse(b'{"digest":"%s","offset":%s}' % (DIGEST.encode(), number))


@pytest.mark.fault("I03")
@both_encodings
@pytest.mark.parametrize("offset", [0, 2**44], ids=["nothing", "the largest blob"])
def test_a_size_at_its_bound_is_taken(encoding: Encoding, offset: int) -> None:
    body = write({**GET, "offset": offset}, encoding)

    assert decode_request(body, GetBlob, encoding).offset == offset


@pytest.mark.fault("I03")
def test_minus_nothing_is_nothing() -> None:
    body = b'{"digest":"%s","offset":-0}' % DIGEST.encode()

    assert decode_request(body, GetBlob, JSON).offset == 0


@pytest.mark.fault("I03")
@both_encodings
@pytest.mark.parametrize("limit", [0, 1001, -1], ids=["none", "over", "negative"])
def test_a_page_has_between_one_and_a_thousand_entries(encoding: Encoding, limit: int) -> None:
    refuse(write({"limit": limit}, encoding), ListBlobs, encoding)


@both_encodings
def test_one_digest_too_many_is_invalid(encoding: Encoding) -> None:
    assert (
        len(
            decode_request(
                write({"digests": [DIGEST] * 1024}, encoding), HasBlobs, encoding
            ).digests
        )
        == 1024
    )
    refuse(write({"digests": [DIGEST] * 1025}, encoding), HasBlobs, encoding)


DEPTH = 100_000


@pytest.mark.fault("I04")
@pytest.mark.parametrize("kind", [GetBlob, HasBlobs, Anything], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(b"[" * DEPTH, JSON, id="JSON lists"),
        pytest.param(b'{"value":' * DEPTH, JSON, id="JSON objects"),
        pytest.param(b'{"value":' + b"[" * DEPTH + b"]" * DEPTH + b"}", JSON, id="whole JSON"),
        pytest.param(b'{"digests":' + b"[" * DEPTH, JSON, id="JSON lists in a list"),
        pytest.param(b"\x91" * DEPTH, MSGPACK, id="msgpack lists"),
        pytest.param(b"\x81\xa5value" * DEPTH, MSGPACK, id="msgpack objects"),
        pytest.param(b"\x81\xa5value" + b"\x91" * DEPTH + b"\xc0", MSGPACK, id="whole msgpack"),
    ],
)
def test_deep_nesting_is_invalid(kind: type[Request], body: bytes, encoding: Encoding) -> None:
    refuse(body, kind, encoding)


@pytest.mark.fault("I04")
def test_nesting_that_is_too_deep_is_called_so() -> None:
    assert refuse(b'{"value":' + b"[" * DEPTH, Anything) == "the request is nested too deeply"


@pytest.mark.fault("I05")
@both_encodings
@pytest.mark.parametrize("operation", REQUESTS_IN_BODIES)
@examples(EACH_MESSAGE)
@given(data=st.data())
def test_an_unknown_field_is_invalid_and_named(
    operation: Any, encoding: Encoding, data: st.DataObject
) -> None:
    plain = msgspec.msgpack if encoding is MSGPACK else msgspec.json
    fields = plain.decode(encode(data.draw(messages(operation.request)), encoding))

    assert "typo" in refuse(write({**fields, "typo": 1}, encoding), operation.request, encoding)


@pytest.mark.fault("I05")
def test_of_a_field_that_comes_twice_the_last_one_counts() -> None:
    other = "0" * 64
    as_json = b'{"digest":"%s","digest":"%s"}' % (other.encode(), DIGEST.encode())
    as_msgpack = b"".join(
        (b"\x82", *(msgspec.msgpack.encode(item) for item in ("digest", other, "digest", DIGEST)))
    )

    assert decode_request(as_json, DeleteBlob, JSON).digest == DIGEST
    assert decode_request(as_msgpack, DeleteBlob, MSGPACK).digest == DIGEST


@pytest.mark.fault("I05")
def test_a_bad_value_is_invalid_even_if_a_good_one_follows() -> None:
    refuse(b'{"digest":5,"digest":"%s"}' % DIGEST.encode(), DeleteBlob)


@pytest.mark.fault("I06")
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        pytest.param(b'{"digest":"\\ud800"}', JSON, id="lone surrogate"),
        pytest.param(b'{"digest":"\\udc00\\ud800"}', JSON, id="surrogates swapped"),
        pytest.param(b'{"\\ud800":1}', JSON, id="lone surrogate in a name"),
        pytest.param(b'{"digest":"\xed\xa0\x80"}', JSON, id="encoded surrogate"),
        pytest.param(b'{"digest":"\xff"}', JSON, id="not UTF-8"),
        pytest.param(b'{"digest":"\xc0\xaf"}', JSON, id="overlong slash"),
        pytest.param(b'{"digest":"\0"}', JSON, id="NUL"),
        pytest.param(b'{"digest":"\\u0000"}', JSON, id="escaped NUL"),
        pytest.param(b"\0", JSON, id="only NUL"),
        pytest.param(b"\xef\xbb\xbf{}", JSON, id="byte order mark"),
        pytest.param('{"limit":1}'.encode("utf-16"), JSON, id="UTF-16"),
        pytest.param(b" \t\r\n", JSON, id="only white space"),
        pytest.param(b"\x81\xa6digest\xa1\xff", MSGPACK, id="msgpack, not UTF-8"),
        pytest.param(b"\x81\xa6digest\xa3\xed\xa0\x80", MSGPACK, id="msgpack, encoded surrogate"),
        pytest.param(b"\x81\xa1\xff\x01", MSGPACK, id="msgpack, a name that is not UTF-8"),
    ],
)
def test_text_that_is_not_text_is_invalid(body: bytes, encoding: Encoding) -> None:
    for kind in (GetBlob, ListBlobs, Anything):
        refuse(body, kind, encoding)


@pytest.mark.fault("I07")
@both_encodings
@pytest.mark.parametrize(
    "digest",
    [
        pytest.param(DIGEST.upper(), id="capitals"),
        pytest.param("../" + DIGEST[3:], id="path upwards"),
        pytest.param("/" + DIGEST[1:], id="absolute path"),
        pytest.param("C:\\" + DIGEST[3:], id="drive"),
        pytest.param("." * 64, id="dots"),
        pytest.param(DIGEST + "\n", id="trailing newline"),
        pytest.param(DIGEST[:-1] + "\n", id="newline for the last character"),
        pytest.param(DIGEST[:-1], id="one short"),
        pytest.param(DIGEST + "0", id="one long"),
        pytest.param("\N{FULLWIDTH LATIN SMALL LETTER A}" + DIGEST[1:], id="full-width letter"),
        pytest.param("*" * 64, id="wildcards"),
    ],
)
def test_a_digest_of_another_spelling_is_invalid(encoding: Encoding, digest: str) -> None:
    refuse(write({"digest": digest}, encoding), GetBlob, encoding)
    refuse(write({"digests": [DIGEST, digest]}, encoding), HasBlobs, encoding)


@pytest.mark.fault("I08")
@both_encodings
@pytest.mark.parametrize(
    "cursor", ["a\n", "a b", "*", ">", "\r\n", "$JS", "a/b", "x" * 513], ids=repr
)
def test_a_cursor_that_no_answer_gave_is_invalid(encoding: Encoding, cursor: str) -> None:
    refuse(write({**GET, "cursor": cursor}, encoding), GetBlob, encoding)


@pytest.mark.fault("I08")
@both_encodings
@pytest.mark.parametrize("prefix", ["AB", "g", "*", "a\n", "a" * 65], ids=repr)
def test_a_prefix_that_no_digest_has_is_invalid(encoding: Encoding, prefix: str) -> None:
    refuse(write({"prefix": prefix}, encoding), ListBlobs, encoding)


def test_what_a_caller_sent_is_told_back_on_one_bounded_line() -> None:
    name = "x\r\nNats-Rollup: all\x1b[2J" + "y" * 1000

    detail = refuse(json.dumps({name: 1}).encode())

    assert "Nats-Rollup" in detail
