"""Content as an answer: whole, a range, or several; or why not (RFC 9110, 13 to 15).

An answer has begun only once its first bytes are there, so that what can be said of a failure is
said. After that a failure breaks the connection: a short answer never looks whole. The last
piece of a whole blob goes out only once the digest is right.

Why: docs/decisions.md, "Who reads slowly has small answers, who reads fast has streams".
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.responses import Response

from holdfast.errors import CorruptError
from holdfast.gateway.content.conditions import (
    Preconditions,
    Representation,
    precondition_failed,
    range_applies,
)
from holdfast.gateway.content.ranges import ByteRange, UnsatisfiableError, parse_range
from holdfast.gateway.content.sources import ByteSource, read_span
from holdfast.gateway.problems import HttpError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from holdfast.client import Client
    from holdfast.client.budget import ByteBudget
    from holdfast.gateway.content.bodies import Bodies

IMMUTABLE: Final = "max-age=31536000, immutable"
REVALIDATE: Final = "no-cache"

SAFE: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
"""Headers that keep a stranger's bytes from being a page of ours in a browser."""

NOTHING: Final = memoryview(b"")
_NOTHING_YET: Final = {"type": "http.response.body", "body": b"", "more_body": True}
_SLOW_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpContent:
    """Something to be served. ``digest`` is that of all of it, where it is known.

    ``name`` is what a browser saves it as. ``begun`` are its first bytes, or all of them, if they
    are at hand.
    """

    source: ByteSource
    size: int
    media_type: str
    present: Representation
    name: str
    cache: str
    digest: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    begun: memoryview = NOTHING


@dataclass(frozen=True, slots=True)
class Readers:
    """All readers share memory to read ahead, and how long one may take nothing."""

    memory: ByteBudget
    patience_seconds: float


class ContentRoutes:
    """Routes that give bytes, and take them."""

    def __init__(self, client: Client, bodies: Bodies, readers: Readers) -> None:
        """``bodies`` and ``readers`` are those of the whole gateway."""
        self._client = client
        self._bodies = bodies
        self._readers = readers


class SlowReaderError(Exception):
    """The reader takes nothing for too long."""


async def content_answer(request: Request, content: HttpContent, readers: Readers) -> Response:
    """The answer to ``request``: 200, 206 or 304.

    Raises HttpError (412, 416), and what reading the first bytes does.
    """
    headers = _headers(content)
    outcome = Preconditions.of(request.headers).outcome(content.present)
    if outcome == "failed":
        raise precondition_failed()
    if outcome == "unchanged":
        return Response(status_code=304, headers=headers)
    spans = _spans(request, content)
    answer = _ContentResponse(headers, content, spans, readers)
    if request.method != "HEAD":
        await answer.begin()
    return answer


def _spans(request: Request, content: HttpContent) -> tuple[ByteRange, ...]:
    """The spans asked for; none: all. Only GET has ranges (RFC 9110, 14.2)."""
    if request.method != "GET" or not range_applies(request.headers, content.present):
        return ()
    try:
        return parse_range(request.headers.get("range"), content.size)
    except UnsatisfiableError as error:
        told = {"Content-Range": f"bytes */{content.size}", "Accept-Ranges": "bytes"}
        raise HttpError(416, "invalid", "the content has no such range", told) from error


def _headers(content: HttpContent) -> dict[str, str]:
    headers = {
        "ETag": content.present.etag,
        "Cache-Control": content.cache,
        "Accept-Ranges": "bytes",
        "Content-Disposition": disposition(content.name),
        **SAFE,
        **content.headers,
    }
    if content.present.last_modified is not None:
        headers["Last-Modified"] = content.present.last_modified
    return headers


def disposition(name: str) -> str:
    """An attachment that is saved as ``name``, whatever is in it (RFC 6266)."""
    plain = "".join(char if char.isascii() and char.isprintable() else "_" for char in name)
    plain = plain.replace("\\", "_").replace('"', "_").replace("/", "_").replace("%", "_")
    exact = quote(name.encode(errors="replace"), safe="")
    return f"attachment; filename=\"{plain or 'download'}\"; filename*=UTF-8''{exact}"


