"""The schemas say exactly what the codec takes, and the files in ``schemas/`` say the same."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.examples import examples
from tests.protocol.cases import (
    EACH_MESSAGE,
    EVERY_MESSAGE,
    REQUESTS_IN_BODIES,
    REQUESTS_IN_HEADERS,
    kind_of,
)
from tests.protocol.generate import messages

from holdfast.errors import ERRORS, HoldfastError, InvalidError
from holdfast.protocol.codec import (
    Encoding,
    decode_request,
    decode_request_headers,
    encode,
    encode_error,
    encode_headers,
)
from holdfast.protocol.operation import Body
from holdfast.protocol.schema.documents import component_schemas, schema_documents, schema_text
from holdfast.protocol.table import OPERATIONS
from holdfast.protocol.watch import WatchEvent

DOCUMENTS = schema_documents()
GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "golden" / "messages.json").read_text(encoding="utf-8")
)

# Floats are left out: JSON Schema takes 1.0 for an integer, and the codec does not.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.text(st.characters(codec="utf-8"), max_size=70)
    | st.sampled_from(["blobs", "0" * 64, "A" * 64, "0" * 63 + "\n", "a" * 22, "c.1", ""]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=4,
)
header_values = st.text(max_size=70) | st.sampled_from(
    ["blobs", "0" * 64, "A" * 64, "0" * 63 + "\n", "0", "12", "1\n", "01", "1.0", "null"]
)


def validator_of(operation: Any, side: str) -> Draft202012Validator:
    return Draft202012Validator(DOCUMENTS[f"{operation.subject}.{side}.json"])


def on_the_wire(message: Any, body: Body) -> Any:
    return encode_headers(message) if body is Body.BYTES else json.loads(encode(message))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_is_valid_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(DOCUMENTS[name])


@pytest.mark.parametrize(("operation", "side"), EVERY_MESSAGE)
def test_a_schema_is_found_under_the_id_that_discovery_tells(operation: Any, side: str) -> None:
    document = DOCUMENTS[f"{operation.subject}.{side}.json"]

    assert document["$id"] == operation.schema_id(side)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_has_a_title_and_a_description(name: str) -> None:
    assert DOCUMENTS[name]["title"]
    assert DOCUMENTS[name]["description"]


@pytest.mark.parametrize(("operation", "side"), EVERY_MESSAGE)
@examples(EACH_MESSAGE)
@given(data=st.data())
def test_every_message_fits_its_schema(operation: Any, side: str, data: st.DataObject) -> None:
    kind, body = kind_of(operation, side)
    message = data.draw(messages(kind))

    validator_of(operation, side).validate(on_the_wire(message, body))


@pytest.mark.parametrize(("operation", "side"), EVERY_MESSAGE)
def test_every_kept_message_fits_its_schema(operation: Any, side: str) -> None:
    validator_of(operation, side).validate(GOLDEN[operation.subject][side])


@pytest.mark.fault("I02")
@pytest.mark.fault("I05")
@pytest.mark.parametrize("operation", REQUESTS_IN_BODIES)
@given(data=st.data())
def test_codec_and_schema_refuse_the_same_bodies(operation: Any, data: st.DataObject) -> None:
    # Given a good request with one field set to anything, added or taken away,
    fields = json.loads(encode(data.draw(messages(operation.request))))
    known = [field.encode_name for field in msgspec.structs.fields(operation.request)]
    name = data.draw(st.sampled_from([*known, "typo"]))
    if data.draw(st.booleans()):
        fields[name] = data.draw(json_values)
    else:
        fields.pop(name, None)

    # when both judge it,
    fits = validator_of(operation, "request").is_valid(fields)
    as_json = is_taken(json.dumps(fields).encode(), operation, Encoding.JSON)
    as_msgpack = is_taken(write_msgpack(fields), operation, Encoding.MSGPACK)

    # then they agree.
    assert (as_json, as_msgpack) == (fits, fits)


def is_taken(body: bytes, operation: Any, encoding: Encoding) -> bool:
    try:
        decode_request(body, operation.request, encoding)
    except InvalidError:
        return False
    return True


def write_msgpack(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(with_bytes(value))
    except OverflowError:  # msgpack ends at 2^64, where every field but JSON has long ended
        return msgspec.msgpack.encode(with_bytes(with_doubles(value)))


def with_doubles(value: Any) -> Any:
    """The same with doubles for all integers that are too large for msgpack."""
    if isinstance(value, list):
        return [with_doubles(item) for item in value]
    if isinstance(value, dict):
        return {name: with_doubles(item) for name, item in value.items()}
    return float(value) if isinstance(value, int) and abs(value) > 2**63 else value


def with_bytes(value: Any) -> Any:
    """The value with its base64 of JSON as the bytes that it is in msgpack."""
    if isinstance(value, list):
        return [with_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _BYTES[name](item) if name in _BYTES else with_bytes(item)
        for name, item in value.items()
    }


def each_as_bytes(texts: Any) -> Any:
    return [as_bytes(text) for text in texts] if isinstance(texts, list) else texts


def as_bytes(text: Any) -> Any:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else text
    except ValueError:
        return text


_BYTES = {"path_bytes": as_bytes, "exclude_bytes": each_as_bytes, "data": as_bytes}


@pytest.mark.fault("I05")
@pytest.mark.parametrize("operation", REQUESTS_IN_HEADERS)
@given(data=st.data())
def test_headers_that_the_schema_refuses_are_refused(operation: Any, data: st.DataObject) -> None:
    # The schema bounds a number by its digits only, so the codec may refuse more.
    fields = encode_headers(data.draw(messages(operation.request)))
    known = [field.encode_name for field in msgspec.structs.fields(operation.request)]
    name = data.draw(st.sampled_from([*known, "Blob-Typo", "blob-digest", "Other"]))
    fields[name] = data.draw(header_values)

    try:
        decode_request_headers(fields, operation.request)
    except InvalidError:
        return
    assert validator_of(operation, "request").is_valid(fields)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name.endswith("request.json")])
def test_header_values_are_described_as_text(name: str) -> None:
    operation = next(op for op in OPERATIONS if name == f"{op.subject}.request.json")
    if operation.request_body is Body.MESSAGE:
        assert "headers" not in DOCUMENTS[name]["description"].lower()
        return

    for value in DOCUMENTS[name]["properties"].values():
        assert value.get("type") == "string" or all(isinstance(v, str) for v in value["enum"])


def test_a_header_of_another_protocol_is_allowed_and_a_typo_is_not() -> None:
    put = Draft202012Validator(DOCUMENTS["blob.put.request.json"])

    assert put.is_valid({"Op-Id": "7", "Blob-Type": "text/plain"})
    assert not put.is_valid({"Blob-Tpye": "text/plain"})


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.code)
def test_every_failure_fits_the_schema_of_problems(error: type[HoldfastError]) -> None:
    _, body = encode_error(error("why"), Encoding.JSON)

    Draft202012Validator(DOCUMENTS["problem.json"]).validate(json.loads(body))


def test_the_schema_of_problems_explains_every_code_and_admits_later_ones() -> None:
    code = DOCUMENTS["problem.json"]["properties"]["code"]

    explained = [case["const"] for case in code["anyOf"] if "const" in case]

    assert explained == [error.code for error in ERRORS]
    assert Draft202012Validator(code).is_valid("teapot")


def test_an_event_fits_its_schema_and_is_written_with_all_that_cloudevents_need() -> None:
    event = WatchEvent(
        id="names.0.1",
        source="urn:holdfast",
        type="holdfast.name.ok",
        subject="a",
        time="2026-01-02T03:04:05Z",
        sequence="1",
        position="1",
    )

    written = json.loads(msgspec.json.encode(event))

    Draft202012Validator(DOCUMENTS["blob.watch.event.json"]).validate(written)
    assert {"specversion", "id", "source", "type"} <= written.keys()


def test_no_two_messages_share_a_name() -> None:
    # Components are found by class name alone.
    kinds = {kind_of(op, side)[0] for op in OPERATIONS for side in ("request", "reply")}

    assert len({kind.__name__ for kind in kinds}) == len(kinds)
    assert {kind.__name__ for kind in kinds} <= component_schemas("#/{name}").keys()


def test_what_is_generated_is_the_same_each_time() -> None:
    assert [schema_text(document) for document in schema_documents().values()] == [
        schema_text(document) for document in DOCUMENTS.values()
    ]


def test_a_schema_file_is_the_schema() -> None:
    for document in DOCUMENTS.values():
        text = schema_text(document)

        assert json.loads(text) == document
        assert text.endswith("}\n")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.subject)
def test_no_number_and_no_list_of_an_answer_has_an_upper_bound(operation: Any) -> None:
    """It may be a sum: a client that refused one number would have nothing of the page."""
    written = json.dumps(DOCUMENTS[f"{operation.subject}.reply.json"])

    assert not [
        word for word in ('"maximum"', '"exclusiveMaximum"', '"maxItems"') if word in written
    ]
