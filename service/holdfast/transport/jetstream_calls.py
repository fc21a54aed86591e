"""One call of the JetStream API, made again where that is safe.

While a leader is being elected, or the server is paused, calls go on trying for as long as the
patience lasts and the deadline of the request that they serve (``deadline``) allows.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.deadline import seconds_left
from holdfast.errors import ForbiddenError, HoldfastError, NotFoundError, UnavailableError
from holdfast.transport.backoff import Backoff
from holdfast.transport.inbox import NoRespondersError
from holdfast.transport.jetstream_messages import (
    NOT_NOW,
    SEQUENCE,
    STREAM_NOT_FOUND,
    ApiError,
    ApiRefusedError,
    DeniedError,
    ErrorAnswer,
    NotNowError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.liveness import Liveness
    from holdfast.transport.message import Message

ATTEMPT_SECONDS: Final = 4.0
NOBODY: Final = "the store is not available: no JetStream, no such bucket or no leader"
NO_TIME: Final = "there was no time left to ask the store"
_FIRST_WAIT_SECONDS: Final = 0.25
_LONGEST_WAIT_SECONDS: Final = 1.5
_READ_TRIES: Final = 1
_TURNS: Final = 12
"""Waits of a write for its turn, some 10 s in all: a server stages 50 batches per stream, and lets
only so much wait for one."""

_ERROR_HEAD_BYTES: Final = 256


class JetStreamCalls:
    """The JetStream API over one connection. Stream names and subjects come from trusted code."""

    def __init__(
        self, connection: Connection, inbox: Inbox, domain: str, patience_seconds: float
    ) -> None:
        """As `JetStream`."""
        self.connection = connection
        self._inbox = inbox
        self._api = f"$JS.{domain}.API" if domain else "$JS.API"
        self._patience_seconds = patience_seconds

    async def api(self, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Any other API call (``STREAM.INFO.x``, ``STREAM.CREATE.x`` …); the answer as it is.

        Raises NotFoundError (no such stream), ApiRefusedError, UnavailableError.
        """
        message = await self._ask(verb, msgspec.json.encode(body) if body is not None else b"")
        answer: dict[str, Any] = msgspec.json.decode(message.data)
        if "error" in answer:
            error = msgspec.convert(answer["error"], ApiError)
            if error.err_code == STREAM_NOT_FOUND:
                raise NotFoundError(error.description)
            raise ApiRefusedError(error.description, err_code=error.err_code)
        return answer

    async def _ask(self, verb: str, body: bytes) -> Message:
        """A read: a time-out is only unavailability."""
        return await self._read(self._request, f"{self._api}.{verb}", body, None)

    async def _read[T, **P](
        self, ask: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The result of ``ask``. Raises UnavailableError when it never gives one."""
        failure: HoldfastError | None = None
        tries = self._tries(_READ_TRIES)
        while tries.is_first() or await tries.wait():
            try:
                if self._patience_seconds and not self.connection.is_connected:
                    await self.connection.wait_connected(attempt_seconds())
                return await ask(*args, **kwargs)
            except ApiRefusedError:
                raise
            except UnavailableError as error:
                failure = error
            except TimeoutError as error:
                failure = UnavailableError("the store did not answer in time")
                failure.__cause__ = error
        raise failure or UnavailableError(NO_TIME)

    async def _request(
        self, subject: str, data: bytes | memoryview, headers: Mapping[str, str] | None
    ) -> Message:
        with self._asking():
            message = await self._inbox.request(
                subject, data, headers=headers, timeout_seconds=attempt_seconds()
            )
            # Stored messages have headers, and may look like anything; answers have none.
            if SEQUENCE not in message.headers and is_not_now(message.data):
                raise NotNowError(NOBODY)
        return message

    def _tries(self, at_least: int) -> Tries:
        return Tries(self.connection, at_least, self._patience_seconds)

    def _asking(self) -> _Asking:
        return _Asking(self.connection.liveness)


class _Asking:
    """Tells ``liveness`` where there is nobody, or no answer.

    Raises NoRespondersError, NotNowError, TimeoutError, and DeniedError where this process lacks a
    right, not the caller whom it serves: the cause says which.
    """

    __slots__ = ("_asked_at", "_liveness")

    def __init__(self, liveness: Liveness) -> None:
        self._liveness = liveness
        self._asked_at = time.monotonic()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, NotNowError | NoRespondersError):
            self._liveness.nobody(self._asked_at)
        elif isinstance(error, TimeoutError):
            self._liveness.unanswered(self._asked_at)
        if isinstance(error, NoRespondersError):
            raise NoRespondersError(NOBODY) from error
        if isinstance(error, ForbiddenError):
            msg = "the store refuses this worker: its NATS user lacks a right"
            raise DeniedError(msg) from error


class Tries:
    """When to try again: ``at_least`` times, and for ``patience_seconds``; never past the deadline.

    Nor once ``connection`` is closed: a thread of a worker that stops may wait for this to end.
    There are growing, jittered waits in between. Used once: ``while tries.is_first() or await
    tries.wait()``. The first attempt, which hardly ever fails, costs next to nothing.
    """

    __slots__ = ("_at_least", "_backoff", "_connection", "_made", "_uncounted", "_until")

    def __init__(self, connection: Connection, at_least: int, patience_seconds: float) -> None:
        self._connection = connection
        self._at_least = at_least
        self._until = time.monotonic() + patience_seconds
        self._made = 0
        self._uncounted = 0
        self._backoff: Backoff | None = None

    def again(self) -> bool:
        """Whether another turn may be waited for; then the attempt that was made does not count."""
        self._uncounted += 1
        return self._uncounted <= _TURNS

    def is_first(self) -> bool:
        """Whether this is the first attempt; then it is made, if there is any time."""
        if self._made or seconds_left(math.inf) <= 0:
            return False
        self._made = 1
        return True

    async def wait(self) -> bool:
        """Wait for the next attempt; False when there is to be none."""
        if not self._made or self._connection.is_closed:
            return False
        counted = self._made - self._uncounted
        if counted >= self._at_least and time.monotonic() >= self._until:
            return False
        if self._backoff is None:
            self._backoff = Backoff(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS)
        if not await self._backoff.wait():
            return False
        self._made += 1
        return True


def attempt_seconds() -> float:
    """Seconds for one attempt; not above 0 when the request that it serves is overdue."""
    return seconds_left(ATTEMPT_SECONDS)


def is_not_now(answer: bytes | memoryview) -> bool:
    """Whether JetStream says that it cannot at the moment. Only what looks so is decoded."""
    head = answer if isinstance(answer, bytes) else bytes(answer[:_ERROR_HEAD_BYTES])
    if head.find(b'"error"', 0, _ERROR_HEAD_BYTES) < 0:
        return False
    error = msgspec.json.decode(answer, type=ErrorAnswer).error
    return error is not None and error.err_code in NOT_NOW
