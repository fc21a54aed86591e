"""Bulk reads by Direct Get: from any replica, one message or many at once (ADR-31)."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import aclosing, closing, suppress
from itertools import batched
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.deadline import seconds_left
from holdfast.errors import UnavailableError
from holdfast.transport.inbox import raise_for_status
from holdfast.transport.jetstream_calls import ATTEMPT_SECONDS, JetStreamCalls, attempt_seconds
from holdfast.transport.jetstream_messages import (
    END_OF_BATCH,
    NO_SUCH_MESSAGE,
    PENDING,
    ApiRefusedError,
    StoredMessage,
    stored_or_none,
    stored_or_status,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from holdfast.transport.connection import Connection
    from holdfast.transport.inbox import Inbox
    from holdfast.transport.message import Message

_MESSAGES_AT_ONCE: Final = 32
"""Of a batch that has arrived: then others have their turn."""

_NO_STATUS: Final = b"NATS/1.0\r\n"
_SUBJECTS_AT_ONCE: Final = 128
_QUOTES_BYTES: Final = 3
_LASTS_AT_ONCE: Final = 4
"""Answers of one stream that may be on their way together, each of 128 records: those of blobs have
12 KiB at the most, those of snapshots and states 64. A server gives up a client that is 64 MiB
behind."""

TRACE_TO: Final = "Nats-Trace-Dest"
_TRACE_SECONDS: Final = 0.5
_FROM_CLIENT: Final = 0
_TO_SERVER: Final = 1


class DirectReads(JetStreamCalls):
    """The message that some replica of a stream has. None is no proof of absence."""

    def __init__(
        self, connection: Connection, inbox: Inbox, domain: str, patience_seconds: float
    ) -> None:
        """As `JetStream`."""
        super().__init__(connection, inbox, domain, patience_seconds)
        self._lasts = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(_LASTS_AT_ONCE))

    async def direct_last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message on ``subject`` that some replica has. None is not proof of absence."""
        message = await self._ask(f"DIRECT.GET.{stream}.{subject}", b"")
        return stored_or_none(message)

    async def direct_lasts(
        self, stream: str, subjects: Sequence[str], *, since: int = 0
    ) -> list[StoredMessage]:
        """The last message on each of ``subjects`` where some replica has one, in no order.

        Those whose sequences are less than ``since`` are left out, and cost next to nothing.
        A server answers a request once it has found all, which where they lie far apart on a disk
        takes it longer than anybody waits: many are asked for in several requests.
        """
        longest = max(map(len, subjects), default=1) + _QUOTES_BYTES
        at_once = min(_SUBJECTS_AT_ONCE, max(self.connection.max_payload // 2 // longest, 1))

        queries = (
            {"multi_last": list(some), "batch": len(some), "seq": since}
            for some in batched(subjects, at_once)
        )
        answers = await asyncio.gather(
            *(self._read(self._direct_lasts, stream, query) for query in queries)
        )
        return [message for messages in answers for message in messages]

    async def _direct_lasts(self, stream: str, query: Mapping[str, Any]) -> list[StoredMessage]:
        turns = self._lasts[stream]
        async with asyncio.timeout(attempt_seconds()):
            await turns.acquire()
        try:
            return (await self._direct_batch(stream, query, ATTEMPT_SECONDS))[0]
        finally:
            turns.release()

    async def direct_at(self, stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        """The one message that some replica has for ``query``. None is not proof of absence."""
        message = await self._ask(f"DIRECT.GET.{stream}", msgspec.json.encode(query))
        return stored_or_none(message)

    async def direct_each(
        self, stream: str, queries: Sequence[Mapping[str, Any]]
    ) -> list[StoredMessage]:
        """For each of ``queries`` the one message that some replica has, if any, in no order.

        As `direct_at`, all at once and for less. Each may go to another replica.
        """
        return await self._read(self._direct_each, stream, queries)

    async def _direct_each(
        self, stream: str, queries: Sequence[Mapping[str, Any]]
    ) -> list[StoredMessage]:
        found: list[StoredMessage] = []
        answered = 0
        async with aclosing(self._answers(stream, queries, attempt_seconds())) as answers:
            async for answer in answers:
                stored = stored_or_none(answer)
                if stored is not None:
                    found.append(stored)
                answered += 1
                if answered == len(queries):
                    break
        return found

    async def direct_told(
        self, stream: str, query: Mapping[str, Any]
    ) -> tuple[list[StoredMessage], str]:
        """The messages that a replica has for ``query``, a batch or one, and the server's name.

        The name is empty where it is unknown.
        """
        return await self._read(self._direct_told, stream, query)

    async def _direct_told(
        self, stream: str, query: Mapping[str, Any]
    ) -> tuple[list[StoredMessage], str]:
        with closing(_Trace(self._inbox)) as trace:
            if "batch" in query:
                found, _ = await self._direct_batch(stream, query, ATTEMPT_SECONDS, trace.headers)
            else:
                subject, body = f"{self._api}.DIRECT.GET.{stream}", msgspec.json.encode(query)
                stored = stored_or_none(await self._request(subject, body, trace.headers))
                found = [] if stored is None else [stored]
            return found, await trace.answerer()

    def request_batch(
        self,
        stream: str,
        query: Mapping[str, Any],
        reply: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Have the messages of a Direct Get sent to ``reply``; nothing is awaited.

        Raises UnavailableError when the request cannot be sent.
        """
        body = msgspec.json.encode(query)
        subject = f"{self._api}.DIRECT.GET.{stream}"
        self.connection.send(subject, body, reply=reply, headers=headers)

    async def direct_batch(
        self, stream: str, query: Mapping[str, Any], *, idle_seconds: float = ATTEMPT_SECONDS
    ) -> tuple[list[StoredMessage], int]:
        """A batched Direct Get (ADR-31): its messages, and how many more match.

        Raises UnavailableError when the batch does not end within ``idle_seconds`` of its last
        message: a short batch never looks like a whole one.
        """
        return await self._read(self._direct_batch, stream, query, idle_seconds)

    async def _direct_batch(
        self,
        stream: str,
        query: Mapping[str, Any],
        idle_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[list[StoredMessage], int]:
        messages: list[StoredMessage] = []
        pending = 0
        async with aclosing(self._answers(stream, [query], idle_seconds, headers)) as answers:
            async for answer in answers:
                stored = stored_or_status(answer)
                if isinstance(stored, StoredMessage):
                    messages.append(stored)
                elif stored == END_OF_BATCH:
                    pending = int(answer.headers.get(PENDING, "0"))
                    break
                elif stored == NO_SUCH_MESSAGE:
                    break
                else:
                    raise ApiRefusedError(f"the store refused a batched read ({stored})")
        return messages, pending

    async def _answers(
        self,
        stream: str,
        queries: Sequence[Mapping[str, Any]],
        idle_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Message]:
        """The answers to Direct Gets, for ever.

        Raises UnavailableError, also when nothing has come for ``idle_seconds``.
        """
        subject = f"{self._api}.DIRECT.GET.{stream}"
        arrivals = _Arrivals(len(queries))
        mailbox = self._inbox.open(arrivals.receive, subject)
        try:
            with closing(mailbox), self._asking():
                for query in queries:
                    self.request_batch(stream, query, mailbox.subject, headers)
                while True:
                    for number, message in enumerate(await arrivals.take(idle_seconds), 1):
                        raise_for_status(message, subject)
                        yield message
                        if number % _MESSAGES_AT_ONCE == 0:
                            await asyncio.sleep(0)
        except TimeoutError as error:
            raise UnavailableError("the store did not finish a batched read") from error


class _Arrivals:
    """The messages that have come to a mailbox. To wake a task for each would cost more than it."""

    def __init__(self, last: int) -> None:
        """When ``last`` have come there may be no more."""
        self._last = last
        self._count = 0
        self._messages: list[Message] = []
        self._arrived_at = time.monotonic()
        self._wake = asyncio.Event()

    def receive(self, message: Message) -> None:
        """Keep it, and wake who waits if that is worth while, or if it may be the last."""
        self._messages.append(message)
        self._count += 1
        self._arrived_at = time.monotonic()
        if (
            self._count == self._last
            or len(self._messages) >= _MESSAGES_AT_ONCE
            or not message.raw_headers.startswith(_NO_STATUS)
        ):
            self._wake.set()

    async def take(self, idle_seconds: float) -> list[Message]:
        """All that have come; TimeoutError if none has for ``idle_seconds``."""
        patience = max(self._arrived_at + idle_seconds - time.monotonic(), 0.0)
        try:
            if not self._wake.is_set():
                async with asyncio.timeout(seconds_left(patience)):
                    await self._wake.wait()
        except TimeoutError:
            if not self._messages:
                raise
        messages, self._messages = self._messages, []
        self._wake.clear()
        return messages


class _Hop(msgspec.Struct, frozen=True):
    type: str = ""
    kind: int = -1
    name: str = ""


class _Server(msgspec.Struct, frozen=True):
    name: str


class _Told(msgspec.Struct, frozen=True):
    server: _Server
    events: list[_Hop] = []


class _Trace:
    """The way of one request, which is sent with these ``headers``. Close it.

    Only the server to which this process is connected tells it: it passed the request on to
    another, or it has answered itself. Nothing is told to a user who may not publish to its own
    inbox.
    """

    def __init__(self, inbox: Inbox) -> None:
        """The trace comes to ``inbox``."""
        self._answerer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._mailbox = inbox.open(self._receive)
        self.headers = {TRACE_TO: self._mailbox.subject}

    async def answerer(self) -> str:
        """The name of the server that has answered; empty where that is not told."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TRACE_SECONDS):
                return await self._answerer
        return ""

    def close(self) -> None:
        """Ignore what still comes."""
        self._mailbox.close()

    def _receive(self, message: Message) -> None:
        name = answerer_told(message.data)
        if name is not None and not self._answerer.done():
            self._answerer.set_result(name)


def answerer_told(told: bytes | memoryview) -> str | None:
    """The server that answered, by one's trace ``told``; None where another is to tell."""
    try:
        way = msgspec.json.decode(told, type=_Told)
    except msgspec.MsgspecError:
        return None
    came, *went = way.events or [_Hop()]
    if (came.type, came.kind) != ("in", _FROM_CLIENT):
        return None
    onward = [hop for hop in went if hop.type == "eg"]
    if not onward:
        return way.server.name
    return onward[0].name if len(onward) == 1 and onward[0].kind == _TO_SERVER else ""
