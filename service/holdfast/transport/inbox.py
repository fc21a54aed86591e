"""Replies to many requests over one subscription, each under a subject of its own.

Unlike nats-py's, a mailbox may get many messages: a window of a blob arrives as a head from a
worker and chunks from the server itself, all on one reply subject.
"""

from __future__ import annotations

import asyncio
import itertools
from functools import partial
from typing import TYPE_CHECKING, Final, override

from holdfast.deadline import Timers
from holdfast.errors import ForbiddenError, UnavailableError
from holdfast.protocol.headers import STATUS
from holdfast.transport.fresh_ids import new_id
from holdfast.transport.message import Message
from holdfast.transport.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.transport.connection import Connection, Route
    from holdfast.transport.observer import Denied

NO_RESPONDERS: Final = "503"
DENIED: Final = "403"
INTERRUPTED: Final = "499"
_DENIED_HEADERS: Final = b"NATS/1.0 403\r\n\r\n"
_INTERRUPTED_HEADERS: Final = b"NATS/1.0 499\r\n\r\n"
LATE_SECONDS: Final = 0.5
"""After a reconnect, for an answer that is on its way."""


class NoRespondersError(UnavailableError):
    """Nobody listens on the subject. Surely not applied."""


class Mailbox:
    """One reply subject. Close it, or messages to it are looked up for ever."""

    __slots__ = ("_inbox", "_token", "subject")

    def __init__(self, inbox: Inbox, token: str) -> None:
        """Made by ``Inbox.open``."""
        self._inbox = inbox
        self._token = token
        self.subject = f"{inbox.prefix}.{token}"

    def close(self) -> None:
        """Ignore what still comes. May be repeated."""
        self._inbox.forget(self._token)


class Inbox(Observer):
    """The reply subjects of one connection."""

    def __init__(self, connection: Connection, inbox_prefix: str = "_INBOX") -> None:
        """Subscribe. ``inbox_prefix`` is what this user may subscribe under."""
        self._connection = connection
        self.prefix = f"{inbox_prefix}.{new_id()}"
        self._tokens = itertools.count()
        self._receivers: dict[str, tuple[Route, str]] = {}
        self._timers = Timers()
        self._is_denied = False
        self._interrupted: list[tuple[str, tuple[Route, str]]] = []
        connection.route(f"{self.prefix}.*", self._receive)
        connection.observe(self)

    def open(self, receive: Route, asked: str = "") -> Mailbox:
        """A fresh reply subject whose messages go to ``receive``.

        When no answer will come, since this user may not publish to ``asked`` or the connection
        was lost or closed meanwhile, a message comes in its place: see ``raise_for_status``.
        """
        token = format(next(self._tokens), "x")
        self._receivers[token] = receive, asked
        return Mailbox(self, token)

    def forget(self, token: str) -> None:
        """Drop a mailbox."""
        self._receivers.pop(token, None)

    async def request(
        self,
        subject: str,
        data: bytes | memoryview = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float,
    ) -> Message:
        """Send and wait for one reply.

        Raises NoRespondersError, UnavailableError and ForbiddenError (of all three it is sure that
        nothing was applied), TimeoutError (unknown).
        """
        if self._is_denied:
            msg = f"the NATS user may not subscribe to {self.prefix}: set inbox_prefix"
            raise ForbiddenError(msg)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Message] = loop.create_future()
        token = format(next(self._tokens), "x")
        self._receivers[token] = partial(_answer, reply), subject
        try:
            address = f"{self.prefix}.{token}"
            self._connection.send(subject, data, reply=address, headers=headers)
            self._timers.start(token, loop.time() + timeout_seconds, partial(_time_out, reply))
            message = await reply
        finally:
            self._timers.stop(token)
            del self._receivers[token]
        raise_for_status(message, subject)
        return message

    def _receive(self, message: Message) -> None:
        receiver = self._receivers.get(message.subject.rpartition(".")[2])
        if receiver is not None:
            receiver[0](message)

    @override
    def is_waiting(self) -> bool:
        """While there is a mailbox."""
        return bool(self._receivers)

    @override
    def denied(self, denied: Denied) -> None:
        """Tell those waiting at once: no answer will come."""
        if not denied.publish and denied.subject.startswith(self.prefix.lower()):
            self._is_denied = True
        for token, (receive, asked) in list(self._receivers.items()):
            if self._is_denied or (denied.publish and asked.lower() == denied.subject):
                receive(Message(f"{self.prefix}.{token}", "", b"", _DENIED_HEADERS))

    @override
    def disconnected(self, server: str) -> None:
        """Remember waiters."""
        self._interrupted = list(self._receivers.items())

    @override
    def reconnected(self, server: str) -> None:
        """Requests sent before may have been answered while nobody listened."""
        if self._interrupted:
            asyncio.get_running_loop().call_later(LATE_SECONDS, self._interrupt, self._interrupted)
            self._interrupted = []

    @override
    def closed(self) -> None:
        """Tell all waiters."""
        self._interrupt(list(self._receivers.items()))

    def _interrupt(self, before: list[tuple[str, tuple[Route, str]]]) -> None:
        for token, receiver in before:
            if self._receivers.get(token) is receiver:
                receiver[0](Message(f"{self.prefix}.{token}", "", b"", _INTERRUPTED_HEADERS))


def _answer(reply: asyncio.Future[Message], message: Message) -> None:
    if not reply.done():
        reply.set_result(message)


def _time_out(reply: asyncio.Future[Message]) -> None:
    if not reply.done():
        reply.set_exception(TimeoutError())


def raise_for_status(message: Message, subject: str) -> None:
    """Raise when no answer comes from ``subject``.

    NoRespondersError: nobody listens. ForbiddenError: this user may not ask, or not be answered.
    TimeoutError: the connection was lost meanwhile, so the outcome is unknown.
    """
    if message.data or STATUS not in message.headers:
        return
    status = message.headers[STATUS]
    if status == NO_RESPONDERS:
        msg = f"nobody answers on {subject}"
        raise NoRespondersError(msg)
    if status == INTERRUPTED:
        msg = "the connection was lost before an answer came"
        raise TimeoutError(msg)
    if status == DENIED:
        msg = f"the NATS user may not publish to {subject}, or not get its answers"
        raise ForbiddenError(msg)
