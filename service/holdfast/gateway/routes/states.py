"""``/state``, ``/command`` and ``/log``: states of services, and the logs of their commands.

Why: docs/decisions.md, "A command goes to the log as it was sent".
"""

from __future__ import annotations

import base64
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from holdfast.client.states.api import to_append
from holdfast.client.states.appending import ToAppend
from holdfast.client.states.following import ReadLog, followed
from holdfast.domain.blob_names import check_blob_name
from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.gateway.content.answers import (
    REVALIDATE,
    ContentRoutes,
    HttpContent,
    Readers,
    content_answer,
)
from holdfast.gateway.content.conditions import (
    Preconditions,
    Representation,
    etag_of,
    precondition_failed,
)
from holdfast.gateway.content.sources import blob_source
from holdfast.gateway.http_route import (
    ABSENT,
    BYTES,
    CONTENT,
    EVENTS,
    HttpAnswer,
    HttpRoute,
    Parameter,
    reading,
)
from holdfast.gateway.parameters import (
    CONTENT_HEADERS,
    CONTENT_TYPE,
    CURSOR,
    IF_MATCH,
    IF_NONE_MATCH,
    LIMIT,
    converted,
    given,
)
from holdfast.gateway.paths import rest_of_path
from holdfast.gateway.problems import HttpError, json_answer
from holdfast.gateway.routes.events import EVENT_STREAM, event, events_answer
from holdfast.protocol.headers import (
    BLOB_HLC,
    BLOB_LAST_APPLIED_HLC,
    BLOB_LAST_APPLIED_INDEX,
    BLOB_LINEAGE,
)
from holdfast.protocol.message import WireDigest
from holdfast.protocol.states import (
    LIST_SAVES,
    LIST_STATES,
    ExpectedIndex,
    ForeignHlc,
    ListSaves,
    ListStates,
    LoadedState,
    LogPage,
    Saved,
    SavePage,
    StatePage,
    WireHlc,
    WireIndex,
    WireLineage,
)
from holdfast.protocol.times import parse_time, told_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.client import Client
    from holdfast.client.states.values import LogCommand
    from holdfast.gateway.content.bodies import Bodies

JSON_TYPE: Final = "application/json"
MAX_JSON_BYTES: Final = 64 * 1024 * 1024
"""Of a state that is JSON: it is made canonical in memory. Larger ones are saved as bytes."""

