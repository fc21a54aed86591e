"""A NATS connection for bulk data: messages in and out, without a task or a queue for each.

It holds a client that does what is intricate and rarely runs (``nats_py``), and offers none of that
client's own ways to send or receive.

Why: docs/decisions.md, "Nothing is kept for later while disconnected".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import HoldfastError, TooLargeError, UnavailableError
from holdfast.transport.liveness import Liveness, Watch
from holdfast.transport.message import Message, format_headers
from holdfast.transport.nats_py import NatsClient
from holdfast.transport.observer import Counters, Observer
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""Bytes that may wait to be sent. Publishers keep windows far below; beyond it sending fails."""

CONNECT_SECONDS: Final = 5.0
_CLOSED: Final = "the connection to NATS is closed"
_LINE_END: Final = b"\r\n"
_SMALL_BYTES: Final = 1024
"""A smaller message is one piece: to copy it costs less than pieces do."""

_SEPARATOR_RE: Final = re.compile(r"[ \t\r\n\0]")
_FLUSH_SECONDS: Final = 2
_POLL_SECONDS: Final = 0.02
log = logging.getLogger(__name__)

type Route = Callable[[Message], None]


class Connection:
    """One connection to NATS.

    ``route`` and ``send`` are for the event loop's thread only; both return at once. ``liveness``
    is to be told what was answered and what was not.
    """

    def __init__(
        self, options: NatsOptions, *, renew: Callable[[], NatsOptions] | None = None
    ) -> None:
        """Prepare; ``open`` connects. Each time the files that say who connects are read anew.

        ``renew`` gives the options anew, where what they were made of may change (a NATS context).
        """
        self._routes: dict[int, Route] = {}
        self._client = NatsClient(self._on_message, options, renew or (lambda: options))
        self._watch = Watch(self._client)
        self.liveness: Liveness = self._watch.liveness
        self.counters = Counters()
        self.observe(self._watch)
        self.observe(self.counters)

    def observe(self, observer: Observer) -> None:
        """Have ``observer`` told, from now on, how the connection fares."""
        self._client.observers.append(observer)

    async def open(self, timeout_seconds: float = CONNECT_SECONDS) -> None:
        """Connect to one of the servers, tried for ``timeout_seconds``, at most 5. Once only.

        Once connected it reconnects for ever, and leaves a server that is of no use (``liveness``).
        Raises InvalidError, UnavailableError, ForbiddenError.
        """
        await self._client.open(min(timeout_seconds, CONNECT_SECONDS))
        self._watch.start()

    async def close(self) -> None:
        """Send what is queued and end it for good. May be repeated."""
        await self._client.close()

    @property
    def is_connected(self) -> bool:
        """Whether a server has it now."""
        return self._client.is_connected

    @property
    def is_closed(self) -> bool:
        """Whether it is closed for good."""
        return self._client.is_closed

    @property
    def max_payload(self) -> int:
        """Bytes that the server takes in one message, headers included."""
        return self._client.max_payload

    @property
    def server_info(self) -> Mapping[str, Any]:
        """The server's description of itself, as it was when the connection was made."""
        return self._client.server_info

    @property
    def wire(self) -> object:
        """An object that is another after each reconnect."""
        return self._client.wire

    @property
    def denied_subscriptions(self) -> Collection[str]:
        """The subjects (in lower case), up to 64, that this user may not subscribe to."""
        return self._client.denied_subscriptions

    def route(self, subject: str, receive: Route, *, queue: str = "") -> int:
        """Call ``receive`` with every message on ``subject``; gives the id for ``unroute``.

        ``receive`` runs while the socket is read: it must be quick and must not raise.
        """
        sid = self._client.subscribe_to(subject, queue)
        self._routes[sid] = receive
        return sid

    def unroute(self, sid: int) -> None:
        """Stop receiving. May be repeated."""
        if self._routes.pop(sid, None) is not None:
            self._client.stop_receiving(sid)
            self._client.forget(sid)

    async def drain_routes(self, sids: list[int]) -> None:
        """Unsubscribe, and return once what was sent before that has been received."""
        for sid in sids:
            self._client.stop_receiving(sid)
        with contextlib.suppress(UnavailableError):
            if self.is_connected:
                await self._client.round_trip(_FLUSH_SECONDS)
        for sid in sids:
            self._routes.pop(sid, None)
            self._client.forget(sid)

    def send(
        self,
        subject: str,
        data: bytes | memoryview = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Queue one message. ``data`` must not change until it is sent.

        Raises UnavailableError (closed, or too much queued: surely not sent), TooLargeError.
        """
        block = format_headers(headers) if headers else b""
        total = len(block) + len(data)
        self._check_sendable(subject, reply, total)
        if block:
            head = f"HPUB {subject} {reply} {len(block)} {total}\r\n".encode() + block
        else:
            head = f"PUB {subject} {reply} {total}\r\n".encode()
        if total < _SMALL_BYTES:
            self._client.queue_bytes(b"".join((head, data, _LINE_END)))
        else:
            self._client.queue_bytes(head, data, _LINE_END)

    def _check_sendable(self, subject: str, reply: str, size: int) -> None:
        client = self._client
        wire = client.wire
        if size > client.max_payload or not client.is_connected or wire is None or wire.at_eof():
            raise self._why_not_sendable(size)
        if wire.backlog + client.pending_data_size + size > MAX_QUEUED_BYTES:
            self.counters.unsent += 1
            raise UnavailableError("too much is waiting to be sent to NATS")
        if not subject or _SEPARATOR_RE.search(subject) or _SEPARATOR_RE.search(reply):
            raise ValueError("a subject has no white space")

    def _why_not_sendable(self, size: int) -> HoldfastError:
        if self._client.is_closed:
            return UnavailableError(_CLOSED)
        if size > self._client.max_payload:
            most = self._client.max_payload
            return TooLargeError(f"a message carries at most {most} bytes, headers included")
        # Not kept for later: the caller would be told of a failure and it would happen.
        self.counters.unsent += 1
        return UnavailableError("not connected to NATS at the moment")

    async def wait_connected(self, timeout_seconds: float) -> None:
        """Wait for a reconnect under way. Raises UnavailableError after ``timeout_seconds``.

        Raises ForbiddenError as soon as every server has refused the login since it was lost.
        """
        if not self._client.is_connected:  # hardly ever: a timer costs as much as sending
            await self._wait_connected(timeout_seconds)

    async def _wait_connected(self, timeout_seconds: float) -> None:
        client = self._client
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not client.is_connected and not client.is_closed:
                    if client.is_refused_everywhere():
                        break
                    await asyncio.sleep(_POLL_SECONDS)
        if client.is_closed:
            raise UnavailableError(_CLOSED)
        if not client.is_connected:
            raise client.refusal() or UnavailableError("not connected to NATS")

    async def wait_flushed(self, timeout_seconds: int) -> None:
        """Return once the server has taken what was sent. Raises UnavailableError."""
        await self._client.round_trip(timeout_seconds)

    async def wait_sendable(self) -> None:
        """Wait while the socket's buffer is full: for senders that no window holds back."""
        if self._client.wire is not None:
            self._client.flush_queued()
            await self._client.wire.wait_writable()

    def _on_message(self, sid: int, message: Message) -> None:
        receive = self._routes.get(sid)
        if receive is None:
            return
        try:
            receive(message)
        except Exception:
            log.exception("message_receiver_failed", extra={"subject": message.subject})


async def connect(
    options: NatsOptions,
    *,
    timeout_seconds: float = CONNECT_SECONDS,
    observer: Observer | None = None,
    renew: Callable[[], NatsOptions] | None = None,
) -> Connection:
    """A `Connection` that is open; ``observer`` is told of what goes wrong before it is, too.

    Raises as `Connection.open`.
    """
    connection = Connection(options, renew=renew)
    if observer is not None:
        connection.observe(observer)
    await connection.open(timeout_seconds)
    return connection
