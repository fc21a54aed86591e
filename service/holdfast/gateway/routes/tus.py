"""``/uploads``: resumable uploads, as tus 1.0 has them (https://tus.io), of blobs and named blobs.

An upload is one of the pool's, so any gateway goes on with it, from the exact byte. Its maker is
told a URL with a secret in its query, which is kept in the upload's note, and in no log.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from holdfast.client.puts.opened_upload import OpenedUpload, look
from holdfast.client.puts.upload import Uploaded, uploaded_of
from holdfast.domain.blob_names import check_blob_name
from holdfast.domain.limits import MAX_BLOB_BYTES, MIB
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.gateway.content.conditions import etag_of
from holdfast.gateway.content.digests import repr_digest
from holdfast.gateway.http_route import BYTES, HttpAnswer, HttpRoute, Parameter
from holdfast.gateway.parameters import given
from holdfast.gateway.problems import CHECKSUM_MISMATCH, HttpError, problem
from holdfast.protocol.blobs import (
    ABORT_UPLOAD,
    DEFAULT_TYPE,
    OPEN_UPLOAD,
    AbortUpload,
    OpenUpload,
    UploadState,
)
from holdfast.protocol.message import WireType, WireUpload
from holdfast.protocol.names import OPEN_NAME, OpenName

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from holdfast.client import Client
    from holdfast.gateway.content.bodies import Bodies
    from holdfast.gateway.http_route import Handle

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,checksum,expiration,termination"
OFFSET_TYPE: Final = "application/offset+octet-stream"
MAX_METADATA_CHARS: Final = 3072
MAX_CHECKED_BYTES: Final = 8 * MIB
"""Of a body with a checksum: nothing of it is stored before all of it was compared."""

_ALGORITHMS: Final = ("sha1", "sha256", "md5")
_ROOT: Final = "/uploads"
_ONE: Final = "/uploads/{upload}"

_NAME: Final = Parameter(name="name", about="The name that the blob is to have.")
_REPLACE: Final = Parameter(name="replace", about="The name has a blob, which goes.", kind=bool)
_SECRET: Final = Parameter(name="secret", about="As in the Location of the upload.")
_RESUMABLE: Final = Parameter(name="Tus-Resumable", about="1.0.0", required=True)
_LENGTH: Final = Parameter(name="Upload-Length", about="Bytes in all.", kind=int, required=True)
_METADATA: Final = Parameter(name="Upload-Metadata", about="Told again; filetype is the type.")
_OFFSET: Final = Parameter(name="Upload-Offset", about="Bytes that are held.", kind=int)
_CHECKSUM: Final = Parameter(name="Upload-Checksum", about="Algorithm and base64 of the body's.")


class UploadNotice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of an upload's note."""

    secret: str
    metadata: str = ""