_INDEX: Final = Parameter(name="index", about="The newest save up to this command.", kind=WireIndex)
_TIME: Final = Parameter(name="time", about="The newest save up to this time (RFC 3339).")
_HASH: Final = Parameter(name="hash", about="The save with this hash.", kind=WireDigest)
_SAVES: Final = Parameter(name="saves", about="A page of the saves, instead.")
_FROM: Final = Parameter(name="from", about="The first command: 1 or more.", kind=WireIndex)
_FOLLOW: Final = Parameter(name="follow", about="Events, and further ones as they come, instead.")
_FORCE: Final = Parameter(name="force", about="Save also if older than the newest save.")
_PREFIX: Final = Parameter(name="prefix", about="Only states whose names start so.")
_APPLIED: Final = Parameter(
    name=BLOB_LAST_APPLIED_INDEX, about="The command that the state goes up to.", kind=WireIndex
)
_APPLIED_HLC: Final = Parameter(
    name=BLOB_LAST_APPLIED_HLC, about="The time of that command.", kind=ForeignHlc
)
_HLC: Final = Parameter(name=BLOB_HLC, about="A time before the command's.", kind=WireHlc)
_LINEAGE: Final = Parameter(
    name=BLOB_LINEAGE,
    about="Only in the log that has it, as an answer said; else 409.",
    kind=WireLineage,
)
_LAST_EVENT: Final = Parameter(
    name="Last-Event-ID",
    about="The last command that was had, and the lineage of its log.",
    kind=Annotated[str, msgspec.Meta(max_length=150, pattern=r"^[0-9]{1,16}(@.+)?$(?!\n)")],
)


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a command is in the log, and its time."""

    index: int
    hlc: str


class StateRoutes(ContentRoutes):
    """States over HTTP."""

    def __init__(
        self, client: Client, bodies: Bodies, readers: Readers, *, only: str | None
    ) -> None:
        """``only`` is the state of the paths without a name."""
        super().__init__(client, bodies, readers)
        self._only = only

    async def names(self, request: Request) -> Response:
        """``GET /states``."""
        asked = given(request, _PREFIX, LIMIT, CURSOR)
        return json_answer(await self._client.requester.ask(LIST_STATES, ListStates(**asked)))

    async def read(self, request: Request) -> Response:
        """``GET`` and ``HEAD /state/{name}``: the newest save, or one of before."""
        name = self._name_of(request)
        asked = given(request, _INDEX, _TIME, _HASH, _SAVES, LIMIT, CURSOR)
        if asked.pop("saves", None) is not None:
            saves = ListSaves(name=name, **_only_paging(asked))
            return json_answer(await self._client.requester.ask(LIST_SAVES, saves))
        if asked.keys() & {"limit", "cursor"}:
            raise InvalidError("only lists have pages")
        if len(asked) > 1:
            raise InvalidError("a save is asked for by index, time or hash: by one of them")
        if "time" in asked:
            asked["time"] = told_time(asked["time"], "time")
        found = await self._client.states.found(name, **asked)
        return await content_answer(request, self._content(name, found), self._readers)

    async def save(self, request: Request) -> Response:
        """``POST /state/{name}``: 201; 409 if one is newer, or the log is another."""
        name = self._name_of(request)
        if not Preconditions.of(request.headers).is_change_free:
            msg = "a save takes no conditions: an older state than the newest is a conflict"
            raise InvalidError(msg)
        said: dict[str, Any] = {
            "last_applied_index": _header(request, _APPLIED) or 0,
            "last_applied_hlc": _header(request, _APPLIED_HLC) or "",
            "lineage": _header(request, _LINEAGE),
            "force": "force" in request.query_params,
        }
        if _is_json(request):
            async with self._bodies.whole(request, MAX_JSON_BYTES) as text:
                saved = await self._client.states.save_json(name, text, **said)
        else:
            async with self._bodies.upload(request, None) as body:
                saved = await self._client.states.save_from(name, body, **said)
        return json_answer(saved, 201, {"ETag": etag_of(saved.state_hash)})

    async def append(self, request: Request) -> Response:
        """``POST /command/{name}``: 200; 412 where ``If-Match`` is not the last command."""
        name = self._name_of(request)
        expected = _expected_index(Preconditions.of(request.headers))
        body = await self._bodies.message(request)
        try:
            one = _to_append(request, body, expected)
            reply, _ = await self._client.states.appends.append(name, one, ordered=False)
        except ConflictError as error:
            if expected == "any" or error.index is None:
                raise
            headers = {"ETag": f'"{error.index}"'}
            raise HttpError(412, "conflict", error.detail, headers) from error
        position = Position(index=reply.index, hlc=reply.hlc)
        return json_answer(position, 200, {"ETag": f'"{reply.index}"'} | _named(reply.lineage))

    async def log(self, request: Request) -> Response:
        """``GET /log/{name}``: a page of commands, or all of them and those to come as events."""
        name = self._name_of(request)
        asked = given(request, _FROM, _FOLLOW, LIMIT)
        start, lineage = asked.get("from", 1), _header(request, _LINEAGE)
        states = self._client.states
        if "follow" not in asked and EVENT_STREAM not in request.headers.get("accept", ""):
            page = await states.page(name, start, asked.get("limit", 1000), lineage=lineage)
            return json_answer(page, 200, _named(page.lineage))
        if (last := _header(request, _LAST_EVENT)) is not None:
            start, lineage = _behind(last, lineage)
        # It is there: else that is said at once.
        lineage = (await states.page(name, start, 1, lineage=lineage)).lineage
        events = _events(self._client, ReadLog(name, lineage), start)
        return events_answer(request, events, self._readers)

    def _name_of(self, request: Request) -> str:
        if "name" in request.path_params:
            return check_blob_name(rest_of_path(request, 1))
        if self._only is None:
            raise NotFoundError("no state is configured for this path: name one in it")
        return self._only

    def scope_below(self, root: str) -> Callable[[Request], str]:
        """The canonical path of the state of a request, or of its log: below ``root``."""

        def scope(request: Request) -> str:
            if self._only is None and "name" not in request.path_params:
                return root
            return f"{root}/{self._name_of(request)}"

        return scope

    def _content(self, name: str, record: LoadedState) -> HttpContent:
        is_json = record.kind == "json"
        return HttpContent(
            source=blob_source(self._client, record.digest),
            size=record.size,
            media_type=JSON_TYPE if is_json else "application/octet-stream",
            present=Representation(etag_of(record.state_hash), parse_time(record.at)),
            name=(name.rpartition("/")[2] or name) + (".json" if is_json else ""),
            cache=REVALIDATE,
            digest=record.digest,
            headers={
                BLOB_LAST_APPLIED_INDEX: str(record.last_applied_index),
                BLOB_LAST_APPLIED_HLC: record.last_applied_hlc,
            }
            | _named(record.lineage),
        )

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``: with a name in the path, and for the one that is configured."""
        named = [*_of_state(self, "/state/{name:any}"), *_of_log(self, "{name:any}")]
        return (
            reading(
                path="/states",
                summary="A page of states.",
                handle=self.names,
                scope=lambda request: f"/state/{request.query_params.get('prefix', '')}",
                query=(_PREFIX, LIMIT, CURSOR),
                answers={200: HttpAnswer(about="A page.", message=StatePage)},
            ),
            *named,
            *_of_state(self, "/state"),
            _appending(self, "/command"),
        )


def _only_paging(asked: dict[str, Any]) -> dict[str, Any]:
    if asked.keys() - {"limit", "cursor"}:
        raise InvalidError("saves are listed, or one of them is asked for")
    return asked


def _header(request: Request, parameter: Parameter) -> Any:
    text = request.headers.get(parameter.name)
    return None if text is None else converted(parameter, text)


