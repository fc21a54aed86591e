"""The OpenAPI 3.1 document, computed from the routes: so it cannot say what they do not.

Why: docs/decisions.md, "The OpenAPI document follows from the routes".
"""

from __future__ import annotations

import re
from http import HTTPStatus
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec
from starlette.responses import Response

from holdfast.gateway.http_route import BYTES, EVENTS, HttpAnswer, HttpRoute, Parameter
from holdfast.protocol.message import WireDigest, WireKey, WireName
from holdfast.protocol.problem import Problem
from holdfast.protocol.snapshots import WireRestore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from starlette.requests import Request


type JsonObject = dict[str, Any]

PATH: Final = "/openapi.json"
_REF: Final = "#/components/schemas/{name}"
_TEXT: Final = {"type": "string"}
_EVENT: Final = {
    "description": "One event; its data is JSON.",
    "type": "object",
    "properties": {"event": _TEXT, "data": _TEXT, "id": _TEXT},
}
_PROBLEM: Final = {"$ref": _REF.format(name=Problem.__name__)}
_PATH_KINDS: Final[Mapping[str, Any]] = {
    "digest": WireDigest,
    "key": WireKey,
    "name": WireName,
    "restore": WireRestore,
}
_PLACEHOLDER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_ALWAYS: Final = (400, 429, 431, 500, 503, 504)
_GUARDED: Final = (401, 403)
_WITH_BODY: Final = (408, 413, 415)


def document_route(others: Sequence[HttpRoute]) -> HttpRoute:
    """``GET /openapi.json``, of the ``others`` and of itself."""

    async def document(_: Request) -> Response:
        text = msgspec.json.encode(openapi_document((*others, route)))
        return Response(text, media_type="application/json")

    route = HttpRoute(
        method="GET",
        path=PATH,
        verb="open",
        summary="This document.",
        handle=document,
        answers={200: HttpAnswer(about="It.", message=dict[str, Any])},
    )
    return route


def openapi_document(routes: Iterable[HttpRoute]) -> JsonObject:
    """The gateway's requests and answers for programs, as OpenAPI 3.1."""
    routes = [route for route in routes if not route.is_page]
    kinds = {kind for route in routes for kind in _messages(route)} | {Problem}
    ordered = sorted(kinds, key=lambda kind: str(kind.__name__))
    _, components = msgspec.json.schema_components(ordered, ref_template=_REF)
    paths: dict[str, JsonObject] = {}
    for route in routes:
        item = paths.setdefault(_PLACEHOLDER.sub(r"{\1}", route.path), {})
        item[route.method.lower()] = _operation(route, route.method)
        if route.method == "GET":
            item["head"] = _operation(route, "HEAD")
    return {
        "openapi": "3.1.0",
        "info": {"title": "holdfast", "version": "1", "license": {"name": "Apache-2.0"}},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _messages(route: HttpRoute) -> Iterable[Any]:
    """The messages that a route answers."""
    for kind in (answer.message for answer in route.answers.values()):
        for one in _parts(kind):
            if isinstance(one, type) and issubclass(one, msgspec.Struct):
                yield one


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)


def _operation(route: HttpRoute, method: str) -> JsonObject:
    operation: JsonObject = {
        "summary": route.summary,
        "operationId": _id_of(route, method),
        "parameters": [
            *map(_in_path, _PLACEHOLDER.findall(route.path)),
            *(_described(one, "query") for one in route.query),
            *(_described(one, "header") for one in route.headers if one.name != "Content-Type"),
        ],
        "responses": _responses(route, method),
    }
    if route.verb != "open":
        operation["security"] = [{"token": []}, {}]
    if route.body is not None:
        media_type = "*/*" if route.body is BYTES else "application/json"
        schema = {} if route.body is BYTES else _sent(route)
        operation["requestBody"] = {
            "required": route.body is not BYTES,
            "content": {media_type: {"schema": schema}},
        }
    return operation


def _id_of(route: HttpRoute, method: str) -> str:
    words = [word for word in re.split(r"\W+", _PLACEHOLDER.sub(r"by_\1", route.path)) if word]
    return "_".join([method.lower(), *words])


def _in_path(name: str) -> JsonObject:
    schema = _schema(_PATH_KINDS.get(name, str))
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _described(parameter: Parameter, place: str) -> JsonObject:
    schema = _schema(parameter.kind)
    if parameter.many:
        schema = {"type": "array", "items": schema}
    return {
        "name": parameter.name,
        "in": place,
        "required": parameter.required,
        "description": parameter.about,
        "schema": schema,
    }


def _responses(route: HttpRoute, method: str) -> dict[str, JsonObject]:
    statuses = {status: answer.about for status, answer in route.answers.items()}
    also = _ALWAYS + (() if route.verb == "open" else _GUARDED)
    also += _WITH_BODY if route.body is not None else ()
    for status in also:
        statuses.setdefault(status, HTTPStatus(status).phrase)
    return {
        str(status): _response(status, about, route.answers.get(status), method)
        for status, about in sorted(statuses.items())
    }


def _response(status: int, about: str, answer: HttpAnswer | None, method: str) -> JsonObject:
    response: JsonObject = {"description": about}
    if method == "HEAD":
        return response
    if status >= HTTPStatus.BAD_REQUEST:
        response["content"] = {"application/problem+json": {"schema": _PROBLEM}}
    elif answer is not None and (content := _content(answer)):
        response["content"] = content
    return response


def _content(answer: HttpAnswer) -> JsonObject:
    content: JsonObject = {}
    kinds = [kind for kind in _parts(answer.message) if kind is not None]
    if BYTES in kinds or answer.has_bytes:
        content["*/*"] = {}  # a range of JSON is not JSON
    if EVENTS in kinds:
        content["text/event-stream"] = {"schema": _EVENT}
    schemas = [_schema(kind) for kind in kinds if kind not in {BYTES, EVENTS}]
    if schemas:
        schemas += [{}] if answer.has_bytes else []
        content["application/json"] = {
            "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        }
    if answer.media_type is not None:
        content[answer.media_type] = {"schema": {"type": "string"}}
    return content


def _sent(route: HttpRoute) -> JsonObject:
    """The body of a route: its message but for what the route knows."""
    _, components = msgspec.json.schema_components([route.body], ref_template=_REF)
    body: JsonObject = dict(components[route.body.__name__])
    body["properties"] = {
        name: field for name, field in body["properties"].items() if name not in route.known
    }
    body["required"] = [name for name in body.get("required", []) if name not in route.known]
    return body


def _schema(kind: Any) -> JsonObject:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {"$ref": _REF.format(name=kind.__name__)}
    schema: JsonObject = msgspec.json.schema(kind)
    return schema
