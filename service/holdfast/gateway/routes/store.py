"""``/store``: blobs by name, with the status codes that users of named blobs know."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from holdfast.domain.blob_names import check_blob_name, quote_labels, unquote_labels
from holdfast.errors import ConflictError, InvalidError, NotFoundError
from holdfast.gateway.content.answers import REVALIDATE, ContentRoutes, HttpContent, content_answer
from holdfast.gateway.content.conditions import (
    Preconditions,
    Representation,
    etag_of,
    precondition_failed,
)
from holdfast.gateway.content.digests import expected_digest, repr_digest
from holdfast.gateway.content.sources import blob_source
from holdfast.gateway.http_route import BYTES, CONTENT, HttpAnswer, HttpRoute, Parameter, reading
from holdfast.gateway.parameters import (
    CONTENT_DIGEST,
    CONTENT_TYPE,
    CURSOR,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    IF_RANGE,
    IF_UNMODIFIED_SINCE,
    LIMIT,
    RANGE,
    REPR_DIGEST,
    given,
    labels_of,
    media_type_of,
)
from holdfast.gateway.paths import name_url, rest_of_path
from holdfast.gateway.problems import json_answer
from holdfast.protocol.headers import BLOB_EXPIRES, BLOB_LABELS, BLOB_VERSION
from holdfast.protocol.message import WireVersion
from holdfast.protocol.names import (
    GET_HISTORY,
    LIST_NAMES,
    GetHistory,
    ListNames,
    NameHistory,
    NamePage,
    NameStored,
)
from holdfast.protocol.times import parse_time, told_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.requests import Request

    from holdfast.gateway.http_route import Handle
    from holdfast.protocol.blobs import BlobStat

_ROOT: Final = "/store"
_NAMED: Final = "/store/{name:any}"
_NAME: Final = Parameter(name="name", about="Any name, also one that no path can carry.")
_VERSION: Final = Parameter(name="version", about="A version that is kept.", kind=WireVersion)
_HISTORY: Final = Parameter(name="history", about="The history of the name, instead.")
_VERSIONS: Final = Parameter(name="versions", about="A page of its versions, instead.")
_PREFIX: Final = Parameter(name="prefix", about="Only names that start so.")
_DELIMITER: Final = Parameter(name="delimiter", about="Names that have it behind come once.")
_START_AFTER: Final = Parameter(name="start_after", about="Only names behind this one.")
_LABEL: Final = Parameter(name="label", about="key=value that a name must have.", many=True)
_LABELS: Final = Parameter(name=BLOB_LABELS, about="key=value joined by &, percent-encoded.")
_EXPIRES: Final = Parameter(name=BLOB_EXPIRES, about="When the name is to go (RFC 3339).")

_LISTING: Final = (_PREFIX, _DELIMITER, _START_AFTER, _LABEL)
_OF_ONE: Final = (_VERSION, _HISTORY, _VERSIONS)
_PAGING: Final = (LIMIT, CURSOR)
_CONDITIONS: Final = (IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE)
_WRITING: Final = (CONTENT_TYPE, REPR_DIGEST, CONTENT_DIGEST, _LABELS, _EXPIRES, *_CONDITIONS)


class StoreRoutes(ContentRoutes):
    """Named blobs over HTTP."""

    async def create(self, request: Request) -> Response:
        """``POST``: 201, or 409 where the name is taken."""
        name = _name_of(request)
        version = await self._expected(request, name)
        if version:
            raise ConflictError("the name is taken", version=version)
        return await self._create(request, name, is_conditional=version is not None)

    async def replace(self, request: Request) -> Response:
        """``PUT``: 200, or 404 where there is no such name; with ``If-None-Match: *``, as POST."""
        name = _name_of(request)
        if Preconditions.of(request.headers).wants_absent:
            await self._expected(request, name)
            return await self._create(request, name, is_conditional=True)
        version = await self._expected(request, name)
        async with _first(is_conditional=version is not None), self._body(request) as body:
            stored = await self._client.names.replace(
                name, body, **_said(request), if_version=version or None
            )
        return json_answer(stored, 200, _headers_of(stored))

    async def delete(self, request: Request) -> Response:
        """``DELETE``: 204, or 404 where there is no such name."""
        name = _name_of(request)
        version = await self._expected(request, name)
        async with _first(is_conditional=version is not None):
            deleted = await self._client.names.delete(name, if_version=version or None)
        if not deleted:
            raise NotFoundError(_NONE)
        return Response(status_code=204)

    async def get(self, request: Request) -> Response:
        """``GET`` and ``HEAD``: the blob, or what is known of the name."""
        name = _name_of(request)
        asked = given(request, *_OF_ONE, *_PAGING)
        if "history" in asked or "versions" in asked:
            return await self._history(name, asked)
        if asked.keys() & {"limit", "cursor"}:
            raise InvalidError("only lists have pages")
        stat = await self._client.names.stat(name, version=asked.get("version"))
        return await content_answer(request, self._content(name, stat), self._readers)

    async def get_or_list(self, request: Request) -> Response:
        """``GET /store``: of a ``name`` what ``get`` gives, else a page of names."""
        if "name" in request.query_params:
            if request.query_params.keys() & {one.name for one in _LISTING}:
                raise InvalidError("a name is asked for, or a list of names")
            return await self.get(request)
        if request.query_params.keys() & {one.name for one in _OF_ONE}:
            raise InvalidError("versions and history are those of a name")
        asked = given(request, *_LISTING, *_PAGING)
        labels = labels_of(asked.pop("label", ()))
        page = await self._client.requester.ask(LIST_NAMES, ListNames(labels=labels, **asked))
        return json_answer(page)

    async def _create(self, request: Request, name: str, *, is_conditional: bool) -> Response:
        async with _first(is_conditional=is_conditional), self._body(request) as body:
            stored = await self._client.names.create(name, body, **_said(request))
        return json_answer(stored, 201, _headers_of(stored))

    def _body(self, request: Request) -> AbstractAsyncContextManager[AsyncGenerator[bytes]]:
        """The body, which is compared here: by a digest alone nobody gets a blob into a name."""
        return self._bodies.upload(request, expected_digest(request.headers))

    async def _expected(self, request: Request, name: str) -> int | None:
        """The version that a change may replace, 0 where there is none; None: any.

        Raises HttpError (412).
        """
        conditions = Preconditions.of(request.headers)
        if conditions.is_change_free:
            return None
        try:
            stat = await self._client.names.stat(name)
        except NotFoundError:
            conditions.check_change(None)
            return 0
        conditions.check_change(_present(stat))
        return stat.version

    async def _history(self, name: str, asked: dict[str, Any]) -> Response:
        if not asked.keys().isdisjoint({"version"}) or {"history", "versions"} <= asked.keys():
            raise InvalidError("history, versions or a version is asked for: one of them")
        paging = {key: asked[key] for key in ("limit", "cursor") if key in asked}
        found = await self._client.requester.ask(GET_HISTORY, GetHistory(name=name, **paging))
        return json_answer(found)

    def _content(self, name: str, stat: BlobStat) -> HttpContent:
        headers = {"Repr-Digest": repr_digest(stat.digest), BLOB_VERSION: str(stat.version or 0)}
        if stat.labels:
            headers[BLOB_LABELS] = quote_labels(stat.labels)
        if stat.expires_at is not None:
            headers[BLOB_EXPIRES] = stat.expires_at
        return HttpContent(
            source=blob_source(self._client, stat.digest),
            size=stat.size,
            media_type=stat.type,
            present=_present(stat),
            name=name.rpartition("/")[2] or name,
            cache=REVALIDATE,
            digest=stat.digest,
            headers=headers,
        )

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``: each by path, and by query for names that no path can carry."""
        return (
            _reading(_NAMED, self.get, (), _scope_of_name),
            _reading(_ROOT, self.get_or_list, (_NAME, *_LISTING), _scope_of_list),
            *_changing(_NAMED, (), self),
            *_changing(_ROOT, (_NAME,), self),
        )