def _is_json(request: Request) -> bool:
    """Whether the body is JSON: it is, unless it is said to be something else."""
    said = request.headers.get("content-type", JSON_TYPE).partition(";")[0].strip().lower()
    return said in {JSON_TYPE, "application/x-www-form-urlencoded"} or said.endswith("+json")


def _expected_index(conditions: Preconditions) -> ExpectedIndex:
    """The index of the last command that a request insists on. Raises InvalidError, HttpError."""
    if conditions.if_unmodified_since is not None:
        raise InvalidError("a log has no time of change")
    if conditions.if_none_match is not None:
        if not conditions.wants_absent or conditions.if_match is not None:
            raise InvalidError("If-None-Match is * for a log: there must be none yet")
        return "none"
    if conditions.if_match is None:
        return "any"
    tags = conditions.if_match
    digits = tags[0].strip('"') if len(tags) == 1 else ""
    if not (digits.isascii() and digits.isdecimal()):
        detail = 'of a log If-Match is the index of its last command: "17"'
        raise precondition_failed(detail)
    return int(converted(_INDEX, digits))


def _to_append(request: Request, body: bytes, expected: ExpectedIndex) -> ToAppend:
    """Raises InvalidError of what is to be JSON and is none."""
    hlc, lineage = _header(request, _HLC), _header(request, _LINEAGE)
    if not _is_json(request):
        return to_append(body, expected_index=expected, lineage=lineage, hlc=hlc)
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"a command is JSON: {error}") from error
    return ToAppend([body], expected_index=expected, lineage=lineage, hlc=hlc)


def _named(lineage: str | None) -> dict[str, str]:
    """The headers of an answer that tell which log it is about."""
    return {} if lineage is None else {BLOB_LINEAGE: lineage}


def _behind(event_id: str, lineage: str | None) -> tuple[int, str | None]:
    """The command behind an event, and the lineage of its log. Raises InvalidError."""
    index, at, said = event_id.partition("@")
    return int(index) + 1, converted(_LINEAGE, said) if at else lineage


async def _events(client: Client, log: ReadLog, start: int) -> AsyncGenerator[Sequence[bytes]]:
    async with aclosing(followed(client.requester, log, start)) as batches:
        async for commands in batches:
            at = "" if log.lineage is None else f"@{log.lineage}"
            yield [event("command", _told(one), f"{one.index}{at}") for one in commands]


def _told(command: LogCommand) -> dict[str, Any]:
    told = {"index": command.index, "hlc": command.hlc}
    if isinstance(command.command, bytes):
        return {**told, "bytes": base64.b64encode(command.command).decode()}
    return {**told, "command": command.command}


def _of_state(of: StateRoutes, path: str) -> tuple[HttpRoute, ...]:
    return (
        reading(
            path=path,
            summary="Read a saved state.",
            handle=of.read,
            scope=of.scope_below("/state"),
            query=(_INDEX, _TIME, _HASH, _SAVES, LIMIT, CURSOR),
            headers=CONTENT_HEADERS,
            answers={
                **CONTENT,
                200: HttpAnswer(about="The state, or a page.", message=SavePage, has_bytes=True),
            },
        ),
        HttpRoute(
            method="POST",
            path=path,
            verb="write",
            summary="Save a state.",
            handle=of.save,
            scope=of.scope_below("/state"),
            query=(_FORCE,),
            headers=(CONTENT_TYPE, _APPLIED, _APPLIED_HLC, _LINEAGE),
            body=BYTES,
            answers={
                201: HttpAnswer(about="It is saved.", message=Saved),
                404: ABSENT,
                409: HttpAnswer(about="A newer one is saved, or the log is another."),
                507: HttpAnswer(about="The store is full."),
            },
        ),
    )


def _of_log(of: StateRoutes, name: str) -> tuple[HttpRoute, ...]:
    return (
        _appending(of, f"/command/{name}"),
        reading(
            path=f"/log/{name}",
            summary="Read the commands of a log, or follow it.",
            handle=of.log,
            scope=of.scope_below("/log"),
            query=(_FROM, _FOLLOW, LIMIT),
            headers=(_LINEAGE, _LAST_EVENT),
            answers={
                200: HttpAnswer(about="A page, or events.", message=LogPage | EVENTS),
                404: HttpAnswer(about="There is no such command any more, or no log."),
                409: HttpAnswer(about="The log is another."),
            },
        ),
    )


def _appending(of: StateRoutes, path: str) -> HttpRoute:
    return HttpRoute(
        method="POST",
        path=path,
        verb="write",
        summary="Append a command to a log.",
        handle=of.append,
        scope=of.scope_below("/command"),
        headers=(CONTENT_TYPE, _HLC, _LINEAGE, IF_MATCH, IF_NONE_MATCH),
        body=BYTES,
        answers={
            200: HttpAnswer(about="It is in the log.", message=Position),
            404: ABSENT,
            409: HttpAnswer(about="Another writer was first, or the log is another."),
            412: HttpAnswer(about="The last command is another."),
            507: HttpAnswer(about="The store is full."),
        },
    )
