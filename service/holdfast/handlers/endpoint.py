"""A handler: an operation, and the method that answers it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal

import msgspec

from holdfast.errors import TooLargeError
from holdfast.protocol.operation import Operation, ReplyT, RequestT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Buffer, Callable
    from datetime import datetime

Lane = Literal["requests", "parts", "watches"]


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a request beside its message.

    ``op_id`` is bound to what is asked (`holdfast.domain.op_id`). ``data`` is the payload of an
    operation whose body is bytes, ``target`` the last token of the subject. The caller waits for
    ``seconds``, until ``until`` by the clock ``monotonic``. ``forwarded``: another worker passed
    the request on, so it is to be answered here.
    """

    now: datetime
    op_id: str | None
    data: Buffer
    target: str
    seconds: float
    until: float
    monotonic: Callable[[], float]
    forwarded: bool = False

    def check_inline(self, most_bytes: int, instead: str) -> None:
        """Raises TooLargeError of more than ``most_bytes``, which says to use ``instead``."""
        if memoryview(self.data).nbytes > most_bytes:
            raise TooLargeError(f"one message carries at most {most_bytes} bytes: use {instead}")

    def has_time(self) -> bool:
        """Whether half of the caller's time is left."""
        return self.seconds_left() > self.seconds / 2

    def seconds_left(self) -> float:
        """Seconds left of the caller's time."""
        return self.until - self.monotonic()


@dataclass(frozen=True, slots=True)
class Forward:
    """The request is for a worker of ``node``, which answers the caller itself."""

    node: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The answer does not come from here: ``deliver`` has it sent to the reply subject."""

    deliver: Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesReply(Generic[ReplyT]):
    """A reply whose fields travel as headers of the message that carries ``data``.

    A window follows on the same reply subject: sent there by ``deliver``, or as ``pieces``.
    """

    head: ReplyT
    data: Buffer = b""
    deliver: Callable[[str], Awaitable[None]] | None = None
    pieces: AsyncGenerator[Buffer] | None = None


@dataclass(frozen=True, slots=True)
class Messages(Generic[ReplyT]):
    """A reply of many messages, which may last far longer than the caller waits for the first.

    ``type`` is the media type of each. An error among them ends it with that failure.
    """

    type: str
    messages: AsyncGenerator[BytesReply[ReplyT]]


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[RequestT, ReplyT]):
    """The type checker refuses a handler whose types differ from its operation.

    ``local`` says that the answer depends on the node, so that requests may be forwarded. Each
    ``lane`` has a limit of its own on what is under way, so that neither starves the other. This
    worker alone answers on its ``own_subject``, too. With ``fresh_seconds`` a request that may have
    been under way for longer is not answered at all: its caller has asked others by now.
    """

    operation: Operation[RequestT, ReplyT]
    handle: Callable[
        [RequestT, Call],
        Awaitable[ReplyT | BytesReply[ReplyT] | Sent | Forward | Messages[ReplyT]],
    ]
    local: bool = False
    lane: Lane = "requests"
    own_subject: str | None = None
    fresh_seconds: float = math.inf


AnyEndpoint = Endpoint[Any, Any]
