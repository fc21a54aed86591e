"""``/snapshots`` and ``/restores``: lists, records, files, archives, and work that takes time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from starlette.responses import Response

from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.gateway.access import check_also
from holdfast.gateway.content.answers import IMMUTABLE, ContentRoutes, HttpContent, content_answer
from holdfast.gateway.content.conditions import Representation, etag_of
from holdfast.gateway.content.sources import SMALL_BYTES, ByteSource, archive_source, file_source
from holdfast.gateway.http_route import (
    ABSENT,
    CONTENT,
    EVENTS,
    HttpAnswer,
    HttpRoute,
    Parameter,
    reading,
)
from holdfast.gateway.parameters import CONTENT_HEADERS, CURSOR, LIMIT, given, labels_of
from holdfast.gateway.paths import path_bytes
from holdfast.gateway.problems import json_answer
from holdfast.gateway.routes.events import progress_answer
from holdfast.protocol.files import (
    DIFF_SNAPSHOTS,
    LIST_FILES,
    DiffPage,
    DiffSnapshots,
    FilePage,
    ListFiles,
)
from holdfast.protocol.snapshots import (
    CREATE_SNAPSHOT,
    LIST_SNAPSHOTS,
    RESTORE_SNAPSHOT,
    CreateSnapshot,
    ListSnapshots,
    RestoreRecord,
    RestoreSnapshot,
    SnapshotPage,
    SnapshotRecord,
)

if TYPE_CHECKING:
    from starlette.requests import Request


_ALL: Final = "/snapshots"
_ONE: Final = "/snapshots/{key}"
_RESTORE: Final = "/restores/{restore}"

_APP: Final = Parameter(name="app", about="Of this app, or of these.", many=True)
_LABEL: Final = Parameter(name="label", about="key=value that they must have.", many=True)
_STATE: Final = Parameter(name="state", about="pending, ok or failure.")
_SINCE: Final = Parameter(name="since", about="Made at this time (RFC 3339) or later.")
_UNTIL: Final = Parameter(name="until", about="Made before this time.")
_PATH: Final = Parameter(name="path", about="Entries at and below it.")
_FROM: Final = Parameter(name="from", about="The snapshot to compare with; by default its parent.")

MessageT = TypeVar("MessageT", bound=msgspec.Struct)


class SnapshotRoutes(ContentRoutes):
    """Snapshots over HTTP."""

    async def page(self, request: Request) -> Response:
        """``GET /snapshots``."""
        asked = given(request, _APP, _LABEL, _STATE, _SINCE, _UNTIL, LIMIT, CURSOR)
        apps = asked.pop("app", None)
        labels = labels_of(asked.pop("label", ()))
        of_apps = {"app": apps[0]} if apps and len(apps) == 1 else {"apps": apps}
        listing = ListSnapshots(labels=labels, **of_apps, **asked)
        return json_answer(await self._client.requester.ask(LIST_SNAPSHOTS, listing))

    async def record(self, request: Request) -> Response:
        """``GET /snapshots/{key}``."""
        return json_answer(await self._client.snapshots.get(_key_of(request)))

    async def files(self, request: Request) -> Response:
        """``GET /snapshots/{key}/files``."""
        asked = given(request, _PATH, LIMIT, CURSOR)
        listing = ListFiles(key=_key_of(request), **asked)
        return json_answer(await self._client.requester.ask(LIST_FILES, listing))

    async def file(self, request: Request) -> Response:
        """``GET`` and ``HEAD /snapshots/{key}/files/{path}``: the bytes of one file."""
        return await self.file_at(request, path_bytes(request, 3, any_character=True))

    async def file_at(self, request: Request, path: bytes) -> Response:
        """The bytes of the file at ``path`` of the snapshot that is asked for."""
        record = await self._readable(_key_of(request))
        source = file_source(self._client, record.key, path)
        name = path.rpartition(b"/")[2].decode(errors="replace")
        return await self._answer(request, record, source, name)

    async def archive(self, request: Request) -> Response:
        """``GET`` and ``HEAD /snapshots/{key}/archive``: a ``.tar.zst``."""
        record = await self._readable(_key_of(request))
        source = archive_source(self._client, record.key)
        name = f"{record.key.replace(':', '-')}.tar.zst"
        return await self._answer(request, record, source, name)

    async def diff(self, request: Request) -> Response:
        """``GET /snapshots/{key}/diff``."""
        asked = given(request, _FROM, LIMIT, CURSOR)
        key, before = _key_of(request), asked.pop("from", None)
        if before is None:
            before = (await self._client.snapshots.get(key)).parent
        if before is None:
            msg = "the snapshot has no parent: say which one to compare with, by from="
            raise InvalidError(msg)
        changes = DiffSnapshots(a=before, b=key, **asked)
        return json_answer(await self._client.requester.ask(DIFF_SNAPSHOTS, changes))

    async def create(self, request: Request) -> Response:
        """``POST /snapshots``: 202, and where to look how far it is."""
        body = await self._bodies.message(request)
        asked = _decoded(body, CreateSnapshot, wait_seconds=0.0)
        record = await self._client.requester.ask(CREATE_SNAPSHOT, asked)
        return json_answer(record, 202, {"Location": f"{_ALL}/{record.key}"})

    async def restore(self, request: Request) -> Response:
        """``POST /snapshots/{key}/restore``: 202, and where to look how far it is."""
        body = await self._bodies.message(request)
        asked = _decoded(body, RestoreSnapshot, key=_key_of(request), wait_seconds=0.0)
        await check_target(request, asked)
        record = await self._client.requester.ask(RESTORE_SNAPSHOT, asked)
        return json_answer(record, 202, {"Location": f"/restores/{record.restore}"})

    async def restore_record(self, request: Request) -> Response:
        """``GET /restores/{restore}``."""
        return json_answer(await self._client.snapshots.get_restore(_restore_of(request)))

    async def events(self, request: Request) -> Response:
        """``GET /snapshots/{key}/events``."""
        record = await self._client.snapshots.get(_key_of(request))
        return progress_answer(request, self._client, record, self._readers)

    async def restore_events(self, request: Request) -> Response:
        """``GET /restores/{restore}/events``."""
        record = await self._client.snapshots.get_restore(_restore_of(request))
        return progress_answer(request, self._client, record, self._readers)

    async def delete(self, request: Request) -> Response:
        """``DELETE /snapshots/{key}``: 204, or 404 where it was not there."""
        if not await self._client.snapshots.delete(_key_of(request)):
            raise NotFoundError("there is no such snapshot")
        return Response(status_code=204)

    async def _answer(
        self, request: Request, record: SnapshotRecord, source: ByteSource, name: str
    ) -> Response:
        """Bytes of a snapshot that are saved as ``name``."""
        is_all = request.method == "GET" and "range" not in request.headers
        head, begun = await source.ask(0, SMALL_BYTES if is_all else 0)
        content = HttpContent(
            source=source,
            size=head.size,
            media_type=head.type,
            present=Representation(etag_of(record.digest or "")),
            name=name,
            cache=IMMUTABLE,
            begun=begun,
        )
        return await content_answer(request, content, self._readers)

    async def _readable(self, key: str) -> SnapshotRecord:
        """The record of a snapshot that can be read. Raises ConflictError of another."""
        record = await self._client.snapshots.get(key)
        if record.state != "ok" or record.digest is None:
            raise ConflictError(f"the snapshot is {record.state}: it cannot be read")
        return record

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        return (
            *_listing(self),
            *_reading(self),
            *_archiving(self),
            *_restoring(self),
            *_removing(self),
        )


async def check_target(request: Request, asked: RestoreSnapshot) -> None:
    """Raises HttpError (401, 403) unless the app that ``asked`` writes into may be restored, too.

    The scope of a restore is that of its snapshot, which is all where that is of the same app.
    """
    if asked.app is not None and asked.app != asked.key.partition(":")[0]:
        await check_also(request, "admin", f"{_ALL}/{asked.app}:")


def _key_of(request: Request) -> str:
    return str(request.path_params["key"])


def _restore_of(request: Request) -> str:
    return str(request.path_params["restore"])


def _decoded(body: bytes, kind: type[MessageT], **known: Any) -> MessageT:
    """A message of the fields of ``body`` and those that are ``known``. Raises InvalidError."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
        if twice := sorted(fields.keys() & known.keys()):
            raise InvalidError(f"{twice[0]} does not belong into the body here")
        return msgspec.convert(fields | known, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidError(f"the body is JSON of {kind.__name__}: {error}") from error


_UNREADABLE: Final = HttpAnswer(about="It is pending or failed.")
_CONTENT: Final = {**CONTENT, 409: _UNREADABLE}
_PROGRESS: Final = HttpAnswer(about="Events until its end.", message=EVENTS)


def _scope_of_apps(request: Request) -> str:
    """The scope of a list: that of its app, if it is of one."""
    apps = request.query_params.getlist("app")
    return f"{_ALL}/{apps[0]}:" if len(apps) == 1 else f"{_ALL}/"


def _scopes_of_diff(request: Request) -> tuple[str, ...]:
    """The scopes of both snapshots."""
    others = request.query_params.getlist(_FROM.name)
    return request.scope["path"], *(f"{_ALL}/{key}" for key in others)


def _listing(of: SnapshotRoutes) -> tuple[HttpRoute, ...]:
    return (
        reading(
            path=_ALL,
            summary="A page of snapshots, newest first.",
            handle=of.page,
            scope=_scope_of_apps,
            query=(_APP, _LABEL, _STATE, _SINCE, _UNTIL, LIMIT, CURSOR),
            answers={200: HttpAnswer(about="A page.", message=SnapshotPage)},
        ),
        reading(
            path=_ONE,
            summary="The record of a snapshot.",
            handle=of.record,
            answers={200: HttpAnswer(about="It.", message=SnapshotRecord), 404: ABSENT},
        ),
        reading(
            path=f"{_ONE}/files",
            summary="A page of what a snapshot holds.",
            handle=of.files,
            query=(_PATH, LIMIT, CURSOR),
            answers={
                200: HttpAnswer(about="A page.", message=FilePage),
                404: ABSENT,
                409: _UNREADABLE,
            },
        ),
        reading(
            path=f"{_ONE}/diff",
            summary="A page of what changed since another snapshot.",
            handle=of.diff,
            scope=_scopes_of_diff,
            query=(_FROM, LIMIT, CURSOR),
            answers={
                200: HttpAnswer(about="A page.", message=DiffPage),
                404: ABSENT,
                409: _UNREADABLE,
            },
        ),
    )


def _reading(of: SnapshotRoutes) -> tuple[HttpRoute, ...]:
    return (
        reading(
            path=f"{_ONE}/files/{{path:any}}",
            summary="Read a file of a snapshot.",
            handle=of.file,
            headers=CONTENT_HEADERS,
            answers=_CONTENT,
        ),
        reading(
            path=f"{_ONE}/archive",
            summary="Read a snapshot as a .tar.zst.",
            handle=of.archive,
            headers=CONTENT_HEADERS,
            answers=_CONTENT,
        ),
    )


def _archiving(of: SnapshotRoutes) -> tuple[HttpRoute, ...]:
    return (
        HttpRoute(
            method="POST",
            path=_ALL,
            verb="write",
            summary="Archive the directory of an app.",
            handle=of.create,
            scope=lambda request: f"{request.scope['path']}/",
            body=CreateSnapshot,
            known=("wait_seconds",),
            answers={
                202: HttpAnswer(about="It is under way.", message=SnapshotRecord),
                404: HttpAnswer(about="No node has the app."),
                413: HttpAnswer(about="The request is too large."),
            },
        ),
        reading(
            path=f"{_ONE}/events",
            summary="A snapshot's progress, as it happens.",
            handle=of.events,
            answers={200: _PROGRESS, 404: ABSENT},
        ),
    )


def _restoring(of: SnapshotRoutes) -> tuple[HttpRoute, ...]:
    return (
        HttpRoute(
            method="POST",
            path=f"{_ONE}/restore",
            verb="admin",
            summary="Put the files of a snapshot back.",
            handle=of.restore,
            body=RestoreSnapshot,
            known=("key", "wait_seconds"),
            answers={
                202: HttpAnswer(about="It is under way.", message=RestoreRecord),
                404: ABSENT,
                409: HttpAnswer(about="The directory is there, or the snapshot is not ok."),
                413: HttpAnswer(about="The request is too large."),
            },
        ),
        reading(
            path=_RESTORE,
            summary="The record of a restore.",
            handle=of.restore_record,
            answers={200: HttpAnswer(about="It.", message=RestoreRecord), 404: ABSENT},
        ),
        reading(
            path=f"{_RESTORE}/events",
            summary="A restore's progress, as it happens.",
            handle=of.restore_events,
            answers={200: _PROGRESS, 404: ABSENT},
        ),
    )


def _removing(of: SnapshotRoutes) -> tuple[HttpRoute, ...]:
    return (
        HttpRoute(
            method="DELETE",
            path=_ONE,
            verb="write",
            summary="Forget a snapshot.",
            handle=of.delete,
            answers={204: HttpAnswer(about="It is forgotten."), 404: ABSENT},
        ),
    )
