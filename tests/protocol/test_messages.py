"""Every message comes back from the wire as it was sent, and its written form never changes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples
from tests.protocol.cases import EACH_MESSAGE, EVERY_MESSAGE, kind_of
from tests.protocol.generate import messages

from holdfast.protocol.codec import (
    Encoding,
    decode_reply,
    decode_reply_headers,
    decode_request,
    decode_request_headers,
    encode,
    encode_headers,
)
from holdfast.protocol.message import Request
from holdfast.protocol.operation import Body
from holdfast.protocol.table import OPERATIONS

GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "golden" / "messages.json").read_text(encoding="utf-8")
)


def decode(body: bytes, kind: Any, encoding: Encoding) -> Any:
    if issubclass(kind, Request):
        return decode_request(body, kind, encoding)
    return decode_reply(body, kind, encoding)


def decode_headers(headers: dict[str, str], kind: Any) -> Any:
    if issubclass(kind, Request):
        return decode_request_headers(headers, kind)
    return decode_reply_headers(headers, kind)


@pytest.mark.parametrize(("operation", "side"), EVERY_MESSAGE)
@examples(EACH_MESSAGE)
@given(data=st.data())
def test_a_message_comes_back_as_it_was_sent(
    operation: Any, side: str, data: st.DataObject
) -> None:
    kind, body = kind_of(operation, side)
    message = data.draw(messages(kind))

    if body is Body.BYTES:
        assert decode_headers(encode_headers(message), kind) == message
    else:
        for encoding in Encoding:
            assert decode(encode(message, encoding), kind, encoding) == message


@pytest.mark.parametrize(("operation", "side"), EVERY_MESSAGE)
def test_the_written_form_never_changes(operation: Any, side: str) -> None:
    # tests/golden/messages.json is what released clients send and expect.
    kind, body = kind_of(operation, side)
    written = GOLDEN[operation.subject][side]

    if body is Body.BYTES:
        assert encode_headers(decode_headers(written, kind)) == written
    else:
        message = decode(msgspec.json.encode(written), kind, Encoding.JSON)
        assert encode(message, Encoding.JSON) == msgspec.json.encode(written)
        packed = encode(message, Encoding.MSGPACK)
        # The same fields in the same order; JSON writes bytes in base64.
        assert msgspec.json.encode(msgspec.msgpack.decode(packed)) == msgspec.json.encode(written)
        assert decode(packed, kind, Encoding.MSGPACK) == message


def test_every_operation_has_its_written_form_kept() -> None:
    assert list(GOLDEN) == [operation.subject for operation in OPERATIONS]


def test_a_subject_belongs_to_one_operation() -> None:
    subjects = [operation.subject for operation in OPERATIONS]

    assert sorted(set(subjects)) == sorted(subjects)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.subject)
def test_an_endpoint_has_a_name_that_services_accept(operation: Any) -> None:
    # ADR-32: A-Z, a-z, 0-9, dash and underscore.
    assert re.fullmatch(r"[A-Za-z0-9_-]+", operation.name)
    assert operation.name.replace("-", ".") == operation.subject


def test_a_schema_id_names_the_version_the_subject_and_the_side() -> None:
    assert OPERATIONS[0].schema_id("reply") == "urn:holdfast:wire:1:blob.put:reply"
