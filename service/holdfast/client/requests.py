"""Requests to the pool: encode, ask any worker, decode; repeat what is safe to repeat.

A deadline covers all attempts. One attempt is shorter than that, so that a worker that was stopped
(it still holds its place in the queue group) costs a few seconds and not the whole deadline. The
worker is told of a little less time than is waited for its answer, so that it can say in time that
it had none.
"""

from __future__ import annotations

import asyncio
import enum
import os
import time
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from holdfast.client.bare import BareReads
from holdfast.client.budget import ByteBudget
from holdfast.client.echoes import check_echo
from holdfast.client.trace import trace_headers
from holdfast.deadline import Timers
from holdfast.domain.limits import MIB
from holdfast.errors import (
    ForbiddenError,
    HoldfastError,
    InvalidError,
    OutcomeUnknownError,
    RateLimitedError,
    TooLargeError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.blobs import GET_BLOB
from holdfast.protocol.operation import Body
from holdfast.tracing import NO_TRACER
from holdfast.transport.backoff import Backoff
from holdfast.transport.fresh_ids import new_id
from holdfast.transport.inbox import NoRespondersError

if TYPE_CHECKING:
    from holdfast.protocol.operation import AnyOperation, Operation, ReplyT, RequestT
    from holdfast.tracing import Tracer
    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.message import Message

ATTEMPT_SECONDS: Final = 5.0
FIRST_ATTEMPT_SECONDS: Final = 2.0
"""The first attempt is short, since almost all end within milliseconds, and one that went to a
worker that is stopped or cut off never does; each further one is twice as long, up to the above."""

BYTES_ATTEMPT_SECONDS: Final = 10.0
"""The longest attempt to get bytes: many answers may share a slow line."""

_FIRST_WAIT_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 2.0
_LEAST_ATTEMPT_SECONDS: Final = 0.25
_LEAST_ATTEMPT_SHARE: Final = 0.25

_ATTEMPTS: Final = 64
_MARGIN: Final = 0.25
_MOST_MARGIN_SECONDS: Final = 0.5

CLOSED: Final = "the client is closed"
FORKED: Final = "this client belongs to the process that was forked: connect anew in this one"

BYTES_AT_ONCE: Final = 48 * MIB
"""Bytes on their way to one connection, over all its reads: a server gives one up at 64 MiB."""


class _Forks:
    """``count`` tells a process that was forked from the one before."""

    count = 0

    @classmethod
    def note(cls) -> None:
        """This is a forked process."""
        cls.count += 1


os.register_at_fork(after_in_child=_Forks.note)


class NotOfferedError(UnavailableError):
    """No worker takes requests of this kind, or this user may not ask for them.

    ``maybe_applied``: one that did has been asked before, and may have done it.
    """

    def __init__(self, *, maybe_applied: bool) -> None:
        super().__init__("no worker takes such requests")
        self.maybe_applied = maybe_applied


class Way(enum.IntEnum):
    """Ways for the bytes of a read.

    Where another account imports the service, nothing arrives that the store sends itself, and
    perhaps no second message at all.
    """

    DIRECT = 0
    """The store sends chunks, where it can."""
    RELAYED = 1
    """The worker sends them."""
    SINGLE = 2
    """Ranges that fit into one answer each."""


class Requester:
    """Asks the pool on one connection."""

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        *,
        prefix: str,
        timeout_seconds: float,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """``prefix`` is the deployment's; ``timeout_seconds`` the deadline of every request.

        ``tracer`` makes a span of each attempt.
        """
        self.connection = connection
        self.inbox = inbox
        self._prefix = f"{prefix}." if prefix else ""
        self.timeout_seconds = timeout_seconds
        self.tracer = tracer
        self.budget = ByteBudget(BYTES_AT_ONCE)
        self.timers = Timers()
        self.bare = BareReads(
            connection,
            inbox,
            self.budget,
            subject=self.subject(GET_BLOB),
            timeout_seconds=timeout_seconds,
            tracer=tracer,
        )
        self.way = Way.DIRECT
        self._proven: set[Way] = set()
        self._forks = _Forks.count
        self._loop = asyncio.get_running_loop()

    def check_usable(self) -> None:
        """Raise at once where no answer would ever come.

        Raises as ``check_own``, and UnavailableError (the client is closed).
        """
        self.check_own()
        if self.connection.is_closed:
            raise UnavailableError(CLOSED)

    def check_own(self) -> None:
        """Raises InvalidError in a process that was forked, and in another event loop."""
        if _Forks.count != self._forks:
            raise InvalidError(FORKED)
        if asyncio.get_running_loop() is not self._loop:
            msg = "this client belongs to another event loop: use it from the one that connected it"
            raise InvalidError(msg)

    def subject(self, operation: AnyOperation) -> str:
        """Where the pool takes ``operation``."""
        return self.full_subject(operation.subject)

    def full_subject(self, subject: str) -> str:
        """``subject`` as it is in this deployment."""
        return f"{self._prefix}{subject}"

    def arrived(self, way: Way) -> None:
        """Note that an answer to such a request came."""
        self._proven.add(way)

    def nothing_followed(self, way: Way) -> None:
        """A head came and nothing after it. If nothing ever did, it is not asked for so again."""
        if way not in self._proven:
            self.way = max(self.way, Way(min(way + 1, Way.SINGLE)))

    async def ask(
        self,
        operation: Operation[RequestT, ReplyT],
        request: RequestT,
        data: bytes | memoryview = b"",
        *,
        timeout_seconds: float | None = None,
        attempt_seconds: float | None = None,
        encoding: codec.Encoding = codec.Encoding.JSON,
        op_id: str | None = None,
        maybe_applied: bool = False,
        is_new: bool = False,
        first_subject: str | None = None,
        least_seconds: float | None = None,
    ) -> ReplyT:
        """The reply. Raises what the worker answered; UnavailableError, OutcomeUnknownError.

        Also CorruptError, for an answer that is to another request, and as ``check_usable``.

        ``attempt_seconds`` is for what takes a worker longer than a moment.
        A mutation carries an ``Op-Id``, so a repeat is answered as the first would have been:
        ``op_id`` where it was asked for before in another way, and then it is ``maybe_applied``.
        If it ``is_new`` it is not repeated where nobody takes it: raises NotOfferedError.
        ``first_subject`` is where one worker takes it, which is asked first.
        ``least_seconds`` is that of the whole deadline, where this is the rest of one.
        """
        seconds = timeout_seconds or self.timeout_seconds
        self.check_usable()
        headers: dict[str, str] = {}
        if operation.request_body is Body.BYTES:
            headers.update(codec.encode_headers(request))
            body: bytes | memoryview = data
        else:
            body = codec.encode(request, encoding)
            if encoding is not codec.Encoding.JSON:
                headers[names.CONTENT_TYPE] = encoding.value
        if operation.mutates:
            headers[names.OP_ID] = op_id or new_id()
        message = await self._repeat(
            operation,
            body,
            headers,
            timeout_seconds=seconds,
            least_seconds=least_seconds or least_seconds_of(seconds),
            patience_seconds=attempt_seconds or FIRST_ATTEMPT_SECONDS,
            longest_seconds=attempt_seconds or ATTEMPT_SECONDS,
            maybe_applied=maybe_applied,
            is_new=is_new,
            first_subject=first_subject,
        )
        reply = codec.decode_reply(message.data, operation.reply, encoding)
        check_echo(request, reply)
        return reply

    async def ask_for_bytes(
        self, operation: Operation[RequestT, ReplyT], request: RequestT, most_bytes: int
    ) -> tuple[ReplyT, bytes | memoryview]:
        """The head and the bytes of an answer of one message, which holds up to ``most_bytes``.

        Raises as ``ask``.
        """
        self.check_usable()
        taken = await self.budget.take(most_bytes)
        try:
            message = await self._repeat(
                operation,
                codec.encode(request),
                {},
                timeout_seconds=self.timeout_seconds,
                least_seconds=0,
                patience_seconds=ATTEMPT_SECONDS,
                longest_seconds=BYTES_ATTEMPT_SECONDS,
            )
        finally:
            self.budget.give_back(taken)
        return codec.decode_reply_headers(message.headers, operation.reply), message.data

    async def _repeat(
        self,
        operation: AnyOperation,
        body: bytes | memoryview,
        headers: dict[str, str],
        *,
        timeout_seconds: float,
        least_seconds: float,
        patience_seconds: float,
        longest_seconds: float,
        maybe_applied: bool = False,
        is_new: bool = False,
        first_subject: str | None = None,
    ) -> Message:
        """The answer. One attempt takes ``patience_seconds``, each further one twice as long."""
        subject = first_subject or self.subject(operation)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        backoff: Backoff | None = None  # hardly ever there is a second attempt
        while True:
            try:
                await self.connection.wait_connected(max(deadline - loop.time(), 0))
                attempt = max(min(patience_seconds, deadline - loop.time()), 0.001)
                patience_seconds = min(patience_seconds * 2, longest_seconds)
                headers[names.TIMEOUT] = worker_seconds(attempt)
                message = await self._request(operation, subject, body, headers, attempt)
            except (NoRespondersError, ForbiddenError) as error:
                if is_new:
                    raise NotOfferedError(maybe_applied=maybe_applied) from error
                if isinstance(error, ForbiddenError):
                    raise
                failure: HoldfastError = error
            except TimeoutError:
                said = CLOSED if self.connection.is_closed else "no worker answered in time"
                failure = UnavailableError(said)
                maybe_applied = maybe_applied or operation.mutates
            except (UnavailableError, RateLimitedError, OutcomeUnknownError) as error:
                failure = error
                maybe_applied = maybe_applied or isinstance(error, OutcomeUnknownError)
            except (InvalidError, TooLargeError) as error:
                raise _told(
                    error, maybe_applied=maybe_applied and operation.mutates
                ) from error.__cause__
            else:
                return message
            subject = self.subject(operation)
            least = least_seconds if operation.mutates and not maybe_applied else 0
            left = deadline - loop.time()
            backoff = backoff or Backoff(
                _FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS, within_seconds=left
            )
            if not await self._may_ask_again(backoff, deadline, least):
                raise _told(failure, maybe_applied=maybe_applied) from failure.__cause__

    async def _may_ask_again(self, backoff: Backoff, deadline: float, least: float) -> bool:
        """Wait until it is time; whether ``least`` seconds are left then."""
        if self.connection.is_closed or not await backoff.wait():
            return False
        loop = asyncio.get_running_loop()
        with suppress(HoldfastError):  # the attempt tells it
            await self.connection.wait_connected(max(deadline - loop.time(), 0))
        return deadline - loop.time() >= least

    async def _request(
        self,
        operation: AnyOperation,
        subject: str,
        body: bytes | memoryview,
        headers: dict[str, str],
        seconds: float,
    ) -> Message:
        """One attempt. Raises as ``Inbox.request``, and what the worker answered."""
        asked_at = time.monotonic()
        try:
            with self.tracer.asking(operation.subject):
                headers.update(trace_headers())
                message = await self.inbox.request(
                    subject, body, headers=headers, timeout_seconds=seconds
                )
                codec.raise_error(message.headers, message.data)
        except TimeoutError:
            self.connection.liveness.unanswered(asked_at)
            raise
        except (UnavailableError, OutcomeUnknownError):
            # No worker; or one that cannot reach the store, perhaps because it is cut off with us.
            self.connection.liveness.nobody(asked_at)
            raise
        if operation.mutates:
            self.connection.liveness.answered()
        return message


def _told(failure: HoldfastError, *, maybe_applied: bool) -> HoldfastError:
    """The caller's error for the last attempt, where one before it may have been applied."""
    if not maybe_applied or isinstance(failure, OutcomeUnknownError):
        return failure
    return OutcomeUnknownError(f"no worker said whether it was done: {failure.detail}")


def least_seconds_of(timeout_seconds: float) -> float:
    """With less left of a deadline, nobody is asked for a change that was surely not made.

    The answer would come too late, and nobody would know.
    """
    return min(_LEAST_ATTEMPT_SECONDS, timeout_seconds * _LEAST_ATTEMPT_SHARE)


@lru_cache(maxsize=_ATTEMPTS)
def worker_seconds(seconds: float) -> str:
    """The ``Timeout`` of a request whose answer is waited for ``seconds``."""
    return f"{seconds - min(seconds * _MARGIN, _MOST_MARGIN_SECONDS):.3f}"
