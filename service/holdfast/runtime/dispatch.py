"""The one place that turns failures into answers: decode, answer, encode.

It never sees a connection, so it is tested with bytes. A HoldfastError becomes its code and
message; anything else is a bug, logged in full and reported as ``internal`` without detail.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from holdfast.deadline import TimeLimit, Timers
from holdfast.domain.digest import is_digest
from holdfast.domain.limits import MAX_OP_ID_CHARS
from holdfast.domain.op_id import bind_op_id
from holdfast.errors import (
    HoldfastError,
    InternalError,
    InvalidError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.handlers.endpoint import BytesReply, Call, Forward, Messages, Sent
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.operation import Body

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Buffer, Callable, Mapping

    from holdfast.handlers.endpoint import AnyEndpoint
    from holdfast.protocol.message import Reply
    from holdfast.sources import Sources

MAX_TIMEOUT_SECONDS: Final = 3600.0
_OP_ID: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_OP_ID_CHARS}}}", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)
_TIMEOUTS: Final = 256
_SHORTEST_SECONDS: Final = 0.001
_MARGIN: Final = 0.05
_MOST_MARGIN_SECONDS: Final = 0.5
_FORWARDED_HEADERS: Final = (names.CONTENT_TYPE, names.OP_ID, names.TRACEPARENT)
log = structlog.get_logger(__name__)


class Answer(msgspec.Struct, frozen=True):
    """The answer: one message, and for a window those that follow. ``error`` names a failure.

    With ``node`` it does not go back: it is the request, for a worker of that node to answer. If it
    ``is_sent`` there is no message from here, only what ``deliver`` has sent, or ``messages``, each
    with its headers.
    """

    headers: Mapping[str, str]
    body: Buffer
    error: HoldfastError | None = None
    deliver: Callable[[str], Awaitable[None]] | None = None
    pieces: AsyncGenerator[Buffer] | None = None
    messages: AsyncGenerator[tuple[Mapping[str, str], Buffer]] | None = None
    node: str | None = None
    is_sent: bool = False

    @property
    def has_more(self) -> bool:
        """Whether one message is not all of it."""
        return not (self.deliver is None and self.pieces is None and self.messages is None)


class Dispatcher:
    """Answers requests; knows the time."""

    def __init__(self, sources: Sources, *, timeout_seconds: float) -> None:
        """``timeout_seconds`` applies where the caller names none."""
        self._sources = sources
        self._timeout_seconds = timeout_seconds
        self._timers = Timers()

    async def answer(
        self,
        endpoint: AnyEndpoint,
        subject: str,
        headers: Mapping[str, str],
        body: Buffer,
        *,
        forwarded: bool = False,
        age_seconds: float = 0.0,
    ) -> Answer:
        """Never raises but CancelledError. A ``forwarded`` request is not forwarded again.

        A change is refused whose caller may not wait any more, for the request may be so old.
        """
        encoding = codec.Encoding.JSON
        try:
            encoding = _encoding(endpoint, headers)
            request = _decode(endpoint, headers, body, encoding)
            op_id = _op_id(headers, endpoint, request)
            left = self._seconds(headers)
            if endpoint.operation.mutates:
                left = _left(left, age_seconds)
            call = self._call(subject, left, body, op_id, forwarded=forwarded)
            # A wait below gives up a moment before, and can still say what is known.
            told = left - min(left * _MARGIN, _MOST_MARGIN_SECONDS)
            with TimeLimit(self._timers, left, told=told):
                reply = await endpoint.handle(request, call)
            if isinstance(reply, Forward):
                return _forwarded(reply, headers, body, call)
            return _answered(reply, encoding)
        except HoldfastError as error:
            if isinstance(error, InternalError):
                log.exception("request_failed", subject=endpoint.operation.subject)
            return _failure(error, encoding)
        except TimeoutError:
            return _failure(out_of_time(endpoint), encoding)
        except Exception:
            log.exception("request_failed", subject=endpoint.operation.subject)
            return _failure(InternalError(), encoding)

    def _call(
        self,
        subject: str,
        seconds: float,
        body: Buffer,
        op_id: str | None,
        *,
        forwarded: bool,
    ) -> Call:
        return Call(
            now=self._sources.clock(),
            op_id=op_id,
            data=body,
            target=subject.rpartition(".")[2],
            seconds=seconds,
            until=self._sources.monotonic() + seconds,
            monotonic=self._sources.monotonic,
            forwarded=forwarded,
        )

    def _seconds(self, headers: Mapping[str, str]) -> float:
        text = headers.get(names.TIMEOUT)
        if text is None:
            return self._timeout_seconds
        return _told_seconds(text)


@lru_cache(maxsize=_TIMEOUTS)
def _told_seconds(text: str) -> float:
    """The seconds that a ``Timeout`` says; clients say the same again and again."""
    if _SECONDS.fullmatch(text) is None or not 0 < float(text) <= MAX_TIMEOUT_SECONDS:
        msg = f"Timeout is a number of seconds, at most {MAX_TIMEOUT_SECONDS:.0f}"
        raise InvalidError(msg)
    return float(text)


def _left(seconds: float, age_seconds: float) -> float:
    """The rest of ``seconds`` for a request of that age. Raises UnavailableError."""
    if age_seconds >= seconds:
        msg = "the request came too late: it may be repeated"
        raise UnavailableError(msg)
    return seconds - age_seconds


def out_of_time(endpoint: AnyEndpoint) -> HoldfastError:
    """The error of a request that did not end in time."""
    if endpoint.operation.mutates:
        return OutcomeUnknownError("the request did not end in time and may yet be applied")
    return UnavailableError("the request did not end in time")


def _answered(
    reply: Reply | BytesReply[Any] | Sent | Messages[Any], encoding: codec.Encoding
) -> Answer:
    if isinstance(reply, Messages):
        return Answer({}, b"", messages=_messages(reply), is_sent=True)
    if isinstance(reply, Sent):
        return Answer({}, b"", deliver=reply.deliver, is_sent=True)
    if isinstance(reply, BytesReply):
        return Answer(
            codec.encode_headers(reply.head),
            reply.data,
            deliver=reply.deliver,
            pieces=reply.pieces,
        )
    return Answer({names.CONTENT_TYPE: encoding.value}, codec.encode(reply, encoding))


async def _messages(
    reply: Messages[Any],
) -> AsyncGenerator[tuple[Mapping[str, str], Buffer]]:
    async with aclosing(reply.messages) as messages:
        async for message in messages:
            headers = codec.encode_headers(message.head)
            yield {names.CONTENT_TYPE: reply.type, **headers}, message.data


def _forwarded(forward: Forward, headers: Mapping[str, str], body: Buffer, call: Call) -> Answer:
    """The request as it goes on, with what is left of the caller's time. Raises TimeoutError."""
    left = call.seconds_left()
    if left < _SHORTEST_SECONDS:
        raise TimeoutError
    kept = {name: headers[name] for name in _FORWARDED_HEADERS if name in headers}
    return Answer({**kept, names.TIMEOUT: f"{left:.3f}"}, body, node=forward.node)


