"""A command is whatever every reader can read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.commands import check_command, to_json, to_msgpack
from holdfast.domain.limits import MAX_COMMAND_NESTING
from holdfast.errors import InvalidError

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values),
    max_leaves=8,
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(documents)
def test_what_a_json_library_writes_is_a_command(value: Any) -> None:
    check_command(json.dumps(value).encode())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'"\xff"', id="not UTF-8"),
        pytest.param(b'{"a":', id="cut short"),
        pytest.param(b"1 2", id="two"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"Infinity", id="Infinity"),
        pytest.param(b"1e999", id="beyond a double"),
        pytest.param(b'[{"a":1' + b"0" * 309 + b"}]", id="an integer beyond a double"),
        pytest.param(b"1" + b"0" * 5000, id="an integer of five thousand digits"),
        pytest.param(b'"\\ud800"', id="half a surrogate pair"),
        pytest.param(b'"\\q"', id="an unknown escape"),
        pytest.param(nested(MAX_COMMAND_NESTING + 1), id="too deep"),
        pytest.param(b'{"a":' * 513 + b"1" + b"}" * 513, id="too deep, in objects"),
        pytest.param(nested(100_000), id="far too deep"),
    ],
)
def test_what_some_reader_cannot_read_is_no_command(text: bytes) -> None:
    with pytest.raises(InvalidError):
        check_command(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"a":1,"a":2}', id="a name twice"),
        pytest.param(b"123456789012345678901234567890", id="a long integer"),
        pytest.param(b"1" + b"0" * 308, id="the longest integer"),
        pytest.param(b'"' + b"9" * 400 + b'"', id="digits in text"),
        pytest.param(b"0." + b"1" * 400, id="many decimals"),
        pytest.param(b"1e-999", id="as good as zero"),
        pytest.param(nested(MAX_COMMAND_NESTING), id="as deep as may be"),
        pytest.param(b"[" + b"[]," * 600 + b"[]]", id="wide"),
        pytest.param(b"null", id="null"),
    ],
)
def test_a_command_may_be_any_json(text: bytes) -> None:
    check_command(text)


@given(documents)
def test_json_comes_back_from_msgpack(value: Any) -> None:
    text = msgspec.json.encode(value)

    assert msgspec.json.decode(to_json(to_msgpack(text))) == msgspec.json.decode(text)


def test_an_integer_beyond_64_bits_is_a_double_in_msgpack() -> None:
    assert msgspec.msgpack.decode(to_msgpack(b'{"a":[36893488147419103232]}')) == {"a": [2.0**65]}


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        {1: "a number for a name"},
        float("nan"),
        [float("inf")],
        msgspec.msgpack.Ext(5, b"x"),
    ],
    ids=["bytes", "number as a name", "nan", "infinity", "extension"],
)
def test_what_json_cannot_say_is_no_command_in_msgpack_either(value: Any) -> None:
    with pytest.raises(InvalidError):
        to_json(msgspec.msgpack.encode(value))
