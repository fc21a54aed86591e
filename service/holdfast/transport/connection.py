"""A NATS connection for bulk data: nats-py's client with its reader and writer replaced.

nats-py keeps the handshake, authentication, server pool, pings and reconnects. What carries every
byte is ours: receiving parses in place (``parser``) and hands messages to plain functions without
a queue or a task in between; sending queues header, payload and line end without joining them.
The overridden methods are nats-py 2.16's; the dependency is pinned to that minor version and
``tests/nats/test_connection.py`` fails when they change.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import socket
from typing import TYPE_CHECKING, Any, Final, cast, override

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.transport import Transport

from holdfast.errors import ForbiddenError, TooLargeError, UnavailableError
from holdfast.transport.message import Message, format_headers
from holdfast.transport.options import NatsOptions, connect_arguments
from holdfast.transport.parser import ParseError, Parser

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from urllib.parse import ParseResult

    from nats.aio.subscription import Subscription

MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""What may wait to be sent. Publishers keep windows far below; beyond it sending fails."""

_HIGH_WATER_BYTES: Final = 4 * 1024 * 1024
CONNECT_SECONDS: Final = 5.0
SEND_BUFFER_BYTES: Final = 2 * 1024 * 1024
_LINE_END: Final = b"\r\n"
_SEPARATOR_RE: Final = re.compile(r"[ \t\r\n\0]")
_CLOSE_SECONDS: Final = 2.0
_FLUSH_SECONDS: Final = 2
log = structlog.get_logger(__name__)

type Route = Callable[[Message], None]


class Connection(Client):
    """One connection to NATS.

    ``route`` and ``send`` are for the event loop's thread only; both return at once.
    """

    def __init__(self) -> None:
        """Prepare; ``connect`` below connects."""
        super().__init__()
        self._routes: dict[int, Route] = {}
        self._control_lines: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self._parser = Parser(self._on_message, self._control_lines.put_nowait)
        self._ps: Any = self._parser  # nats-py only ever resets it
        self._flush_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.violations = 0

    def route(self, subject: str, receive: Route, *, queue: str = "") -> int:
        """Call ``receive`` with every message on ``subject``; gives the id for ``unroute``.

        ``receive`` runs while the socket is read: it must be quick and must not raise.
        """
        self._sid += 1
        sid = self._sid
        self._routes[sid] = receive
        # Registered with nats-py too, which subscribes again after a reconnect.
        self._subs[sid] = cast("Subscription", _RoutedSubscription(self, sid, subject, queue))
        self._queue_bytes(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def unroute(self, sid: int) -> None:
        """Stop receiving. May be repeated."""
        if self._routes.pop(sid, None) is None:
            return
        self._subs.pop(sid, None)
        if not self.is_closed:
            self._queue_bytes(f"UNSUB {sid}\r\n".encode())

    async def drain_routes(self, sids: list[int]) -> None:
        """Unsubscribe, and return once what was sent before that has been received."""
        for sid in sids:
            if sid in self._routes and not self.is_closed:
                self._queue_bytes(f"UNSUB {sid}\r\n".encode())
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            if self.is_connected:
                self._flush_queued()
                await self.flush(_FLUSH_SECONDS)
        for sid in sids:
            self._routes.pop(sid, None)
            self._subs.pop(sid, None)

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
            line = f"HPUB {subject} {reply} {len(block)} {total}\r\n".encode()
            self._queue_bytes(line + block, data, _LINE_END)
        else:
            self._queue_bytes(f"PUB {subject} {reply} {len(data)}\r\n".encode(), data, _LINE_END)

    def _check_sendable(self, subject: str, reply: str, size: int) -> None:
        if self.is_closed or self.is_draining_pubs:
            msg = "the connection to NATS is closed"
            raise UnavailableError(msg)
        if size > self._max_payload:
            msg = f"a message carries at most {self._max_payload} bytes, headers included"
            raise TooLargeError(msg)
        if not self.is_connected:
            # Not kept for later: whoever asked would be told of a failure and it would happen.
            msg = "not connected to NATS at the moment"
            raise UnavailableError(msg)
        backlog = self._transport.backlog if isinstance(self._transport, _Wire) else 0
        if backlog + self._pending_data_size + size > MAX_QUEUED_BYTES:
            msg = "too much is waiting to be sent to NATS"
            raise UnavailableError(msg)
        if not subject or _SEPARATOR_RE.search(subject) or _SEPARATOR_RE.search(reply):
            msg = "a subject has no white space"
            raise ValueError(msg)

    def _queue_bytes(self, *pieces: bytes | memoryview) -> None:
        queued: list[bytes | memoryview] = cast("Any", self._pending)
        queued.extend(pieces)
        self._pending_data_size += sum(map(len, pieces))
        if not self._flush_scheduled and self._loop is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_queued)

    def _flush_queued(self) -> None:
        """Hand everything queued in this turn of the loop to the socket in one call.

        While disconnected it stays queued: nats-py sends it after it has subscribed again.
        """
        self._flush_scheduled = False
        if self.is_connected and self._pending and isinstance(self._transport, _Wire):
            queued, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(queued)

    async def wait_connected(self, timeout_seconds: float) -> None:
        """Wait for a reconnect under way. Raises UnavailableError after ``timeout_seconds``."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.is_connected:
                    if self.is_closed:
                        break
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        if not self.is_connected:
            msg = "not connected to NATS"
            raise UnavailableError(msg)

    async def wait_sendable(self) -> None:
        """Wait while the socket's buffer is full: for senders that no window holds back."""
        if isinstance(self._transport, _Wire):
            self._flush_queued()
            await self._transport.wait_writable()

    def abandon(self) -> None:
        """Drop the socket at once, without the courtesies of ``close``."""
        if isinstance(self._transport, _Wire):
            self._transport.abort()

    @property
    def server_info(self) -> Mapping[str, Any]:
        """What the server said of itself when it was connected to."""
        return self._server_info

    def _on_message(self, sid: int, message: Message) -> None:
        receive = self._routes.get(sid)
        if receive is None:
            return
        try:
            receive(message)
        except Exception:
            log.exception("message_receiver_failed", subject=message.subject)

    # --- what replaces nats-py's own ---

    @override
    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # Left to itself nats-py waits here until a peer, frozen perhaps, has taken everything.
        self._flush_queued()
        self._pending_data_size = 0
        await super()._close(status, do_cbs)

    async def _connect_to_server(self, s: Any) -> None:
        if s.uri.scheme in {"ws", "wss"}:
            msg = "holdfast connects to NATS by TCP or TLS, not by WebSocket"
            raise nats.errors.Error(msg)
        self._loop = asyncio.get_running_loop()
        self._transport = _Wire(self._parser, self._control_lines)
        await self._transport.connect(s.uri, 0, self.options["connect_timeout"])

    async def _read_loop(self) -> None:
        """Act on control lines. Messages never come here: they are routed while being parsed."""
        wire = self._transport
        if not isinstance(wire, _Wire):
            return
        wire.start_parsing()
        while True:
            line = await self._control_lines.get()
            if isinstance(line, _Disconnected):
                if line.wire is wire:
                    await self._process_op_err(line.error or nats.errors.UnexpectedEOF())
                    return
            elif isinstance(line, Exception):
                await self._process_op_err(line)
                return
            elif line is not None:
                await self._act_on(line)

    async def _act_on(self, line: bytes) -> None:
        if line.startswith(b"PING"):
            await self._process_ping()
        elif line.startswith(b"PONG"):
            await self._process_pong()
        elif line.startswith(b"-ERR"):
            await self._process_err(line[4:].strip().decode("utf-8", "replace").lower())
        elif line.startswith(b"INFO"):
            await self._process_info(_decode_info(line))


