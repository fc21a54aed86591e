"""Equal states have one form, and so one hash, whoever computes it."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any, cast

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

import holdfast
from holdfast.domain.canonical import canonical, canonical_state, json_of, state_hash
from holdfast.errors import InvalidError

# RFC 8785, 3.2.2 and 3.2.3, and the test data of its authors.
DOCUMENTS = [
    pytest.param(
        rb"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
              "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
              "literals": [null, true, false]}""",
        '{"literals":[null,true,false],'
        '"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
        id="values",
    ),
    pytest.param(
        rb"""{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet",
              "1": "One", "\ud83d\ude00": "Grinning Face", "\u0080": "Control",
              "\u00f6": "O With Diaeresis"}""",
        '{"\\r":"Carriage Return","1":"One","\x80":"Control","\xf6":"O With Diaeresis",'
        '"\u20ac":"Euro Sign","\U0001f600":"Grinning Face","\ufb33":"Hebrew Letter Dalet"}',
        id="order of UTF-16",
    ),
    pytest.param(
        b'{"1": {"f": {"f": "hi","F": 5} ,"\\n": 56.0}, "10": { }, "": "empty", "a": { },'
        b' "111": [ {"e": "yes","E": "no" } ], "A": { }}',
        '{"":"empty","1":{"\\n":56,"f":{"F":5,"f":"hi"}},"10":{},'
        '"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}',
        id="structures",
    ),
    pytest.param(
        b'[ 56, { "d": true, "10": null, "1": [ ] } ]',
        '[56,{"1":[],"10":null,"d":true}]',
        id="arrays",
    ),
    pytest.param(
        '{"peach":"1","p\xe9ch\xe9":"2","p\xeache":"3","sin":"4"}'.encode(),
        '{"peach":"1","p\xe9ch\xe9":"2","p\xeache":"3","sin":"4"}',
        id="no locale",
    ),
    pytest.param(b'{"u": "A\\u030a"}', '{"u":"A\u030a"}', id="not normalised"),
]

# RFC 8785, appendix B: the bits of a double, and its text.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]

INVALID = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"1 2", id="two documents"),
    pytest.param(b"{'a': 1}", id="no JSON"),
    pytest.param(b'\xef\xbb\xbf"a"', id="byte order mark"),
    pytest.param('"a"'.encode("utf-16"), id="UTF-16"),
    pytest.param(b'"\xff"', id="no UTF-8"),
    pytest.param(b'"\xed\xa0\x80"', id="surrogate as UTF-8"),
    pytest.param(b'"\\ud800"', id="lone surrogate"),
    pytest.param(b'{"\\udc00": 1}', id="lone surrogate in a key"),
    pytest.param(b'{"a": 1, "a": 1}', id="key twice"),
    pytest.param(b'[{"b": {"a": 1, "\\u0061": 2}}]', id="key twice, escaped"),
    pytest.param(b"NaN", id="NaN"),
    pytest.param(b"[-Infinity]", id="infinity"),
    pytest.param(b"1e999", id="no double"),
    pytest.param(b"9" * 5000, id="long number"),
    pytest.param(b"9007199254740993", id="2^53 + 1"),
    pytest.param(b"-9007199254740993", id="-2^53 - 1"),
    pytest.param(b"18446744073709551616", id="2^64"),
    pytest.param(b"[" * 513 + b"]" * 513, id="nested 513 deep"),
    pytest.param(b'{"a":' * 513 + b"1" + b"}" * 513, id="objects nested 513 deep"),
    pytest.param(b"[" * 100_000, id="nested without end"),
]

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(("text", "expected"), DOCUMENTS)
def test_documents_are_written_as_rfc_8785_publishes_them(text: bytes, expected: str) -> None:
    assert canonical(text).decode() == expected


@pytest.mark.parametrize(("bits", "expected"), NUMBERS)
def test_numbers_are_written_as_rfc_8785_publishes_them(bits: str, expected: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical(repr(number).encode()).decode() == expected


@pytest.mark.parametrize("text", INVALID)
def test_what_two_readers_could_read_differently_is_invalid(text: bytes) -> None:
    with pytest.raises(InvalidError):
        canonical(text)


def test_nesting_of_512_is_taken() -> None:
    text = b"[" * 512 + b"1" + b"]" * 512

    assert canonical(text) == text


@given(VALUES)
def test_what_is_canonical_stays_so(value: object) -> None:
    form = canonical(json_of(value))

    assert canonical(form) == form


@given(VALUES)
@example({"\U0001f600": 1, "\ufb33": 2})
@example([9.999e-5, 1e-4, 0.1, 1.0, -0.0, -1.5, 2.0**53, 9999999999999998.0, 1e16, 1e21, 5e-324])
@example(["\x00\x1f\x7f\u2028", {"\n": '"\\/'}])
def test_it_is_what_the_library_for_rfc_8785_writes(value: object) -> None:
    assert canonical(json_of(value)) == rfc8785.dumps(cast("Any", value))


@given(VALUES)
def test_space_escapes_and_the_order_of_keys_change_nothing(value: object) -> None:
    spaced = json.dumps(value, indent=1, ensure_ascii=True, sort_keys=True)

    assert canonical(spaced.encode()) == canonical(json_of(value))


@given(VALUES)
def test_the_value_stays_what_it_was(value: object) -> None:
    form = canonical(json_of(value))

    assert json.loads(form, parse_int=float) == json.loads(json_of(value), parse_int=float)


def test_an_integer_that_is_a_double_s_own_text_is_taken() -> None:
    assert canonical(b"1e20") == b"100000000000000000000"
    assert canonical(b"100000000000000000000") == b"100000000000000000000"


@given(VALUES)
def test_the_hash_of_a_state_is_that_of_its_canonical_form(value: object) -> None:
    assert state_hash(value) == hashlib.sha256(canonical_state(value)).hexdigest()
    assert holdfast.state_hash(value) == state_hash(value)


def test_bytes_are_hashed_as_they_are() -> None:
    assert state_hash(b"\x00\xff") == hashlib.sha256(b"\x00\xff").hexdigest()


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [math.inf],
        {"a": {1, 2}},
        "\ud800",
        {"\ud800": 1},
        2**53 + 1,
        json.loads("[" * 600 + "]" * 600),
        object(),
    ],
    ids=["NaN", "infinity", "set", "surrogate", "surrogate key", "2^53 + 1", "deep", "object"],
)
def test_a_value_that_is_no_json_is_invalid(value: object) -> None:
    with pytest.raises(InvalidError):
        canonical_state(value)


def test_a_value_within_itself_is_invalid() -> None:
    value: list[object] = []
    value.append(value)

    with pytest.raises(InvalidError):
        json_of(value)
