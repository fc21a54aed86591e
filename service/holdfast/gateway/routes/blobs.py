"""``/blobs``: bytes by their digest."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest, parse_digest
from holdfast.errors import NotFoundError
from holdfast.gateway.content.answers import (
    IMMUTABLE,
    NOTHING,
    ContentRoutes,
    HttpContent,
    content_answer,
)
from holdfast.gateway.content.conditions import (
    Preconditions,
    Representation,
    etag_of,
    precondition_failed,
)
from holdfast.gateway.content.digests import expected_digest, repr_digest
from holdfast.gateway.content.sources import SMALL_BYTES, ask_span, blob_source
from holdfast.gateway.http_route import BYTES, CONTENT, HttpAnswer, HttpRoute, reading
from holdfast.gateway.parameters import (
    CONTENT_DIGEST,
    CONTENT_HEADERS,
    CONTENT_TYPE,
    IF_NONE_MATCH,
    REPR_DIGEST,
    media_type_of,
)
from holdfast.gateway.problems import json_answer
from holdfast.protocol.blobs import GET_BLOB, BlobStored, GetBlob

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


_PATH: Final = "/blobs/{digest}"
_PUT_ANSWERS: Final = {
    200: HttpAnswer(about="It was stored already.", message=BlobStored),
    201: HttpAnswer(about="It is stored.", message=BlobStored),
    400: HttpAnswer(about="The bytes have another digest."),
    412: HttpAnswer(about="A condition does not hold."),
    413: HttpAnswer(about="They are too many."),
    507: HttpAnswer(about="The store is full."),
}
_PUT_HEADERS: Final = (CONTENT_TYPE, REPR_DIGEST, CONTENT_DIGEST, IF_NONE_MATCH)


class BlobRoutes(ContentRoutes):
    """Blobs over HTTP."""

    async def put(self, request: Request) -> Response:
        """``PUT /blobs``."""
        return await self._put(request, None)

    async def put_as(self, request: Request) -> Response:
        """``PUT /blobs/{digest}``."""
        return await self._put(request, parse_digest(request.path_params["digest"]))

    async def get(self, request: Request) -> Response:
        """``GET`` and ``HEAD /blobs/{digest}``."""
        digest = parse_digest(request.path_params["digest"])
        if request.method == "GET" and "range" not in request.headers:
            blob = GetBlob(digest=digest)
            head, begun = await ask_span(self._client, GET_BLOB, blob, 0, SMALL_BYTES)
            content = self._content(digest, head.size, head.type, begun)
        else:
            found = await self._client.stat(digest)
            content = self._content(digest, found.size, found.type)
        return await content_answer(request, content, self._readers)

    async def _put(self, request: Request, digest: Digest | None) -> Response:
        expected = expected_digest(request.headers, digest)
        await self._check_absent(request, expected)
        async with self._bodies.upload(request, expected) as body:
            stored = await self._client.put(body, type=media_type_of(request), digest=expected)
        headers = {
            "Location": f"/blobs/{stored.digest}",
            "ETag": etag_of(stored.digest),
            "Repr-Digest": repr_digest(stored.digest),
        }
        return json_answer(stored, 201 if stored.created else 200, headers)

    async def _check_absent(self, request: Request, digest: Digest | None) -> None:
        """Raises HttpError (412): a blob can only be asked to be new, for it never changes."""
        conditions = Preconditions.of(request.headers)
        if conditions.is_change_free:
            return
        if digest is None:
            raise precondition_failed("a condition needs the digest: put to /blobs/DIGEST")
        try:
            found = await self._client.stat(digest)
        except NotFoundError:
            conditions.check_change(None)
        else:
            conditions.check_change(Representation(etag_of(found.digest)))

    def _content(
        self, digest: Digest, size: int, media_type: str, begun: memoryview = NOTHING
    ) -> HttpContent:
        return HttpContent(
            source=blob_source(self._client, digest),
            size=size,
            media_type=media_type,
            present=Representation(etag_of(digest)),
            name=digest,
            cache=IMMUTABLE,
            digest=digest,
            headers={"Repr-Digest": repr_digest(digest)},
            begun=begun,
        )

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        put = partial(
            HttpRoute,
            method="PUT",
            verb="write",
            headers=_PUT_HEADERS,
            body=BYTES,
            answers=_PUT_ANSWERS,
        )
        return (
            put(path="/blobs", summary="Store bytes.", handle=self.put),
            put(path=_PATH, summary="Store the bytes with a digest.", handle=self.put_as),
            reading(
                path=_PATH,
                summary="Read a blob, or ranges of it.",
                handle=self.get,
                headers=CONTENT_HEADERS,
                answers={**CONTENT, 404: HttpAnswer(about="It is not there.")},
            ),
        )
