"""Bodies of requests: as they come, in bounded memory, not too much and not too slowly."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect, Request

from holdfast.client.budget import ByteBudget
from holdfast.domain.digest import Digest, check_expected
from holdfast.domain.limits import KIB, MIB, UPLOAD_WINDOW_BYTES
from holdfast.errors import RateLimitedError
from holdfast.gateway.limits import LEAVE
from holdfast.gateway.problems import HttpError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from holdfast.gateway.settings import GatewaySettings

LEAST_BYTES_PER_SECOND: Final = 1024
"""The least rate of a body, over the time waited for it but for ``body_seconds``."""

LEAST_IN_MEMORY: Final = 128 * KIB
"""The same of a body that is in memory whole while it comes."""

MAX_MESSAGE_BYTES: Final = MIB
"""Of a body of JSON."""

MAX_OPEN_FORM_BYTES: Final = 8 * KIB
"""Of a form that anybody may send."""

MAX_OPEN_FORMS: Final = 16
"""Such forms that are on their way at once."""

_TURN_SECONDS: Final = 10.0
_UPLOAD_BYTES: Final = UPLOAD_WINDOW_BYTES + 2 * MIB
"""The most that one upload holds."""


class Bodies:
    """Takes the bodies of a gateway's requests."""

    def __init__(self, settings: GatewaySettings) -> None:
        """``settings`` bound sizes, times and memory."""
        self._seconds = settings.body_seconds
        self._form_seconds = settings.header_seconds
        self._open_forms = 0
        self._max_bytes = settings.max_body_bytes
        self._memory_bytes = settings.memory_bytes
        self._memory = ByteBudget(settings.memory_bytes)

    @asynccontextmanager
    async def upload(
        self, request: Request, expected: Digest | None
    ) -> AsyncIterator[AsyncGenerator[bytes]]:
        """The body, of a request that is to be stored; it is taken to its end on the way out.

        Raises HttpError (400, 408, 413, 415), RateLimitedError where too many are under way. Where
        all of it has another digest than ``expected``, it raises InvalidError before its end.
        """
        _check_plain(request)
        length = self._length(request, self._max_bytes)
        taken = await self._turn(_UPLOAD_BYTES if length is None else min(length, _UPLOAD_BYTES))
        body = self._chunks(request, self._max_bytes, expected)
        try:
            yield body
            async for _ in body:
                pass  # it was there already, and is still what the client says
        finally:
            await body.aclose()
            self._memory.give_back(taken)

    async def message(self, request: Request) -> bytes:
        """All of a small body. Raises as ``whole``."""
        async with self.whole(request, MAX_MESSAGE_BYTES) as data:
            return data

    @asynccontextmanager
    async def whole(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """All of a body of up to ``most`` bytes, which are in memory while the context lasts.

        One that says its length waits until there is room for it; another takes room as it comes,
        by the MiB.
        Raises HttpError (400, 408, 413, 415), RateLimitedError where too many are under way.
        """
        _check_plain(request)
        length = self._length(request, most)
        taken = await self._turn(MIB if length is None else length)
        received, chunks = 0, []
        try:
            async for chunk in self._chunks(request, most, None, LEAST_IN_MEMORY):
                received += len(chunk)
                if length is None:
                    taken = self._grown(taken, received)
                chunks.append(chunk)
            yield b"".join(chunks)
        finally:
            self._memory.give_back(taken)

    def _grown(self, taken: int, received: int) -> int:
        """The share once ``received`` bytes have room. Raises RateLimitedError."""
        needed = min(-(-received // MIB) * MIB, self._memory_bytes)
        if needed <= taken:
            return taken
        if not self._memory.try_take(needed - taken):
            raise _too_many()
        return needed

    async def open_form(self, request: Request) -> bytes:
        """All of a form that anybody may send.

        Such requests wait for bytes in a number and a time of their own, so whoever has no token
        takes no turn of those who have one. Raises HttpError (400, 408, 413, 415),
        RateLimitedError where too many are under way.
        """
        _check_plain(request)
        self._length(request, MAX_OPEN_FORM_BYTES)
        if self._open_forms >= MAX_OPEN_FORMS:
            raise RateLimitedError("too many forms are under way here")
        if LEAVE in request.scope:
            request.scope[LEAVE]()
        self._open_forms += 1
        try:
            async with asyncio.timeout(self._form_seconds):
                chunks = self._chunks(request, MAX_OPEN_FORM_BYTES, None)
                return b"".join([chunk async for chunk in chunks])
        except TimeoutError as error:
            raise _not_coming() from error
        finally:
            self._open_forms -= 1

    def _length(self, request: Request, most: int) -> int | None:
        text = request.headers.get("content-length")
        if text is None:
            return None
        length = int(text)  # the parser has seen to it that it is a number
        if length > most:
            raise _too_large(most)
        return length

    async def _turn(self, size: int) -> int:
        try:
            async with asyncio.timeout(_TURN_SECONDS):
                return await self._memory.take(size)
        except TimeoutError as error:
            raise _too_many() from error

    async def _chunks(
        self,
        request: Request,
        most: int,
        expected: Digest | None,
        least: int = LEAST_BYTES_PER_SECOND,
    ) -> AsyncGenerator[bytes]:
        sha256 = hashlib.sha256()
        clock = asyncio.get_running_loop().time
        received, waited = 0, 0.0
        while True:
            patience = self._seconds + received / least - waited
            asked_at = clock()
            try:
                async with asyncio.timeout(min(self._seconds, patience)):
                    message = await request.receive()
            except TimeoutError as error:
                raise _not_coming() from error
            waited += clock() - asked_at
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            data = message.get("body", b"")
            received += len(data)
            if received > most:
                raise _too_large(most)
            if data:
                if expected is not None:
                    sha256.update(data)
                yield data
            if not message.get("more_body", False):
                if expected is not None:
                    check_expected(Digest(sha256.hexdigest()), expected)
                return


def _check_plain(request: Request) -> None:
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise HttpError(415, "invalid", "the body has no encoding but its own")
    if "content-range" in request.headers:
        raise HttpError(400, "invalid", "a part of something cannot be stored")


def _too_many() -> RateLimitedError:
    return RateLimitedError("too many bodies are under way here")


def _not_coming() -> HttpError:
    detail = "the body of the request does not come"
    return HttpError(408, "invalid", detail, {"Connection": "close"})


def _too_large(most: int) -> HttpError:
    return HttpError(413, "too_large", f"the body of the request has at most {most} bytes")
