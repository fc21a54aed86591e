"""Replies to many requests over one subscription, each under a subject of its own.

Unlike nats-py's, a mailbox may get many messages: a window of a blob arrives as a head from a
worker and chunks from the server itself, all on one reply subject.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Final

from nats.nuid import NUID

from holdfast.errors import UnavailableError
from holdfast.protocol.headers import STATUS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.transport.connection import Connection, Route
    from holdfast.transport.message import Message

NO_RESPONDERS: Final = "503"


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


class Inbox:
    """The reply subjects of one connection."""

    def __init__(self, connection: Connection, inbox_prefix: str = "_INBOX") -> None:
        """Subscribe. ``inbox_prefix`` is what this user may subscribe under."""
        self._connection = connection
        self.prefix = f"{inbox_prefix}.{NUID().next().decode()}"
        self._tokens = itertools.count()
        self._receivers: dict[str, Route] = {}
        connection.route(f"{self.prefix}.*", self._receive)

    def open(self, receive: Route) -> Mailbox:
        """A fresh reply subject whose messages go to ``receive``."""
        token = format(next(self._tokens), "x")
        self._receivers[token] = receive
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

        Raises NoRespondersError and UnavailableError (surely not applied), TimeoutError (unknown).
        """
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def receive(message: Message) -> None:
            if not reply.done():
                reply.set_result(message)

        mailbox = self.open(receive)
        try:
            self._connection.send(subject, data, reply=mailbox.subject, headers=headers)
            async with asyncio.timeout(timeout_seconds):
                message = await reply
        finally:
            mailbox.close()
        raise_for_no_responders(message, subject)
        return message

    def _receive(self, message: Message) -> None:
        receive = self._receivers.get(message.subject.rpartition(".")[2])
        if receive is not None:
            receive(message)


def raise_for_no_responders(message: Message, subject: str) -> None:
    """Raise NoRespondersError when the server says that nobody listens."""
    if not message.data and message.headers.get(STATUS) == NO_RESPONDERS:
        msg = f"nobody answers on {subject}"
        raise NoRespondersError(msg)