class TusRoutes:
    """Resumable uploads over HTTP."""

    def __init__(
        self, client: Client, bodies: Bodies, clock: Callable[[], datetime], base: str = ""
    ) -> None:
        """``bodies`` are those of the whole gateway; ``base`` is a path in front of its own."""
        self._client = client
        self._bodies = bodies
        self._clock = clock
        self._base = base

    async def options(self, request: Request) -> Response:
        """``OPTIONS``: what is offered."""
        given(request, _NAME, _REPLACE, _SECRET)
        headers = {
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(MAX_BLOB_BYTES),
            "Tus-Checksum-Algorithm": ",".join(_ALGORITHMS),
        }
        return Response(status_code=204, headers=headers)

    async def create(self, request: Request) -> Response:
        """``POST /uploads``: 201 and where the upload is. The body has its first bytes, if any."""
        length = _number(request, _LENGTH.name)
        if length > MAX_BLOB_BYTES:
            raise HttpError(413, "too_large", f"a blob has at most {MAX_BLOB_BYTES} bytes")
        metadata = request.headers.get(_METADATA.name, "")
        notice = UploadNotice(secret=secrets.token_hex(16), metadata=metadata)
        state = await self._open(request, length, _type_in(metadata), notice)
        upload = OpenedUpload(self._client.requester, state)
        held: OpenedUpload | Uploaded = upload
        if request.headers.get("content-type") == OFFSET_TYPE:
            held = await self._receive(request, upload, length)
        elif length == 0:
            held = await upload.end()
        headers = {
            "Location": f"{self._base}{_ROOT}/{upload.id}?{_SECRET.name}={notice.secret}",
            **self._told(state, held),
        }
        return Response(status_code=201, headers=headers)

    async def head(self, request: Request) -> Response:
        """``HEAD``: how many bytes are held; all of them only once they are a blob."""
        state, notice = await self._look(request)
        found = await self._found(state)
        length = found.size if isinstance(found, Uploaded) else state.length
        headers = {
            "Upload-Length": str(length),
            "Cache-Control": "no-store",
            **self._told(state, found),
        }
        if notice.metadata:
            headers["Upload-Metadata"] = notice.metadata
        return Response(status_code=200, headers=headers)

    async def patch(self, request: Request) -> Response:
        """``PATCH``: the bytes from the offset on; 409 where they do not go on there."""
        if request.headers.get("content-type") != OFFSET_TYPE:
            raise HttpError(415, "invalid", f"the body of a PATCH is {OFFSET_TYPE}")
        wanted = _number(request, _OFFSET.name)
        state, _ = await self._look(request)
        found = await self._found(state)
        if wanted != found.offset:
            raise _elsewhere(found.offset)
        if isinstance(found, OpenedUpload):
            found = await self._receive(request, found, state.length or 0)
        return Response(status_code=204, headers=self._told(state, found))

    async def delete(self, request: Request) -> Response:
        """``DELETE``: give it up; 404 where it has come to its blob."""
        state, _ = await self._look(request)
        if state.upload is None:
            raise NotFoundError(_GONE)
        await self._client.requester.ask(ABORT_UPLOAD, AbortUpload(upload=state.upload))
        return Response(status_code=204)

    # --- an upload ---

    async def _open(
        self, request: Request, length: int, media_type: str, notice: UploadNotice
    ) -> UploadState:
        note = msgspec.json.encode(notice).decode()
        asked = given(request, _NAME, _REPLACE)
        if "name" not in asked:
            opening = OpenUpload(size=length, type=media_type, note=note)
            return await self._client.requester.ask(OPEN_UPLOAD, opening)
        naming = OpenName(
            name=check_blob_name(asked["name"]),
            mode="replace" if asked.get("replace") else "create",
            size=length,
            type=media_type,
            note=note,
        )
        return await self._client.requester.ask(OPEN_NAME, naming)

    async def _look(self, request: Request) -> tuple[UploadState, UploadNotice]:
        """The upload's state in the pool. Raises NotFoundError, also of a wrong secret."""
        secret: str = given(request, _SECRET).get(_SECRET.name, "")
        try:
            id_ = msgspec.convert(request.path_params["upload"], WireUpload)
            state = await look(self._client.requester, id_)
            notice = msgspec.json.decode(state.note or "", type=UploadNotice)
        except msgspec.MsgspecError as error:
            raise NotFoundError(_GONE) from error
        if not hmac.compare_digest(notice.secret.encode(), secret.encode()):
            raise NotFoundError(_GONE)
        return state, notice

    async def _found(self, state: UploadState) -> OpenedUpload | Uploaded:
        """The upload, or its blob: one that holds all its bytes is ended, for nobody else will.

        Raises what the workers answered.
        """
        found = uploaded_of(state) or await OpenedUpload.find(self._client.requester, state)
        if isinstance(found, OpenedUpload) and found.offset == state.length:
            return await found.end()
        return found

    async def _receive(
        self, request: Request, upload: OpenedUpload, length: int
    ) -> OpenedUpload | Uploaded:
        """Store the body, as far as it comes; the blob where that was the end of it."""
        room = length - upload.offset
        if int(request.headers.get("content-length", 0)) > room:
            raise _too_long(length)
        async with self._bodies.upload(request, None) as body:
            incoming = _Incoming(body, room)
            if _CHECKSUM.name in request.headers:
                whole = await _checked(incoming, request.headers[_CHECKSUM.name])
                await upload.send(_once(whole))
            else:
                await upload.send(incoming.blocks())
        if incoming.failure is not None:
            raise incoming.failure
        return await upload.end() if upload.offset == length else upload

    def _told(self, state: UploadState, held: OpenedUpload | Uploaded) -> dict[str, str]:
        headers = {"Upload-Offset": str(held.offset)}
        if isinstance(held, Uploaded):
            headers["Content-Location"] = f"{self._base}/blobs/{held.digest}"
            headers["ETag"] = etag_of(held.digest)
            headers["Repr-Digest"] = repr_digest(held.digest)
        elif state.lease_seconds is not None:
            expires = self._clock() + timedelta(seconds=state.lease_seconds)
            headers["Upload-Expires"] = format_datetime(expires, usegmt=True)
        return headers

    def routes(self) -> tuple[HttpRoute, ...]:
        """See ``HttpRoute``."""
        of_one = partial(HttpRoute, path=_ONE, verb="write", query=(_SECRET,))
        return (
            *(_offering(path, _as_tus(self.options)) for path in (_ROOT, _ONE)),
            HttpRoute(
                method="POST",
                path=_ROOT,
                verb="write",
                summary="Begin a resumable upload.",
                handle=_versioned(self.create),
                scope=_scope_of_new,
                query=(_NAME, _REPLACE),
                headers=(_RESUMABLE, _LENGTH, _METADATA, _CHECKSUM),
                body=BYTES,
                answers={
                    201: HttpAnswer(about="It is at the Location."),
                    409: HttpAnswer(about="The name is taken."),
                    **_FAILURES,
                },
            ),
            of_one(
                method="HEAD",
                summary="The bytes held.",
                handle=_versioned(self.head),
                headers=(_RESUMABLE,),
                answers={
                    200: HttpAnswer(about="So many."),
                    409: HttpAnswer(about="The name is taken."),
                    **_FAILURES,
                },
            ),
            of_one(
                method="PATCH",
                summary="Send the bytes from an offset on.",
                handle=_versioned(self.patch),
                headers=(_RESUMABLE, _OFFSET, _CHECKSUM),
                body=BYTES,
                answers={
                    204: HttpAnswer(about="They are held."),
                    409: HttpAnswer(about="Another offset is held."),
                    415: HttpAnswer(about="The body is of another type."),
                    CHECKSUM_MISMATCH: HttpAnswer(about="The body has another checksum."),
                    **_FAILURES,
                },
            ),
            of_one(
                method="DELETE",
                summary="Give an upload up.",
                handle=_versioned(self.delete),
                headers=(_RESUMABLE,),
                answers={204: HttpAnswer(about="It is gone."), **_FAILURES},
            ),
        )