_NONE: Final = "there is no blob of that name"


def _name_of(request: Request) -> str:
    """The name that ``request`` is about. Raises HttpError (400), InvalidError."""
    if "name" in request.path_params:
        return check_blob_name(rest_of_path(request, 1))
    name: str | None = given(request, _NAME).get("name")
    if name is None:
        raise InvalidError("which name? /store/NAME or /store?name=")
    return check_blob_name(name)


def _scope_of_name(request: Request) -> str:
    return f"{_ROOT}/{_name_of(request)}"


def _scope_of_list(request: Request) -> str:
    """The scope of a name, or for a list that of its prefix."""
    if "name" in request.query_params:
        return _scope_of_name(request)
    return f"{_ROOT}/{request.query_params.get('prefix', '')}"


def _said(request: Request) -> dict[str, Any]:
    """Type, labels and expiry that the headers say. Raises InvalidError."""
    return {
        "type": media_type_of(request),
        "labels": unquote_labels(request.headers.get(BLOB_LABELS, "")),
        "expires_at": told_time(request.headers.get(BLOB_EXPIRES), BLOB_EXPIRES),
    }


def _present(stat: BlobStat) -> Representation:
    return Representation(etag_of(stat.digest), parse_time(stat.modified_at or ""))


def _headers_of(stored: NameStored) -> dict[str, str]:
    return {
        "Location": name_url(stored.name),
        "ETag": etag_of(stored.digest),
        "Repr-Digest": repr_digest(stored.digest),
        BLOB_VERSION: str(stored.version),
    }


