"""News that workers tell in many messages: one for a while, and then any other goes on.

A worker tells up to a credit, and for as long as its lease: then, or when it falls silent, any
worker is asked to go on. So nothing piles up before a slow reader, and a worker that dies is not
missed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeVar

from holdfast.client.requests import ATTEMPT_SECONDS, Requester, worker_seconds
from holdfast.client.trace import trace_headers
from holdfast.errors import RateLimitedError, UnavailableError
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.states import FollowHead
from holdfast.protocol.watch import WatchHead
from holdfast.transport.backoff import Backoff
from holdfast.transport.inbox import raise_for_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from holdfast.protocol.operation import Operation, RequestT
    from holdfast.transport.message import Message

HeadT = TypeVar("HeadT", WatchHead, FollowHead)

_SILENT_HEARTBEATS: Final = 2.2
_FIRST_WAIT_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 2.0


async def carried_on[T](
    requester: Requester, ask: Callable[[], AsyncGenerator[T]]
) -> AsyncGenerator[T]:
    """The items of ``ask``, which is called again whenever they end: for ever.

    Raises what it raises, but UnavailableError and RateLimitedError only once no worker has
    answered for as long as an answer is waited for.
    """
    backoff: Backoff | None = None
    while True:
        requester.check_usable()
        try:
            async with aclosing(ask()) as items:
                async for item in items:
                    backoff = None
                    yield item
        except (UnavailableError, RateLimitedError):
            if backoff is None:
                seconds = requester.timeout_seconds
                backoff = Backoff(_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS, within_seconds=seconds)
            if requester.connection.is_closed or not await backoff.wait():
                raise


async def told(
    requester: Requester,
    operation: Operation[RequestT, HeadT],
    request: RequestT,
    head_type: type[HeadT],
) -> AsyncGenerator[tuple[HeadT, Message]]:
    """The messages of one worker, until it ends or falls silent. Raises what it answers."""
    connection, subject = requester.connection, requester.subject(operation)
    await connection.wait_connected(ATTEMPT_SECONDS)
    arrived = _Arrived()
    mailbox = requester.inbox.open(arrived.take, subject)
    asked_at = time.monotonic()
    silence = float(ATTEMPT_SECONDS)
    head: HeadT | None = None
    part = 0
    try:
        headers = {names.TIMEOUT: worker_seconds(ATTEMPT_SECONDS)} | trace_headers()
        connection.send(subject, codec.encode(request), reply=mailbox.subject, headers=headers)
        while head is None or head.end is None:
            message = await arrived.next(silence)
            raise_for_status(message, subject)
            codec.raise_error(message.headers, message.data)
            if head is None:
                connection.liveness.answered()
            head = codec.decode_reply_headers(message.headers, head_type)
            if head.part != part:
                return  # some were lost, as with a server: as if it had fallen silent
            part += 1
            if head.heartbeat is not None:
                silence = head.heartbeat * _SILENT_HEARTBEATS
            yield head, message
    except TimeoutError as error:
        if head is None:
            connection.liveness.unanswered(asked_at)
            raise UnavailableError("no worker answered in time") from error
    except UnavailableError:
        connection.liveness.nobody(asked_at)
        raise
    finally:
        mailbox.close()


class _Arrived:
    """Messages in the order in which they came; as many as the credit that was given."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._last_at = asyncio.get_running_loop().time()

    def take(self, message: Message) -> None:
        """One has come."""
        self._last_at = asyncio.get_running_loop().time()
        self._messages.put_nowait(message)

    async def next(self, silence_seconds: float) -> Message:
        """The next one. Raises TimeoutError when none has come for ``silence_seconds``."""
        if self._messages.empty():
            async with asyncio.timeout_at(self._last_at + silence_seconds):
                return await self._messages.get()
        return self._messages.get_nowait()
