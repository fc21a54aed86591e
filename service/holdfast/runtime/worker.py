"""A worker: takes requests off NATS, answers them concurrently, drains when told to stop.

An ADR-32 service written over plain subscriptions, because nats-py's handles one request at a time
per endpoint. Concurrency is bounded: a request beyond the limit is answered
``rate_limited`` at once rather than kept waiting.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast, get_args

import msgspec
import structlog

from holdfast.deadline import is_being_cancelled
from holdfast.domain.limits import MAX_WATCHES
from holdfast.errors import (
    ForbiddenError,
    HoldfastError,
    InternalError,
    RateLimitedError,
    UnavailableError,
)
from holdfast.handlers.endpoint import Lane
from holdfast.protocol import codec
from holdfast.protocol.headers import BLOB_PART, TRACEPARENT
from holdfast.protocol.operation import QUEUE_GROUP
from holdfast.protocol.subjects import node_subject, prefixed, reply_pattern
from holdfast.runtime.dispatch import Answer, out_of_time
from holdfast.runtime.statistics import SERVICE_NAME, Discovery, EndpointStats
from holdfast.tracing import NO_TRACER, TRACE, TraceStep

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Buffer, Callable, Mapping

    from holdfast.handlers.endpoint import AnyEndpoint
    from holdfast.protocol.operation import AnyOperation
    from holdfast.runtime.dispatch import Dispatcher
    from holdfast.runtime.statistics import Identity
    from holdfast.tracing import Tracer
    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

SUBSCRIBE_SECONDS: Final = 2
_FAULTS: Final = 500
"""From this status on it is not the request that was wrong."""

log = structlog.get_logger(__name__)


class Worker:
    """One member of the pool, on one connection."""

    def __init__(
        self,
        connection: Connection,
        dispatcher: Dispatcher,
        endpoints: tuple[AnyEndpoint, ...],
        identity: Identity,
        *,
        prefix: str,
        max_concurrent: int,
        inbox_prefixes: tuple[str, ...],
        node: str | None = None,
        age: Callable[[], float] = lambda: 0.0,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """``prefix`` is put before every subject, ``inbox_prefixes`` bound reply subjects.

        With ``node`` the requests that other workers forward to that node are taken too. ``age``
        says how many seconds ago a request may have been sent that arrives now. ``tracer`` makes a
        span of each request.
        """
        self._tracer = tracer
        self._connection = connection
        self._dispatcher = dispatcher
        self._endpoints = endpoints
        self._prefix = prefix
        self._node = node
        self._age = age
        self._max_concurrent = max_concurrent
        self._reply = reply_pattern(inbox_prefixes)
        self._lanes: dict[Lane, dict[asyncio.Task[None], tuple[AnyEndpoint, Message]]] = {
            lane: {} for lane in get_args(Lane)
        }
        self._sids: list[int] = []
        self.refused_replies = 0
        self.is_serving = False
        self._stats = {endpoint.operation: EndpointStats() for endpoint in endpoints}
        self._id = identity.id
        self._discovery = Discovery(
            identity=identity,
            subjects={e.operation: self._subject(e) for e in endpoints},
            stats=self._stats,
        )

    @property
    def id(self) -> str:
        """This worker's instance id."""
        return self._id

    @property
    def in_flight(self) -> int:
        """Requests being answered; watchers do not count."""
        return len(self._lanes["requests"]) + len(self._lanes["parts"])

    @property
    def stats(self) -> Mapping[AnyOperation, EndpointStats]:
        """The counts of each operation."""
        return self._stats

    @property
    def watches(self) -> int:
        """Watchers told of changes."""
        return len(self._lanes["watches"])

    def start(self) -> None:
        """Subscribe: from here on requests are answered."""
        self.is_serving = True
        for endpoint in self._endpoints:
            stats = self._stats[endpoint.operation]
            receive = partial(self._receive, endpoint, stats)
            queue = QUEUE_GROUP if endpoint.operation.queue else ""
            self._sids.append(self._connection.route(self._subject(endpoint), receive, queue=queue))
            if endpoint.own_subject is not None:
                subject = prefixed(self._prefix, endpoint.own_subject)
                self._sids.append(self._connection.route(subject, receive))
            if endpoint.local and self._node is not None:
                subject = node_subject(self._prefix, self._node, endpoint.operation.subject)
                receive = partial(self._receive, endpoint, stats, forwarded=True)
                self._sids.append(self._connection.route(subject, receive, queue=QUEUE_GROUP))
        verbs = {
            "PING": self._discovery.ping,
            "INFO": self._discovery.info,
            "STATS": self._discovery.statistics,
        }
        for verb, tell in verbs.items():
            for subject in (
                f"$SRV.{verb}",
                f"$SRV.{verb}.{SERVICE_NAME}",
                f"$SRV.{verb}.{SERVICE_NAME}.{self._id}",
            ):
                self._sids.append(self._connection.route(subject, partial(self._tell, tell)))

    async def check_subscribed(self) -> None:
        """Return once the server has taken the subscriptions, or is lost.

        Raises ForbiddenError when it denied one: others would wait for this worker in vain.
        """
        with suppress(UnavailableError):  # it subscribes again when it is connected again
            await self._connection.wait_flushed(SUBSCRIBE_SECONDS)
        denied = self._connection.denied_subscriptions
        if denied:
            msg = (
                f"the NATS user of this worker may not subscribe to {', '.join(denied)}: "
                "allow it (see the permissions in docs/operations.md)"
            )
            raise ForbiddenError(msg)

    async def drain(self, seconds: float) -> None:
        """Take no more requests; let those in flight finish, answer the rest after ``seconds``."""
        self.is_serving = False
        sids, self._sids = self._sids, []
        await self._connection.drain_routes(sids)
        if running := self._running():
            await asyncio.wait(running, timeout=seconds)
        late = self._running()
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        for endpoint, message in late.values():
            self._send_failure(message, out_of_time(endpoint))

    def _running(self) -> dict[asyncio.Task[None], tuple[AnyEndpoint, Message]]:
        return {task: asked for lane in self._lanes.values() for task, asked in lane.items()}

    def _subject(self, endpoint: AnyEndpoint) -> str:
        subject = prefixed(self._prefix, endpoint.operation.subject)
        return subject if endpoint.operation.queue else f"{subject}.{self._id}.>"

    # --- requests ---

    def _receive(
        self,
        endpoint: AnyEndpoint,
        stats: EndpointStats,
        message: Message,
        *,
        forwarded: bool = False,
    ) -> None:
        if not self._may_reply_to(message):
            stats.refused_replies += 1
            return
        age_seconds = self._age()
        if age_seconds > endpoint.fresh_seconds:
            log.warning("request_too_old", subject=endpoint.operation.subject)
            return
        # Parts have windows of their own: counted apart, neither starves the other.
        running = self._lanes[endpoint.lane]
        most = MAX_WATCHES if endpoint.lane == "watches" else self._max_concurrent
        if len(running) >= most:
            stats.count(0, RateLimitedError.code)
            self._send_failure(message, RateLimitedError("this worker is at its limit of requests"))
            return
        loop = asyncio.get_running_loop()
        # Started at once, up to its first wait: parts begin in the order they came.
        answering = self._answer(endpoint, stats, message, age_seconds, forwarded=forwarded)
        task = asyncio.Task(answering, loop=loop, eager_start=True)
        if not task.done():
            running[task] = (endpoint, message)

    async def _answer(
        self,
        endpoint: AnyEndpoint,
        stats: EndpointStats,
        message: Message,
        age_seconds: float,
        *,
        forwarded: bool,
    ) -> None:
        text = message.headers.get(TRACEPARENT)
        if text is not None:
            TRACE.set(TraceStep.parse(text))
        started_ns = time.perf_counter_ns()
        try:
            with self._tracer.answering(endpoint.operation.subject) as span:
                error = await self._answered(endpoint, message, age_seconds, forwarded=forwarded)
                if error is not None:
                    span.fail(error.code, is_fault=error.status >= _FAULTS)
                    log.info(
                        "request_refused",
                        subject=endpoint.operation.subject,
                        code=error.code,
                        detail=codec.one_line(error.detail),
                    )
            stats.count(time.perf_counter_ns() - started_ns, error.code if error else None)
        finally:
            self._lanes[endpoint.lane].pop(cast("asyncio.Task[None]", asyncio.current_task()), None)

    async def _answered(
        self, endpoint: AnyEndpoint, message: Message, age_seconds: float, *, forwarded: bool
    ) -> HoldfastError | None:
        """Answer; the failure, if it is one. Raises CancelledError if this task is cancelled."""
        try:
            answer = await self._dispatcher.answer(
                endpoint,
                message.subject,
                message.headers,
                message.data,
                forwarded=forwarded,
                age_seconds=age_seconds,
            )
            if answer.node is not None:
                self._forward(endpoint, answer.node, message.reply, answer)
            else:
                if not answer.is_sent:
                    body = memoryview(answer.body)
                    self._connection.send(message.reply, body, headers=answer.headers)
                if answer.has_more:
                    await self._send_more(message.reply, answer)
        except HoldfastError as failure:
            # The head of a window may be out already: a failure after it ends the window.
            self._send_failure(message, failure)
            return failure
        except (Exception, asyncio.CancelledError) as bug:
            if isinstance(bug, asyncio.CancelledError) and is_being_cancelled():
                raise  # the one that did it answers
            log.exception("answer_failed", subject=endpoint.operation.subject)
            error = InternalError()
            self._send_failure(message, error)
            return error
        return answer.error

    def _forward(self, endpoint: AnyEndpoint, node: str, reply: str, request: Answer) -> None:
        """Pass the request on; its taker answers the caller."""
        subject = node_subject(self._prefix, node, endpoint.operation.subject)
        body = memoryview(request.body)
        headers, step = dict(request.headers), TRACE.get()
        if step is not None:
            headers[TRACEPARENT] = str(step)
        self._connection.send(subject, body, reply=reply, headers=headers)

    async def _send_more(self, reply: str, answer: Answer) -> None:
        """Send what belongs to the answer beside its first message."""
        if answer.deliver is not None:
            await answer.deliver(reply)
        if answer.pieces is not None:
            await self._relay(reply, answer.pieces)
        if answer.messages is not None:
            await self._send_all(reply, answer.messages)

    async def _relay(self, reply: str, pieces: AsyncGenerator[Buffer]) -> None:
        """Send the pieces of a window ourselves. A short end tells the client of a failure."""
        number = 0
        async with aclosing(pieces):
            async for piece in pieces:
                await self._connection.wait_sendable()
                headers = {BLOB_PART: str(number)}
                self._connection.send(reply, memoryview(piece), headers=headers)
                number += 1

    async def _send_all(
        self, reply: str, messages: AsyncGenerator[tuple[Mapping[str, str], Buffer]]
    ) -> None:
        """Send messages as they come."""
        async with aclosing(messages):
            async for headers, body in messages:
                await self._connection.wait_sendable()
                self._connection.send(reply, memoryview(body), headers=headers)

    def _send_failure(self, message: Message, error: HoldfastError) -> None:
        headers, body = codec.encode_error(error, codec.Encoding.JSON)
        try:
            self._connection.send(message.reply, body, headers=headers)
        except HoldfastError as failure:
            log.warning("answer_not_sent", code=failure.code)

    def _may_reply_to(self, message: Message) -> bool:
        """Only inboxes: any other reply subject would make the worker the caller's deputy."""
        if self._reply.fullmatch(message.reply) is not None:
            return True
        self.refused_replies += 1
        log.warning(
            "reply_subject_refused",
            subject=codec.one_line(message.subject),
            reply=codec.one_line(message.reply),
        )
        return False

    def _tell(self, tell: Callable[[], dict[str, Any]], message: Message) -> None:
        if self._may_reply_to(message):
            self._connection.send(message.reply, msgspec.json.encode(tell()))
