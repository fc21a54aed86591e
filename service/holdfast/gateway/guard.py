"""Limits of a connection: no headers without end, no bytes that come hardly ever.

uvicorn parses, with llhttp, which is strict, and times idle connections between two requests. This
limits the time and size of requests until they are whole, and the number of connections.

Why: docs/decisions.md, "uvicorn with llhttp, and a guard of our own before it".
"""

from __future__ import annotations

import asyncio
import resource
from functools import partial
from typing import TYPE_CHECKING, Any, Final, override

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from holdfast.domain.limits import KIB
from holdfast.gateway.problems import HttpError, problem

if TYPE_CHECKING:
    from holdfast.gateway.settings import GatewaySettings

_SPARE_FILES: Final = 128
"""Files beside connections: logs, the connection to NATS, what Python loads."""

_LINGER_SECONDS: Final = 2.0
"""Time to drop bytes after an answer: to close at once would lose the answer."""

ABORT: Final = "holdfast.abort"
"""In the scope of a request: what ends its connection, though there is more to be sent."""

IS_GONE: Final = "holdfast.is_gone"
"""In the scope of a request: whether its connection has ended, so that no answer arrives."""

WAIT_TAKEN: Final = "holdfast.wait_taken"
"""In the scope of a request: what waits until the answers before it were taken."""

_UNTAKEN_BYTES: Final = 32 * KIB
"""Of earlier answers. With twice as much uvicorn has the next one wait, in the midst of it."""

_LOOK_SECONDS: Final = 0.05
"""How often it is looked at whether somebody who is behind has read on."""

_LINE_BYTES: Final = 4
"""The separators behind a header's name and its value."""


class Guards:
    """The limits of all connections of a server, and those that are idle."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Takes as many open files as this process may have."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.max_connections = max(1, min(settings.max_connections, hard - _SPARE_FILES))
        self.max_header_bytes = settings.max_header_bytes
        self.header_seconds = settings.header_seconds
        self.reader_seconds = settings.body_seconds
        self._idle: dict[GuardedProtocol, None] = {}

    def is_idle(self, connection: GuardedProtocol) -> None:
        """It waits for a request; it is the last that has to make room."""
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def is_busy(self, connection: GuardedProtocol) -> None:
        """It has a request, or is gone."""
        self._idle.pop(connection, None)

    def make_room(self) -> bool:
        """End the connection that is idle longest; whether there was one."""
        for connection in self._idle:
            self.is_busy(connection)
            connection.transport.abort()
            return True
        return False


class _RefusedError(Exception):
    """The request is not taken: ``answer`` says why."""

    def __init__(self, answer: HttpError) -> None:
        super().__init__(answer.detail)
        self.answer = answer


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, guards: Guards, **given: Any) -> None:
        """``given`` is uvicorn's."""
        super().__init__(**given)
        self._guards = guards
        self._timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._is_in_body = False

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._guards.max_connections and not self._guards.make_room():
            self._refuse(HttpError(503, "rate_limited", "there are too many connections"))
            return
        self._guards.is_idle(self)
        self._arm(self._guards.header_seconds)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._guards.is_busy(self)
        self._disarm()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._is_waiting() and self._timer is None:
            self._arm(self._guards.header_seconds)
        if not self._is_in_body:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.cycle.keep_alive = False  # it is answered in HTTP/1.1, and nothing follows
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.answer if isinstance(cause, _RefusedError) else _NOT_HTTP)
        else:
            if self._is_waiting() and self._head_bytes > self._guards.max_header_bytes:
                self._refuse(_TOO_LARGE)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._hosts = 0
        self._size = 0

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_body:
            return  # a trailer: what it says was not looked at when the request was taken
        super().on_header(name, value)
        self._count(len(name) + len(value) + _LINE_BYTES)
        if name.lower() == b"host":
            self._hosts += 1
        if b"\r" in value or b"\n" in value:
            raise _RefusedError(_NOT_HTTP)

    @override
    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        if self._hosts != 1 and self.parser.get_http_version() == "1.1":
            raise _RefusedError(HttpError(400, "invalid", "a request has one Host"))
        self._disarm()
        self._guards.is_busy(self)
        self._is_in_body = True
        super().on_headers_complete()
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        self.scope[WAIT_TAKEN] = partial(self._wait_taken, self.cycle)  # type: ignore[typeddict-unknown-key]
        self.scope[IS_GONE] = self.transport.is_closing  # type: ignore[typeddict-unknown-key]

    @override
    def on_message_complete(self) -> None:
        self._is_in_body = False
        super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self._is_waiting():
            return
        self._guards.is_idle(self)
        if self.cycle.response_complete and self.cycle.more_body:
            self._arm(_LINGER_SECONDS)

    @override
    def timeout_keep_alive_handler(self) -> None:
        self._end()

    async def _wait_taken(self, cycle: RequestResponseCycle) -> None:
        """Until the reader has taken most of the answers before that of ``cycle``.

        It is idle meanwhile, and makes room. The end of a connection that takes nothing.
        """
        if not self._is_behind():
            return
        self._guards.is_idle(self)
        try:
            async with asyncio.timeout(self._guards.reader_seconds):
                while self._is_behind():  # noqa: ASYNC110  (a transport tells of one mark only)
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            self.transport.abort()
        finally:
            self._guards.is_busy(self)
        if self.transport.is_closing():
            _end(cycle)

    def _is_behind(self) -> bool:
        """Whether so much was not taken that an answer would have to wait."""
        return self.transport.get_write_buffer_size() > _UNTAKEN_BYTES

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._guards.max_header_bytes:
            raise _RefusedError(_TOO_LARGE)

    def _is_waiting(self) -> bool:
        """Whether no request is whole so far, or the last one was answered."""
        cycle = self._begun
        return cycle is None or cycle.response_complete

    @property
    def _begun(self) -> RequestResponseCycle | None:
        """The last request whose headers came."""
        return self.cycle

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._end)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, error: HttpError) -> None:
        """Say why nothing more is taken, and close; within another answer only the latter."""
        cycle = self._begun
        if cycle is not None and not cycle.response_complete:
            _end(cycle)
            if cycle.response_started:
                self.transport.abort()
                return
        answer = problem(error)
        lines = [f"HTTP/1.1 {error.status} {_PHRASES[error.status]}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        body = bytes(answer.body)
        self.transport.write(b"\r\n".join([*lines, b"connection: close", b"", body]))
        self.transport.close()


def _end(cycle: RequestResponseCycle) -> None:
    """Nothing more comes of its request, and nothing is sent."""
    cycle.disconnected = True
    cycle.message_event.set()


_NOT_HTTP: Final = HttpError(400, "invalid", "this is not an HTTP request")
_TOO_LARGE: Final = HttpError(431, "too_large", "the headers of the request are too large")
_PHRASES: Final = {
    400: "Bad Request",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