class _ContentResponse(Response):
    """All of a content, or ``spans`` of it."""

    def __init__(
        self,
        headers: Mapping[str, str],
        content: HttpContent,
        spans: tuple[ByteRange, ...],
        readers: Readers,
    ) -> None:
        super().__init__(status_code=206 if spans else 200, headers=dict(headers))
        self._content = replace(content, begun=NOTHING)
        self._begun = content.begun  # sent once, and not kept while a slow reader takes the rest
        self._readers = readers
        self._parts: list[ByteRange | _Text] = [*(spans or [ByteRange(0, content.size)])]
        self.headers["Content-Type"] = content.media_type
        if len(spans) == 1:
            self.headers["Content-Range"] = spans[0].of(content.size)
        elif spans:
            boundary = secrets.token_hex(16)
            self._parts = _framed(content, spans, boundary)
            self.headers["Content-Type"] = f"multipart/byteranges; boundary={boundary}"
        self.headers["Content-Length"] = str(sum(part.length for part in self._parts))
        self._pieces = self._read()
        self._first: memoryview | None = None

    async def begin(self) -> None:
        """Have the first bytes. Raises what reading them does."""
        self._first = await anext(self._pieces, NOTHING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises SlowReaderError."""
        start = {"type": "http.response.start", "status": self.status_code}
        leaving = asyncio.create_task(_left(receive))
        try:
            async with aclosing(self._pieces) as pieces:
                await send({**start, "headers": self.raw_headers})
                if scope["method"] != "HEAD":
                    await self._send(send, self._taken())
                    async for piece in pieces:
                        await self._send(send, piece)
                        if leaving.done():
                            return
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            leaving.cancel()

    def _taken(self) -> memoryview:
        """The first bytes."""
        first, self._first = self._first or NOTHING, None
        return first

    async def _send(self, send: Send, data: memoryview) -> None:
        """Hand ``data`` over; for a slow reader nothing more is fetched before it is taken."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._readers.patience_seconds):
                await send({"type": "http.response.body", "body": data, "more_body": True})
            if time.monotonic() - began > _SLOW_SECONDS:
                async with asyncio.timeout(self._readers.patience_seconds):
                    await send(_NOTHING_YET)  # the server waits before it takes it
        except TimeoutError as error:
            raise SlowReaderError from error

    async def _read(self) -> AsyncGenerator[memoryview]:
        for part in self._parts:
            if isinstance(part, _Text):
                yield memoryview(part.data)
                continue
            is_all = part.length == self._content.size and self._content.digest is not None
            pieces = self._checked(part) if is_all else self._span(part)
            async with aclosing(pieces) as incoming:
                async for piece in incoming:
                    yield piece

    async def _span(self, span: ByteRange) -> AsyncGenerator[memoryview]:
        begun, self._begun = self._begun[span.start : span.stop], NOTHING
        rest = ByteRange(span.start + len(begun), span.stop)
        if begun:
            yield begun
        del begun
        async with aclosing(read_span(self._content.source, rest, self._readers.memory)) as pieces:
            async for piece in pieces:
                yield piece

    async def _checked(self, span: ByteRange) -> AsyncGenerator[memoryview]:
        """All of the content; the last piece only once its digest is right."""
        sha256, left = hashlib.sha256(), span.length
        async with aclosing(self._span(span)) as pieces:
            async for piece in pieces:
                sha256.update(piece)
                left -= len(piece)
                if not left and sha256.hexdigest() != self._content.digest:
                    msg = f"the bytes that came are not those of {self._content.digest}"
                    raise CorruptError(msg)
                yield piece


@dataclass(frozen=True, slots=True)
class _Text:
    """Text between two spans."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)


def _framed(
    content: HttpContent, spans: tuple[ByteRange, ...], boundary: str
) -> list[ByteRange | _Text]:
    """``multipart/byteranges`` (RFC 9110, 14.6)."""
    parts: list[ByteRange | _Text] = []
    for number, span in enumerate(spans):
        lines = (
            f"{'\r\n' if number else ''}--{boundary}",
            f"Content-Type: {content.media_type}",
            f"Content-Range: {span.of(content.size)}",
            "",
            "",
        )
        parts += [_Text("\r\n".join(lines).encode("latin-1", "replace")), span]
    return [*parts, _Text(f"\r\n--{boundary}--\r\n".encode())]


async def _left(receive: Receive) -> None:
    """Return once the reader is gone: bytes sent then go nowhere, without an error."""
    while (await receive())["type"] != "http.disconnect":
        pass
