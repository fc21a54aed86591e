"""Changes as they happen: a watch that any worker carries on where another left it.

A worker tells up to a credit of events, and for as long as its lease: then, or when it falls
silent, any worker is asked to go on. So nothing piles up before a slow reader, and a worker that
dies is not missed. What comes twice is dropped here.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from holdfast.client.requests import ATTEMPT_SECONDS, worker_seconds
from holdfast.errors import InternalError, RateLimitedError, UnavailableError
from holdfast.protocol import codec
from holdfast.protocol import headers as names
from holdfast.protocol.watch import WATCH, WatchChanges, WatchEvent, WatchHead
from holdfast.transport.backoff import Backoff
from holdfast.transport.inbox import raise_for_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.client.requests import Requester
    from holdfast.protocol.watch import WatchKind
    from holdfast.transport.message import Message

_SILENT_HEARTBEATS: Final = 2.2
_FIRST_WAIT_SECONDS: Final = 0.05
_MAX_WAIT_SECONDS: Final = 2.0


class News:
    """Which events were had already, by their revisions."""

    def __init__(self) -> None:
        """None."""
        self._position = -1
        self._beyond: set[int] = set()

    def is_new(self, revision: int) -> bool:
        """Whether the event was not had before. It is from now on."""
        if revision <= self._position or revision in self._beyond:
            return False
        self._beyond.add(revision)
        return True

    def passed(self, position: int) -> None:
        """All events up to ``position`` were had."""
        if position > self._position:
            self._position = position
            self._beyond = {revision for revision in self._beyond if revision > position}


async def watched(requester: Requester, request: WatchChanges) -> AsyncGenerator[WatchEvent]:
    """The events that ``request`` asks for, each once, for ever. See ``Client.watch``."""
    news = News()
    backoff: Backoff | None = None
    while True:
        requester.check_usable()
        try:
            async with aclosing(_told(requester, request)) as messages:
                async for head, events in messages:
                    backoff = None
                    for event in events:
                        if news.is_new(int(event.sequence)):
                            yield event
                    news.passed(head.position)
                    request = replace(request, since=None, cursor=head.cursor)
        except (UnavailableError, RateLimitedError):
            if backoff is None:
                seconds = requester.timeout_seconds
                backoff = Backoff(_FIRST_WAIT_SECONDS, _MAX_WAIT_SECONDS, within_seconds=seconds)
            if requester.connection.is_closed or not await backoff.wait():
                raise


async def position(requester: Requester, kind: WatchKind) -> int:
    """Where a watch would begin. See ``Client.position``."""
    head, _ = await requester.ask_for_bytes(WATCH, WatchChanges(kind=kind, credit=0), 0)
    return head.position


async def _told(
    requester: Requester, request: WatchChanges
) -> AsyncGenerator[tuple[WatchHead, list[WatchEvent]]]:
    """What one worker tells, until it ends or falls silent. Raises what it answers."""
    connection, subject = requester.connection, requester.subject(WATCH)
    await connection.wait_connected(ATTEMPT_SECONDS)
    arrived = _Arrived()
    mailbox = requester.inbox.open(arrived.take, subject)
    asked_at = time.monotonic()
    silence = float(ATTEMPT_SECONDS)
    head: WatchHead | None = None
    part = 0
    try:
        headers = {names.TIMEOUT: worker_seconds(ATTEMPT_SECONDS)}
        connection.send(subject, codec.encode(request), reply=mailbox.subject, headers=headers)
        while head is None or head.end is None:
            message = await arrived.next(silence)
            raise_for_status(message, subject)
            codec.raise_error(message.headers, message.data)
            if head is None:
                connection.liveness.answered()
            head = codec.decode_reply_headers(message.headers, WatchHead)
            if head.part != part:
                return  # some were lost, as with a server: as if it had fallen silent
            part += 1
            if head.heartbeat is not None:
                silence = head.heartbeat * _SILENT_HEARTBEATS
            yield head, _events(message)
    except TimeoutError as error:
        if head is None:
            connection.liveness.unanswered(asked_at)
            msg = "no worker answered in time"
            raise UnavailableError(msg) from error
    except UnavailableError:
        connection.liveness.nobody(asked_at)
        raise
    finally:
        mailbox.close()


def _events(message: Message) -> list[WatchEvent]:
    try:
        return msgspec.json.decode(message.data, type=list[WatchEvent])
    except msgspec.MsgspecError as error:
        msg = f"the answer holds no events: {error}"
        raise InternalError(msg) from error


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