class _Disconnected(Exception):  # noqa: N818  (an event, not an error of ours)
    """The socket of ``wire`` is gone."""

    def __init__(self, wire: _Wire, error: Exception | None) -> None:
        super().__init__()
        self.wire = wire
        self.error = error


class _RoutedSubscription:
    """What nats-py looks at of a subscription when it reconnects, drains or closes."""

    _max_msgs = 0
    _received = 0
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls: dict[str, Any] | None = None
    _jsi = None

    def __init__(self, connection: Connection, sid: int, subject: str, queue: str) -> None:
        self._connection = connection
        self._id = sid
        self._subject = subject
        self._queue = queue

    async def _drain(self) -> None:
        self._connection.unroute(self._id)


class _Wire(asyncio.BufferedProtocol, Transport):
    """The socket: nats-py's transport interface over a protocol that receives in place.

    Until ``start_parsing`` lines are kept for ``readline`` (the handshake); then the parser gets
    everything. ``backlog`` is how many bytes the peer has not taken; 0 while it keeps up.
    """

    def __init__(self, parser: Parser, events: asyncio.Queue[bytes | Exception | None]) -> None:
        self._parser = parser
        self._events = events
        self._transport: asyncio.Transport | None = None
        self._handshake: bytearray | None = bytearray()
        self._scratch = bytearray(64 * 1024)
        self._progress = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.get_running_loop().create_future()
        self._eof = False
        self.backlog = 0

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio.Transport, but all that it asks for.
        self._transport = cast("asyncio.Transport", transport)
        # Left to grow by itself the buffer holds bulk senders back (docs/decisions.md).
        plain = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return memoryview(self._scratch) if self._handshake is not None else self._parser.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._handshake is not None:
            self._handshake += memoryview(self._scratch)[:nbytes]
            self._progress.set()
            return
        self._parse(self._parser.received, nbytes)

    def _parse[T](self, take: Callable[[T], None], received: T) -> None:
        try:
            take(received)
        except ParseError:
            self._events.put_nowait(nats.errors.ProtocolError())
            self.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()
        self.backlog = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self._progress.set()
        self._writable.set()
        if not self._closed.done():
            self._closed.set_result(None)
        self._events.put_nowait(_Disconnected(self, exc if isinstance(exc, OSError) else None))

    # nats.aio.transport.Transport

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        del buffer_size
        loop = asyncio.get_running_loop()
        opening = loop.create_connection(lambda: self, uri.hostname or "", uri.port or 4222)
        await asyncio.wait_for(opening, connect_timeout)

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: float,
    ) -> None:
        del buffer_size
        plain = self._plain()
        hostname = uri if isinstance(uri, str) else uri.hostname
        upgrade = asyncio.get_running_loop().start_tls(
            plain, self, ssl_context, server_hostname=hostname
        )
        self._transport = await asyncio.wait_for(upgrade, connect_timeout)

    def start_parsing(self) -> None:
        """The handshake is over: from here on the parser gets every byte."""
        early, self._handshake = self._handshake, None
        self._parser.reset()
        if early:
            self._parse(self._parser.feed, bytes(early))

    def write(self, payload: bytes) -> None:
        self._plain().write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        transport = self._plain()
        transport.writelines(payload)
        waiting = transport.get_write_buffer_size()
        if waiting > _HIGH_WATER_BYTES:
            self.backlog = waiting
            # CPython before 3.12.9 and 3.13.2 forgets to pause us (CVE-2024-12254): a reminder.
            transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    async def read(self, buffer_size: int) -> bytes:
        msg = f"the parser reads, not in blocks of {buffer_size}"
        raise io.UnsupportedOperation(msg)

    async def readline(self) -> bytes:
        while (received := self._handshake) is not None:
            end = received.find(_LINE_END)
            if end >= 0:
                line = bytes(received[: end + 2])
                del received[: end + 2]
                return line
            if self._eof:
                break
            self._progress.clear()
            await self._progress.wait()
        # Given an empty line nats-py would take the handshake for done.
        msg = "connection lost during the handshake"
        raise ConnectionResetError(msg)

    async def wait_writable(self) -> None:
        await self._writable.wait()

    async def drain(self) -> None:
        await self._writable.wait()
        if self._eof:
            msg = "connection lost"
            raise ConnectionResetError(msg)

    async def wait_closed(self) -> None:
        # A socket closes only once its buffer is sent, which a frozen peer would put off for ever.
        _, waiting = await asyncio.wait([self._closed], timeout=_CLOSE_SECONDS)
        if waiting:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        elif not self._closed.done():
            self._closed.set_result(None)

    def at_eof(self) -> bool:
        return self._eof

    def __bool__(self) -> bool:
        return self._transport is not None

    def _plain(self) -> asyncio.Transport:
        if self._transport is None:
            msg = "not connected"
            raise ConnectionResetError(msg)
        return self._transport


