"""The wire as an AsyncAPI 3.0 document: what a worker receives and answers.

Where the reply goes is left open, as AsyncAPI does it with a channel whose address is null: NATS
carries the reply subject in its protocol, not in a header that a runtime expression could name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.errors import ERRORS
from holdfast.protocol import headers
from holdfast.protocol.message import WIRE_VERSION
from holdfast.protocol.operation import QUEUE_GROUP, AnyOperation, Body
from holdfast.protocol.problem import Problem
from holdfast.protocol.schema.documents import (
    Schema,
    caller_headers,
    component_schemas,
    sides,
    text,
)
from holdfast.protocol.table import OPERATIONS

if TYPE_CHECKING:
    from holdfast.protocol.message import Reply, Request

_INTRODUCTION: Final = """\
Requests and replies are NATS request/reply. Any worker of the pool answers; subjects may have a
deployment's prefix in front.

Bodies are JSON, or msgpack when the request says `Content-Type: application/msgpack`; the reply
uses the same. Where the body is the blob itself, the message travels as `Blob-*` headers.

A failed request is answered with the `Nats-Service-Error` headers and a problem."""

_PROBLEM: Final = "problem"


def asyncapi_document() -> Schema:
    """The document, with all schemas inside."""
    return {
        "asyncapi": "3.0.0",
        "id": f"urn:holdfast:wire:{WIRE_VERSION}",
        "info": {
            "title": "holdfast",
            "version": str(WIRE_VERSION),
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "localhost:4222",
                "protocol": "nats",
                "description": "The NATS server or cluster that the workers are connected to.",
            }
        },
        "channels": {
            name: channel
            for operation in OPERATIONS
            for name, channel in (
                (operation.name, _channel(operation)),
                (f"{operation.name}-reply", _reply_channel(operation)),
            )
        },
        "operations": {operation.name: _operation(operation) for operation in OPERATIONS},
        "components": {
            "messages": {
                **{
                    _message_name(operation, side): _message(operation, side, kind, body)
                    for operation in OPERATIONS
                    for side, kind, body in sides(operation)
                },
                _PROBLEM: _problem_message(),
            },
            "schemas": component_schemas("#/components/schemas/{name}"),
        },
    }


def _channel(operation: AnyOperation) -> Schema:
    channel: Schema = {"address": operation.subject, "title": operation.subject}
    if not operation.queue:
        channel["address"] = f"{operation.subject}.{{worker}}.{{upload}}"
        channel["description"] = (
            "Opaque: the whole subject is what an answer gave as `part_subject`."
        )
        channel["parameters"] = {
            "worker": {"description": "The worker that owns the upload."},
            "upload": {"description": "The rest of the subject."},
        }
    channel["messages"] = {"request": _message_ref(_message_name(operation, "request"))}
    return channel


def _reply_channel(operation: AnyOperation) -> Schema:
    return {
        "address": None,
        "title": f"answer to {operation.subject}",
        "description": "The reply subject of the request."
        + (" Many messages come on it." if operation.events is not None else ""),
        "messages": {
            "reply": _message_ref(_message_name(operation, "reply")),
            _PROBLEM: _message_ref(_PROBLEM),
        },
    }


def _operation(operation: AnyOperation) -> Schema:
    described: Schema = {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{operation.name}"},
        "summary": operation.summary,
    }
    if operation.mutates:
        described["description"] = (
            "Changes something: after a lost answer, repeat it with the same `Op-Id`."
        )
    if operation.queue:
        described["bindings"] = {"nats": {"queue": QUEUE_GROUP, "bindingVersion": "0.1.0"}}
    described["messages"] = [{"$ref": f"#/channels/{operation.name}/messages/request"}]
    answer = f"#/channels/{operation.name}-reply"
    described["reply"] = {
        "channel": {"$ref": answer},
        "messages": [
            {"$ref": f"{answer}/messages/reply"},
            {"$ref": f"{answer}/messages/{_PROBLEM}"},
        ],
    }
    return described


def _message(operation: AnyOperation, side: str, kind: type[Request | Reply], body: Body) -> Schema:
    fields = {"$ref": f"#/components/schemas/{kind.__name__}"}
    message: Schema = {
        "name": _message_name(operation, side),
        "title": kind.__name__,
        "contentType": "application/json",
        "payload": fields,
    }
    parts: list[Schema] = []
    if body is Body.BYTES:
        message["contentType"] = "application/octet-stream"
        message["payload"] = {"type": "string", "format": "binary"}
        parts.append(fields)
    if side == "reply" and operation.events is not None:
        event = {"$ref": f"#/components/schemas/{operation.events.__name__}"}
        message["contentType"] = operation.events_type
        message["payload"] = {"type": "array", "items": event}
    if side == "request":
        parts.append({"properties": caller_headers(mutates=operation.mutates)})
    if parts:
        message["headers"] = {"type": "object", "allOf": parts}
    return message


def _problem_message() -> Schema:
    return {
        "name": _PROBLEM,
        "title": Problem.__name__,
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                headers.SERVICE_ERROR: text("The error, on one line."),
                headers.SERVICE_ERROR_CODE: text(
                    "The status, as in HTTP.",
                    examples=sorted({str(error.status) for error in ERRORS}),
                ),
            },
            "required": [headers.SERVICE_ERROR, headers.SERVICE_ERROR_CODE],
        },
        "payload": {"$ref": f"#/components/schemas/{Problem.__name__}"},
    }


def _message_name(operation: AnyOperation, side: str) -> str:
    return f"{operation.name}-{side}"


def _message_ref(name: str) -> Schema:
    return {"$ref": f"#/components/messages/{name}"}