def _failure(error: HoldfastError, encoding: codec.Encoding) -> Answer:
    headers, body = codec.encode_error(error, encoding)
    return Answer(headers, body, error)


def _encoding(endpoint: AnyEndpoint, headers: Mapping[str, str]) -> codec.Encoding:
    """A body of bytes may say anything of its type; its answer is JSON unless msgpack is asked."""
    if endpoint.operation.request_body is Body.BYTES:
        is_msgpack = headers.get(names.CONTENT_TYPE) == codec.MSGPACK_TYPE
        return codec.Encoding.MSGPACK if is_msgpack else codec.Encoding.JSON
    return codec.encoding_of(headers)


def _decode(
    endpoint: AnyEndpoint, headers: Mapping[str, str], body: Buffer, encoding: codec.Encoding
) -> Any:
    operation = endpoint.operation
    if operation.request_body is Body.BYTES:
        return codec.decode_request_headers(headers, operation.request)
    if operation.bare and memoryview(body).nbytes == 64:
        digest = bytes(body).decode("latin-1")
        if is_digest(digest):
            return operation.request(digest=digest)
    return codec.decode_request(body, operation.request, encoding)


def _op_id(headers: Mapping[str, str], endpoint: AnyEndpoint, request: Any) -> str | None:
    """The ``Op-Id``, bound to what is asked with it: it stands for no other request."""
    op_id = headers.get(names.OP_ID)
    if op_id is None:
        return None
    if _OP_ID.fullmatch(op_id) is None:
        msg = f"Op-Id is 1 to {MAX_OP_ID_CHARS} printable ASCII characters"
        raise InvalidError(msg)
    return bind_op_id(op_id, endpoint.operation.subject, codec.meaning(request))