@asynccontextmanager
async def _first(*, is_conditional: bool) -> AsyncGenerator[None]:
    """For a change: where another writer was first, its conditions do not hold any more."""
    try:
        yield
    except ConflictError as error:
        if is_conditional and error.version is not None:
            raise precondition_failed(error.detail) from error
        raise


def _reading(
    path: str, handle: Handle, query: tuple[Parameter, ...], scope: Callable[[Request], str]
) -> HttpRoute:
    page = NamePage | NameHistory
    return reading(
        path=path,
        summary="Read the blob of a name, or a list.",
        handle=handle,
        scope=scope,
        query=(*query, *_OF_ONE, *_PAGING),
        headers=(RANGE, IF_RANGE, IF_MODIFIED_SINCE, *_CONDITIONS),
        answers={
            **CONTENT,
            206: HttpAnswer(about="Ranges of the blob.", message=BYTES),
            200: HttpAnswer(
                about="The blob; or the page asked for of names.", message=page, has_bytes=True
            ),
        },
    )


def _changing(path: str, query: tuple[Parameter, ...], store: StoreRoutes) -> tuple[HttpRoute, ...]:
    stored = HttpAnswer(about="The name has these bytes.", message=NameStored)
    failed = {
        412: HttpAnswer(about="A condition does not hold."),
        413: HttpAnswer(about="The bytes are too many."),
        507: HttpAnswer(about="The store is full."),
    }
    change = partial(HttpRoute, path=path, verb="write", scope=_scope_of_name, query=query)
    return (
        change(
            method="POST",
            summary="Store bytes under a new name.",
            handle=store.create,
            headers=_WRITING,
            body=BYTES,
            answers={201: stored, 409: HttpAnswer(about="The name is taken."), **failed},
        ),
        change(
            method="PUT",
            summary="Store bytes under a name that there is.",
            handle=store.replace,
            headers=_WRITING,
            body=BYTES,
            answers={
                200: stored,
                201: HttpAnswer(about="It is new, as was asked for.", message=NameStored),
                404: HttpAnswer(about="There is no such name."),
                409: HttpAnswer(about="Another writer was first."),
                **failed,
            },
        ),
        change(
            method="DELETE",
            summary="Take the blob from a name.",
            handle=store.delete,
            headers=_CONDITIONS,
            answers={
                204: HttpAnswer(about="It has none any more."),
                404: HttpAnswer(about="It had none."),
                409: HttpAnswer(about="Another writer was first."),
                412: failed[412],
            },
        ),
    )
