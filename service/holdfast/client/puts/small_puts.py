"""Small puts that go together in one request: by itself each costs more than to store it.

Those that come while others are under way are put together next, so the more there are the larger
a request gets, and one that is alone does not wait. A put that a request of several does not settle
is asked for again by itself, under the same ``Op-Id`` (see ``PutBlobs``).

Why: docs/decisions.md, "Small puts that come together share a request".
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from holdfast.client.requests import NotOfferedError, Requester, least_seconds_of
from holdfast.deadline import Gathering, Timers
from holdfast.domain.limits import KIB, MAX_BLOBS_PER_PUT, max_inline_bytes
from holdfast.errors import (
    HoldfastError,
    InternalError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.protocol import codec
from holdfast.protocol.blobs import (
    PUT_BLOB,
    PUT_BLOBS,
    BlobStored,
    BlobToPut,
    PutBlob,
    PutBlobs,
    PutResult,
)
from holdfast.protocol.problem import error_of
from holdfast.tracing import TRACE, TraceStep
from holdfast.transport.fresh_ids import new_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence


MOST_BYTES_EACH: Final = 64 * KIB
"""Beyond, a request of its own costs little beside the bytes."""

REQUESTS_AT_ONCE: Final = 4
"""Enough to keep several workers busy; fewer, larger requests would cost less yet."""

FEW: Final = 32
"""No more go into one request while others could be sent beside it."""

ALONE_AT_ONCE: Final = 64
"""Of those that did not go together: a worker takes 256 requests at once, and not only ours."""

NOT_OFFERED_SECONDS: Final = 30.0
"""After which a pool that did not know the verb, or did not let us, is asked again."""

SHORTEST_SECONDS: Final = 0.001
_NOBODY: Final = "no worker answered in time"


@dataclass(frozen=True, slots=True)
class _Alone:
    """To be put by itself, under ``op_id``; ``maybe_applied``: it may be stored already."""

    op_id: str
    maybe_applied: bool = False


@dataclass(slots=True, eq=False)
class _Waiting:
    """One put, until it is settled or ``until`` by the loop's clock. ``sent``: in a request.

    ``trace`` is that of its put.
    """

    blob: BlobToPut
    until: float
    sent: bool = False
    trace: TraceStep | None = field(default_factory=TRACE.get)
    done: asyncio.Future[BlobStored | _Alone] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, result: BlobStored | _Alone) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def expire(self) -> None:
        if self.sent:
            self.fail(OutcomeUnknownError("no worker said whether it was done"))
        else:
            self.fail(UnavailableError(_NOBODY))


class SmallPuts:
    """The puts of one client that go as one message each, or several in one."""

    def __init__(self, requester: Requester) -> None:
        """``requester`` asks the pool."""
        self._requester = requester
        self._under_way = 0
        self._asking = 0
        self._waiting: deque[_Waiting] = deque()
        self._gathering = Gathering(self._take, REQUESTS_AT_ONCE)
        self._alone_at_once = asyncio.Semaphore(ALONE_AT_ONCE)
        self._timers = Timers()
        self._offered_from = -math.inf

    async def put(self, request: PutBlob, data: memoryview) -> BlobStored:
        """The answer of ``blob.put``, of which ``request`` names the digest.

        Raises as `Requester.ask`.
        """
        self._requester.check_usable()
        self._under_way += 1
        try:
            if self._under_way == 1 or len(data) > MOST_BYTES_EACH or request.digest is None:
                return await self._requester.ask(PUT_BLOB, request, data)
            until = self._now() + self._requester.timeout_seconds
            settled: BlobStored | _Alone = _Alone(new_id())
            if self._now() >= self._offered_from:
                blob = BlobToPut(data=bytes(data), digest=request.digest, type=request.type)
                settled = await self._together(_Waiting(blob, until))
            if isinstance(settled, BlobStored):
                return settled
            async with self._alone_at_once:
                left = until - self._now()
                least = least_seconds_of(self._requester.timeout_seconds)
                if not settled.maybe_applied and left < least:
                    raise UnavailableError(_NOBODY)
                return await self._requester.ask(
                    PUT_BLOB,
                    request,
                    data,
                    timeout_seconds=max(left, SHORTEST_SECONDS),
                    op_id=settled.op_id,
                    maybe_applied=settled.maybe_applied,
                    least_seconds=least,
                )
        finally:
            self._under_way -= 1

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _together(self, one: _Waiting) -> BlobStored | _Alone:
        self._waiting.append(one)
        self._gathering.schedule()
        self._timers.start(one, one.until, one.expire)
        try:
            return await one.done
        finally:
            self._timers.stop(one)

    def _take(self) -> Coroutine[Any, Any, None] | None:
        """A request with those that have waited longest; as many as leave some to the others."""
        share = max(FEW, math.ceil(len(self._waiting) / (REQUESTS_AT_ONCE - self._asking)))
        room = max_inline_bytes(self._requester.connection.max_payload)
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < min(share, MAX_BLOBS_PER_PUT):
            one = self._waiting[0]
            if not one.done.done():
                room -= len(one.blob.data)
                if taken and room < 0:
                    break
                taken.append(one)
            self._waiting.popleft()
        if not taken:
            return None
        self._asking += 1
        return self._store(taken, new_id())

    async def _store(self, puts: Sequence[_Waiting], op_id: str) -> None:
        """Settle all of ``puts``. Nobody is left without an answer.

        The request of several belongs to the trace of the first.
        """
        TRACE.set(puts[0].trace)
        try:
            if len(puts) == 1:
                _leave_alone(puts, op_id)
                return
            _settle(puts, op_id, await self._ask(puts, op_id))
        except NotOfferedError as error:
            self._offered_from = self._now() + NOT_OFFERED_SECONDS
            _leave_alone(puts, op_id, maybe_applied=error.maybe_applied)
        except HoldfastError as error:
            if not error.retryable:  # one of them may be to blame
                _leave_alone(puts, op_id, maybe_applied=isinstance(error, InternalError))
            for one in puts:
                one.fail(error)
        finally:
            self._asking -= 1
            for one in puts:
                one.done.cancel()  # the loop is ending

    async def _ask(self, puts: Sequence[_Waiting], op_id: str) -> Sequence[PutResult]:
        for one in puts:
            one.sent = True
        reply = await self._requester.ask(
            PUT_BLOBS,
            PutBlobs(blobs=[one.blob for one in puts]),
            encoding=codec.Encoding.MSGPACK,
            op_id=op_id,
            timeout_seconds=max(one.until for one in puts) - self._now(),
            is_new=True,
        )
        if len(reply.results) != len(puts):
            raise InternalError(f"of {len(puts)} blobs {len(reply.results)} were answered")
        return reply.results


def _leave_alone(puts: Sequence[_Waiting], op_id: str, *, maybe_applied: bool = False) -> None:
    for number, one in enumerate(puts):
        one.settle(_Alone(f"{op_id}.{number}", maybe_applied))


def _settle(puts: Sequence[_Waiting], op_id: str, results: Sequence[PutResult]) -> None:
    for number, (one, result) in enumerate(zip(puts, results, strict=True)):
        if result.problem is not None:
            if result.problem.retryable:
                is_unknown = result.problem.code == OutcomeUnknownError.code
                one.settle(_Alone(f"{op_id}.{number}", is_unknown))
            else:
                one.fail(error_of(result.problem))
        elif result.digest is None or result.size is None or result.created is None:
            one.fail(InternalError("the answer does not say what became of the blob"))
        else:
            one.settle(BlobStored(digest=result.digest, size=result.size, created=result.created))
