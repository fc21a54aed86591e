"""The front of all requests: trace, limits, access log and meters."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.domain.sigv4 import without_link
from holdfast.errors import RateLimitedError
from holdfast.gateway.guard import WAIT_TAKEN
from holdfast.gateway.http_route import ROUTE
from holdfast.gateway.limits import LEAVE, RequestLimits
from holdfast.gateway.problems import problem
from holdfast.tracing import TRACE, Tracer, TraceSpan, TraceStep

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from holdfast.gateway.meters import Meters

log = structlog.get_logger(__name__)

_FREE: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Monitoring is answered when the gateway is at its limit, too."""

_FAULTS: Final = 500


class Front:
    """In front of the application."""

    def __init__(self, app: ASGIApp, limits: RequestLimits, meters: Meters, tracer: Tracer) -> None:
        """``limits``, ``meters`` and ``tracer`` are those of the whole gateway."""
        self._app = app
        self._limits = limits
        self._meters = meters
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _given_trace(scope)
        TRACE.set(given)
        passing = _Passing(receive, send)
        with self._tracer.serving(scope["method"]) as span:
            if TRACE.get() is given:
                TRACE.set(TraceStep.first() if given is None else given.next())
            try:
                await self._counted(scope, passing)
            finally:
                if span.is_kept:
                    _describe(span, scope, passing)

    async def _counted(self, scope: Scope, passing: _Passing) -> None:
        began = time.perf_counter()
        self._meters.in_flight.inc()
        try:
            await self._limited(scope, passing)
        finally:
            self._meters.in_flight.dec()
            seconds = time.perf_counter() - began
            self._meters.count(scope, passing.status, seconds, passing.received, passing.sent)
            _write(scope, passing, seconds)

    async def _limited(self, scope: Scope, passing: _Passing) -> None:
        if WAIT_TAKEN in scope:  # a caller that does not read waits here, and takes no turn
            await scope[WAIT_TAKEN]()
        if scope["path"] in _FREE:
            await self._app(scope, passing.receive, passing.send)
            return
        client = scope.get("client")
        try:
            self._limits.enter(client[0] if client else "", time.monotonic())
        except RateLimitedError as error:
            await problem(error)(scope, passing.receive, passing.send)
            return
        with ExitStack() as entered:
            entered.callback(self._limits.leave)
            scope[LEAVE] = entered.close
            await self._app(scope, passing.receive, passing.send)


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


def _given_trace(scope: Scope) -> TraceStep | None:
    """The step of the caller's trace in which it asks."""
    given = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
    return None if given is None else TraceStep.parse(given.decode("latin-1"))


def _describe(span: TraceSpan, scope: Scope, passing: _Passing) -> None:
    """Describe the request without its query, which may hold a signature."""
    method, route = scope["method"], scope.get(ROUTE)
    attributes = {"url.path": without_link(scope["path"]), "url.scheme": scope["scheme"]}
    if route is not None:
        attributes["http.route"] = route
    if client := scope.get("client"):
        attributes["client.address"] = client[0]
    if passing.status is None:
        span.describe(method, attributes)
    else:
        name = method if route is None else f"{method} {route}"
        span.describe(name, {**attributes, "http.response.status_code": passing.status})
    if passing.status is not None and passing.status >= _FAULTS:
        span.fail(str(passing.status))
    elif not passing.is_whole:
        span.fail("incomplete")


def _write(scope: Scope, passing: _Passing, seconds: float) -> None:
    """One line; of the query nothing either."""
    client = scope.get("client")
    log.info(
        "http_request",
        method=scope["method"],
        path=without_link(scope["path"]),
        status=passing.status,
        whole=passing.is_whole,
        seconds=round(seconds, 6),
        received_bytes=passing.received,
        sent_bytes=passing.sent,
        client=client[0] if client else "",
    )