async def connect(
    options: NatsOptions,
    *,
    timeout_seconds: float = CONNECT_SECONDS,
    on_closed: Callable[[], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
) -> Connection:
    """A connection to one of ``options.servers``, tried for ``timeout_seconds``, at most 5.

    Once connected it reconnects for ever. ``on_closed`` is called when it is closed for good, by
    us or because the server refused it; ``on_error`` with every error that has no other taker, a
    denied publish or subscription among them. Raises UnavailableError, ForbiddenError.
    """
    connection = Connection()
    refused: list[Exception] = []
    connecting = True

    async def error(problem: Exception) -> None:
        if not connection.is_connected:
            refused.append(problem)
            if connecting and sum(map(_is_refused_login, refused)) >= len(options.servers):
                raise _translate(refused)  # every server said no; nats-py would ask again
        if "permissions violation" in str(problem).lower():
            connection.violations += 1
        if on_error is not None:
            on_error(problem)

    async def closed() -> None:
        if on_closed is not None:
            on_closed()

    arguments = {**connect_arguments(options), "allow_reconnect": True}
    try:
        async with asyncio.timeout(min(timeout_seconds, CONNECT_SECONDS)):
            await connection.connect(error_cb=error, closed_cb=closed, **arguments)
    except (TimeoutError, nats.errors.Error, OSError) as failure:
        connection.abandon()
        raise _translate([*refused, failure]) from failure
    except ForbiddenError:
        connection.abandon()
        raise
    connecting = False
    return connection


def _translate(problems: list[Exception]) -> ForbiddenError | UnavailableError:
    """A refused login is worth telling apart: trying again will not help."""
    told = [text for problem in problems if (text := str(problem).strip())]
    if any(map(_is_refused_login, problems)):
        return ForbiddenError("the NATS server refused the credentials")
    why = told[0] if told else "no answer in time"
    return UnavailableError(f"cannot connect to NATS: {why}")


def _is_refused_login(problem: Exception) -> bool:
    return "authorization" in str(problem).lower()


def _decode_info(line: bytes) -> dict[str, Any]:
    return msgspec.json.decode(line[4:], type=dict[str, Any])