class _Incoming:
    """A body of at most ``room`` bytes. The failure is kept: bytes before it are stored."""

    def __init__(self, body: AsyncGenerator[bytes], room: int) -> None:
        self._body = body
        self._room = room
        self.failure: Exception | None = None

    async def blocks(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._body:
                self._room -= len(block)
                if self._room < 0:
                    self.failure = _too_long(None)
                    return
                yield block
        except (ClientDisconnect, HttpError) as error:
            self.failure = error


async def _checked(incoming: _Incoming, said: str) -> bytes:
    """All of a body that has the checksum ``said``; nothing where it did not come.

    Raises HttpError.
    """
    algorithm, _, expected = said.strip().partition(" ")
    if algorithm not in _ALGORITHMS:
        raise HttpError(400, "invalid", f"a checksum is one of {', '.join(_ALGORITHMS)}")
    whole = bytearray()
    async for block in incoming.blocks():
        whole += block
        if len(whole) > MAX_CHECKED_BYTES:
            detail = f"of at most {MAX_CHECKED_BYTES} bytes a checksum is compared"
            raise HttpError(413, "too_large", detail)
    if incoming.failure is not None:
        return b""
    found = hashlib.new(algorithm, whole, usedforsecurity=False).digest()
    if not hmac.compare_digest(base64.b64encode(found).decode(), expected.strip()):
        raise HttpError(CHECKSUM_MISMATCH, "invalid", "the body has another checksum")
    return bytes(whole)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


def _versioned(handle: Handle) -> Handle:
    """``handle`` for requests of this version of tus, and no other."""

    async def versioned(request: Request) -> Response:
        if request.headers.get(_RESUMABLE.name) != VERSION:
            raise HttpError(412, "invalid", f"this is tus {VERSION}", {"Tus-Version": VERSION})
        return await handle(request)

    return _as_tus(versioned)


def _as_tus(handle: Handle) -> Handle:
    """``handle``, whose answers all say which tus they are of."""

    async def answered(request: Request) -> Response:
        try:
            answer = await handle(request)
        except (HoldfastError, HttpError) as error:
            answer = problem(error)
        answer.headers[_RESUMABLE.name] = VERSION
        return answer

    return answered


def _offering(path: str, handle: Handle) -> HttpRoute:
    return HttpRoute(
        method="OPTIONS",
        path=path,
        verb="open",
        summary="Offered parts of tus.",
        handle=handle,
        query=(_NAME, _REPLACE) if path == _ROOT else (_SECRET,),
        answers={204: HttpAnswer(about="The headers say it.")},
    )


def _scope_of_new(request: Request) -> str:
    """A right to store the blob begins the upload; to go on takes one to ``/uploads/``."""
    name = request.query_params.get("name")
    return "/blobs" if name is None else f"/store/{name}"


def _type_in(metadata: str) -> str:
    """The ``filetype`` of ``metadata``. Raises HttpError (400)."""
    if len(metadata) > MAX_METADATA_CHARS:
        raise HttpError(400, "too_large", f"metadata have at most {MAX_METADATA_CHARS} characters")
    for pair in metadata.split(",") if metadata else ():
        key, _, text = pair.strip().partition(" ")
        try:
            value = base64.b64decode(text, validate=True).decode()
            if key == "filetype" and value:
                return msgspec.convert(value, WireType)
        except (binascii.Error, UnicodeDecodeError, msgspec.ValidationError) as error:
            raise HttpError(400, "invalid", f"this is not metadata: {key[:64]!a}") from error
    return DEFAULT_TYPE


def _number(request: Request, name: str) -> int:
    """The header ``name``. Raises HttpError (400)."""
    text = request.headers.get(name, "")
    if _NUMBER.fullmatch(text) is None:
        raise HttpError(400, "invalid", f"{name} is a number of bytes")
    return int(text)


_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_GONE: Final = "there is no such upload, or it was given up"
_FAILURES: Final = {
    404: HttpAnswer(about="There is no such upload."),
    412: HttpAnswer(about="This is another version of tus."),
    413: HttpAnswer(about="The bytes are too many."),
    507: HttpAnswer(about="The store is full."),
}


def _elsewhere(offset: int) -> HttpError:
    detail = f"the upload holds {offset} bytes: go on there"
    return HttpError(409, "conflict", detail, {"Upload-Offset": str(offset)})


def _too_long(length: int | None) -> HttpError:
    detail = "the upload has less bytes" if length is None else f"the upload has {length} bytes"
    return HttpError(413, "too_large", detail)
