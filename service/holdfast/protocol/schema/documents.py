"""JSON Schemas of every message, computed from the messages themselves.

The bounds and patterns are the ones that the codec enforces, so a schema cannot drift from it. A
message that travels as headers is described as a header map: its values are text, and headers
that are not holdfast's stand beside it.
"""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.limits import MAX_OP_ID_CHARS
from holdfast.errors import ERRORS, HoldfastError, InternalError
from holdfast.protocol import headers
from holdfast.protocol.message import WIRE_VERSION, Reply, Request
from holdfast.protocol.operation import AnyOperation, Body
from holdfast.protocol.problem import Problem
from holdfast.protocol.table import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

type Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
PROBLEM_ID: Final = f"urn:holdfast:wire:{WIRE_VERSION}:problem"
_LOCAL_REF: Final = "#/$defs/{name}"
_HEADERS_NOTE: Final = (
    "This describes the headers of the message, whose values are text. The body is bytes."
)


def schema_documents() -> dict[str, Schema]:
    """File name to JSON Schema 2020-12, for both sides of each operation and for problems."""
    documents = {
        f"{operation.subject}.{side}.json": _document(
            operation.schema_id(side), kind, as_headers=body is Body.BYTES
        )
        for operation in OPERATIONS
        for side, kind, body in sides(operation)
    }
    documents |= {
        f"{operation.subject}.event.json": _document(
            operation.schema_id("event"), operation.events, as_headers=False
        )
        for operation in OPERATIONS
        if operation.events is not None
    }
    documents["problem.json"] = _document(PROBLEM_ID, Problem, as_headers=False)
    return documents


def schema_text(schema: Schema) -> str:
    """``schema`` as the text of a file."""
    return json.dumps(schema, indent=2) + "\n"


def sides(
    operation: AnyOperation,
) -> tuple[tuple[str, type[Request], Body], tuple[str, type[Reply], Body]]:
    """The two messages of ``operation``: side, type, and how it travels."""
    return (
        ("request", operation.request, operation.request_body),
        ("reply", operation.reply, operation.reply_body),
    )


def component_schemas(ref_template: str) -> dict[str, Schema]:
    """Schemas of all messages by name, in the order of the names."""
    in_headers = {
        kind for operation in OPERATIONS for _, kind, body in sides(operation) if body is Body.BYTES
    }
    kinds: list[type[Request | Reply]] = [
        kind for operation in OPERATIONS for _, kind, _ in sides(operation)
    ]
    events = [operation.events for operation in OPERATIONS if operation.events is not None]
    components = _components([*kinds, *events, Problem], ref_template)
    for kind in in_headers:
        components[kind.__name__] = _header_schema(kind, components[kind.__name__])
    return dict(sorted(components.items()))


def caller_headers(*, mutates: bool) -> dict[str, Schema]:
    """The headers that any request may carry; those that change something may carry ``Op-Id``."""
    known: dict[str, Schema] = {
        headers.CONTENT_TYPE: text(
            "Encoding of body and reply: application/json or application/msgpack.",
            default="application/json",
        ),
        headers.TIMEOUT: text("Seconds that the caller is going to wait, a decimal number."),
        headers.TRACEPARENT: text("W3C trace context, for the worker's log."),
    }
    if mutates:
        known[headers.OP_ID] = text(
            "An id of the caller's making. A repeat with the same one gets the first answer.",
            minLength=1,
            maxLength=MAX_OP_ID_CHARS,
        )
    return known


def text(description: str, **more: Any) -> Schema:
    """The schema of a text that is so described."""
    return {"description": description, "type": "string", **more}


def _document(schema_id: str, kind: type[msgspec.Struct], *, as_headers: bool) -> Schema:
    components = _components([kind], _LOCAL_REF)
    root = components.pop(kind.__name__)
    document = {
        "$schema": DIALECT,
        "$id": schema_id,
        **(_header_schema(kind, root) if as_headers else root),
    }
    if components:
        document["$defs"] = components
    return document


def _components(kinds: Sequence[type], ref_template: str) -> dict[str, Schema]:
    _, components = msgspec.json.schema_components(kinds, ref_template=ref_template)
    for component in components.values():
        # CPython 3.12 keeps the indentation of a docstring, 3.13 does not.
        component["description"] = inspect.cleandoc(component["description"])
        if not component["required"]:
            del component["required"]  # older drafts do not allow an empty one
    if Problem.__name__ in components:
        components[Problem.__name__]["properties"]["code"] = _code_schema()
    return components


def _code_schema() -> Schema:
    """Every code with its meaning; open, for a newer worker may have more."""
    return {
        "type": "string",
        "anyOf": [
            *(
                {"const": error.code, "title": error.title, "description": _meaning(error)}
                for error in ERRORS
            ),
            {
                "title": "A code of a later version",
                "description": f"Treat it as {InternalError.code}.",
                "type": "string",
            },
        ],
    }


def _meaning(error: type[HoldfastError]) -> str:
    again = "the same request may succeed later" if error.retryable else "repeating does not help"
    return f"{error.__doc__} Status {error.status}; {again}."


def _header_schema(kind: type[msgspec.Struct], schema: Schema) -> Schema:
    properties = {name: _header_value(field) for name, field in schema["properties"].items()}
    described = {**schema, "description": f"{schema['description']}\n\n{_HEADERS_NOTE}"}
    described.pop("additionalProperties", None)
    described["properties"] = properties
    if issubclass(kind, Request):
        # Other headers are none of our business, but an unknown Blob- one is a typo.
        described["propertyNames"] = {
            "anyOf": [{"enum": list(properties)}, {"not": {"pattern": "^[Bb][Ll][Oo][Bb]-"}}]
        }
    return described


def _header_value(field: Schema) -> Schema:
    """``field`` as text. For null the header is absent."""
    value, *_ = field.get("anyOf", [field])
    if value.get("type") == "boolean":
        return {"enum": ["true", "false"], "default": str(bool(field.get("default"))).lower()}
    if value.get("type") != "integer":
        return {**value, **({"default": field["default"]} if field.get("default") else {})}
    bound = value.get("maximum")
    up_to = "" if bound is None else f" up to {bound}"
    return {
        "description": f"{value.get('description', 'A count.')} A decimal number{up_to}.",
        "type": "string",
        "pattern": r"^(0|[1-9][0-9]*)$(?!\n)",
        **({} if bound is None else {"maxLength": len(str(bound))}),
    }
