"""The AsyncAPI document is valid, complete, and its references lead somewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from holdfast.protocol.operation import Body
from holdfast.protocol.schema.asyncapi import asyncapi_document
from holdfast.protocol.table import OPERATIONS

DOCUMENT = asyncapi_document()
SPECIFICATION = json.loads(
    (Path(__file__).parent.parent / "data" / "asyncapi-3.0.0.schema.json").read_text(
        encoding="utf-8"
    )
)

each_operation = pytest.mark.parametrize(
    "operation", OPERATIONS, ids=lambda operation: operation.subject
)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def follow(reference: str) -> Any:
    found: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def resolved(value: Any) -> Any:
    while isinstance(value, dict) and "$ref" in value:
        value = follow(value["$ref"])
    return value


def test_the_document_is_valid_by_the_specifications_own_schema() -> None:
    errors = Draft7Validator(SPECIFICATION).iter_errors(DOCUMENT)

    assert [error.message for error in errors] == []


def test_the_specifications_schema_refuses_what_is_not_asyncapi() -> None:
    # It is a copy that was cut down; this shows that it still bites.
    broken = {**DOCUMENT, "operations": {"blob-put": {"action": "answer"}}}

    assert not Draft7Validator(SPECIFICATION).is_valid(broken)


def test_every_reference_leads_somewhere() -> None:
    found = list(references(DOCUMENT))

    assert found
    for reference in found:
        assert reference.startswith("#/")
        assert follow(reference)


def test_every_component_is_used() -> None:
    used = set(references(DOCUMENT))

    for kind in ("messages", "schemas"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in used


@each_operation
def test_an_operation_is_received_on_its_subject_by_one_of_the_queue_group(operation: Any) -> None:
    described = DOCUMENT["operations"][operation.name]
    channel = follow(described["channel"]["$ref"])

    assert described["action"] == "receive"
    if operation.queue:
        assert channel["address"] == operation.subject
        assert described["bindings"]["nats"]["queue"] == "q"
    else:
        assert channel["address"].startswith(f"{operation.subject}.{{")
        assert "bindings" not in described


@each_operation
def test_an_operation_is_answered_on_the_callers_subject_or_fails_with_a_problem(
    operation: Any,
) -> None:
    reply = DOCUMENT["operations"][operation.name]["reply"]

    assert follow(reply["channel"]["$ref"])["address"] is None
    assert [resolved(message)["title"] for message in reply["messages"]] == [
        operation.reply.__name__,
        "Problem",
    ]


@each_operation
def test_the_bytes_of_a_blob_are_a_payload_and_their_fields_are_headers(operation: Any) -> None:
    for side, body in (("request", operation.request_body), ("reply", operation.reply_body)):
        message = DOCUMENT["components"]["messages"][f"{operation.name}-{side}"]
        fields = f"#/components/schemas/{message['title']}"

        if body is Body.BYTES:
            has_events = side == "reply" and operation.events is not None
            plain = "application/octet-stream"
            assert message["contentType"] == (operation.events_type if has_events else plain)
            assert {"$ref": fields} in message["headers"]["allOf"]
        else:
            assert message["contentType"] == "application/json"
            assert message["payload"] == {"$ref": fields}


@each_operation
def test_only_what_changes_something_takes_an_op_id(operation: Any) -> None:
    message = DOCUMENT["components"]["messages"][f"{operation.name}-request"]

    names = {name for part in message["headers"]["allOf"] for name in part.get("properties", ())}

    assert ("Op-Id" in names) == operation.mutates
    assert {"Content-Type", "Timeout", "traceparent"} <= names
