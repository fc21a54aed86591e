"""What every request passes: its trace, the limits, the access log and the meters."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.client.trace import TRACE
from holdfast.errors import RateLimitedError
from holdfast.gateway.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from holdfast.gateway.limits import RequestLimits
    from holdfast.gateway.meters import Meters

log = structlog.get_logger(__name__)

_FREE: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Whoever watches over the gateway is answered when it is at its limit, too."""

_TRACE: Final = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})")


class Front:
    """In front of the application."""

    def __init__(self, app: ASGIApp, limits: RequestLimits, meters: Meters) -> None:
        """``limits`` and ``meters`` are those of the whole gateway."""
        self._app = app
        self._limits = limits
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = _trace_of(scope)
        TRACE.set(trace)
        passing = _Passing(receive, send)
        began = time.perf_counter()
        self._meters.in_flight.inc()
        try:
            await self._limited(scope, passing)
        finally:
            self._meters.in_flight.dec()
            seconds = time.perf_counter() - began
            self._meters.count(scope, passing.status, seconds, passing.received, passing.sent)
            _write(scope, passing, seconds, trace)

    async def _limited(self, scope: Scope, passing: _Passing) -> None:
        if scope["path"] in _FREE:
            await self._app(scope, passing.receive, passing.send)
            return
        client = scope.get("client")
        try:
            self._limits.enter(client[0] if client else "", time.monotonic())
        except RateLimitedError as error:
            await problem(error)(scope, passing.receive, passing.send)
            return
        try:
            await self._app(scope, passing.receive, passing.send)
        finally:
            self._limits.leave()


class _Passing:
    """Counts what passes in both directions."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.status: int | None = None
        self.is_whole = False
        self.received = 0
        self.sent = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.is_whole = not message.get("more_body", False)


def _trace_of(scope: Scope) -> str:
    """The ``traceparent`` for what is done here: a new step of the caller's trace, or a new one."""
    given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
    found = _TRACE.fullmatch(given)
    step = secrets.token_hex(8)
    if found is None:
        return f"00-{secrets.token_hex(16)}-{step}-00"
    return f"00-{found[1].decode()}-{step}-{found[2].decode()}"


def _write(scope: Scope, passing: _Passing, seconds: float, trace: str) -> None:
    """One line; of the query nothing, for it may hold a signature."""
    client = scope.get("client")
    log.info(
        "http_request",
        method=scope["method"],
        path=scope["path"],
        status=passing.status,
        whole=passing.is_whole,
        seconds=round(seconds, 6),
        received_bytes=passing.received,
        sent_bytes=passing.sent,
        client=client[0] if client else "",
        trace=trace,
    )
