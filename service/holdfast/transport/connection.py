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
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast, override

import msgspec
import nats.errors
from nats.aio.client import Client

from holdfast.deadline import outliving_task
from holdfast.errors import ForbiddenError, InvalidError, TooLargeError, UnavailableError
from holdfast.transport.liveness import SIGN_OF_LIFE_SECONDS, SILENCE_SECONDS, Liveness
from holdfast.transport.message import Message, format_headers
from holdfast.transport.options import NatsOptions, connect_arguments, login, tls_context
from holdfast.transport.parser import Parser
from holdfast.transport.servers import ServerChoice, other_greets
from holdfast.transport.wire import Disconnected, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.subscription import Subscription

MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
"""What may wait to be sent. Publishers keep windows far below; beyond it sending fails."""

CONNECT_SECONDS: Final = 5.0
_CLOSED: Final = "the connection to NATS is closed"
_LINE_END: Final = b"\r\n"
_SEPARATOR_RE: Final = re.compile(r"[ \t\r\n\0]")
_FLUSH_SECONDS: Final = 2
_CATCH_UP_SECONDS: Final = 0.05
_MAX_DENIED_KEPT: Final = 64
_DENIED_RE: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')
_REFUSED_LOGIN_RE: Final = re.compile("authorization|authentication (?!timeout)")
log = logging.getLogger(__name__)

type Route = Callable[[Message], None]


@dataclass(slots=True)
class Counters:
    """What happened to a connection since it was made.

    ``left`` are servers that were given up for being of no use, ``violations`` denied publishes
    and subscriptions, ``unsent`` messages refused because not connected or too much was waiting.
    """

    disconnects: int = 0
    reconnects: int = 0
    left: int = 0
    violations: int = 0
    unsent: int = 0


@dataclass(frozen=True, slots=True)
class Denied:
    """The server does not let this user ``publish`` or subscribe to ``subject`` (lower case)."""

    publish: bool
    subject: str


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
        self.counters = Counters()
        self.choice = ServerChoice(time.monotonic)
        self.liveness = Liveness(time.monotonic, self._leave)
        self.on_denied: list[Callable[[Denied], None]] = []
        self.denied_subscriptions: dict[str, None] = {}
        self.on_left: list[Callable[[str, str], None]] = []
        self.on_disconnected: list[Callable[[], None]] = []
        self.on_reconnected: list[Callable[[], None]] = []
        self.on_closing: list[Callable[[], None]] = []
        self.is_waited_for: list[Callable[[], bool]] = []
        self.renew: Callable[[], NatsOptions] = NatsOptions
        self._options = NatsOptions()
        self._refusals: dict[str, str] = {}
        self._watching: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

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
            raise UnavailableError(_CLOSED)
        if size > self._max_payload:
            msg = f"a message carries at most {self._max_payload} bytes, headers included"
            raise TooLargeError(msg)
        if not self.is_connected or self._transport is None or self._transport.at_eof():
            # Not kept for later: whoever asked would be told of a failure and it would happen.
            self.counters.unsent += 1
            msg = "not connected to NATS at the moment"
            raise UnavailableError(msg)
        backlog = self._transport.backlog if isinstance(self._transport, Wire) else 0
        if backlog + self._pending_data_size + size > MAX_QUEUED_BYTES:
            self.counters.unsent += 1
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
        if self.is_connected and self._pending and isinstance(self._transport, Wire):
            queued, self._pending, self._pending_data_size = self._pending, [], 0
            self._transport.writelines(queued)

    async def wait_connected(self, timeout_seconds: float) -> None:
        """Wait for a reconnect under way. Raises UnavailableError after ``timeout_seconds``.

        Raises ForbiddenError as soon as every server has refused the login since it was lost.
        """
        if not self.is_connected:
            await self._wait_connected(timeout_seconds)

    async def _wait_connected(self, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.is_connected and not self.is_closed:
                    if self._is_refused_everywhere():
                        break
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        if self.is_connected:
            return
        if self.is_closed:
            raise UnavailableError(_CLOSED)
        if self._refusals:
            raise _refused(next(reversed(self._refusals.values())))
        msg = "not connected to NATS"
        raise UnavailableError(msg)

    async def wait_flushed(self, timeout_seconds: int) -> None:
        """Return once the server has taken what was sent. Raises UnavailableError."""
        self._flush_queued()
        try:
            await self.flush(timeout_seconds)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            msg = "the NATS server does not answer"
            raise UnavailableError(msg) from error

    async def wait_sendable(self) -> None:
        """Wait while the socket's buffer is full: for senders that no window holds back."""
        if isinstance(self._transport, Wire):
            self._flush_queued()
            await self._transport.wait_writable()

    def abandon(self) -> None:
        """Drop the socket at once, without the courtesies of ``close``."""
        if isinstance(self._transport, Wire):
            self._transport.abort()

    @property
    def server_info(self) -> Mapping[str, Any]:
        """What the server said of itself when it was connected to."""
        return self._server_info

    def _leave(self, reason: str) -> None:
        if self.is_connected and (self._leaving is None or self._leaving.done()):
            # Not a part of the request that noticed: whatever comes over the new connection would
            # be done within that one's deadline.
            self._leaving = outliving_task(self._leave_for_another(reason))

    async def _leave_for_another(self, reason: str) -> None:
        """Drop the server and go to another one, if there is one that answers.

        Otherwise what is under way would be interrupted for nothing: with all others down, there
        is no quorum, and this server is not to blame. Where only one address is known, there may
        be several servers behind it.
        """
        left = self._current_server
        others = [server.uri for server in self._server_pool if server is not left]
        known = str(self._server_info.get("server_id", ""))
        if left is None or (others and not await other_greets(others, known, tls=self._tls_first)):
            return
        if self._current_server is left and self.is_connected:
            self.counters.left += 1
            self.liveness.left()
            for tell in self.on_left:
                tell(self.server_name, reason)
            self.choice.leave(left.uri.netloc)
            self.abandon()
            await self.force_reconnect()

    @property
    def _tls_first(self) -> bool:
        return bool(self.options["tls_handshake_first"])

    @property
    def wire(self) -> object:
        """What is another object after each reconnect."""
        return self._transport

    @property
    def server_name(self) -> str:
        """The name of the server that it is, or was last, connected to."""
        return str(self._server_info.get("server_name", ""))

    def note_connected(self) -> None:
        """A server has taken the connection."""
        self._refusals.clear()
        if self._current_server is not None:
            self.choice.connected(self._current_server.uri.netloc)
        self.liveness.connected()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        else:
            for tell in self.on_reconnected:
                tell()

    def _is_refused_everywhere(self) -> bool:
        return bool(self._refusals) and all(
            server.uri.netloc in self._refusals for server in self._server_pool
        )

    def note_refused(self, problem: Exception) -> None:
        """A server that was asked for a new connection refused the login."""
        if self._current_server is not None and _is_refused_login(problem):
            self._refusals[self._current_server.uri.netloc] = str(problem)

    async def _watch(self) -> None:
        """Look, for as long as it lasts, whether the server still shows signs of life."""
        while not self.is_closed:
            await asyncio.sleep(SILENCE_SECONDS / 2)
            wire = self._transport
            if not self.is_connected or not isinstance(wire, Wire):
                continue
            silent_seconds = time.monotonic() - wire.received_at
            if silent_seconds > SILENCE_SECONDS and any(ask() for ask in self.is_waited_for):
                await self._demand_sign_of_life(wire)

    async def _demand_sign_of_life(self, wire: Wire) -> None:
        asked_at = time.monotonic()
        with contextlib.suppress(OSError, nats.errors.Error):
            await self._send_ping()
        await asyncio.sleep(SIGN_OF_LIFE_SECONDS)
        # Was it this process that was stopped? Then an answer waits to be read.
        await asyncio.sleep(_CATCH_UP_SECONDS)
        if wire.received_at < asked_at and self._transport is wire:
            self.liveness.go("the server gives no sign of life")

    def _on_message(self, sid: int, message: Message) -> None:
        receive = self._routes.get(sid)
        if receive is None:
            return
        try:
            receive(message)
        except Exception:
            log.exception("message_receiver_failed", extra={"subject": message.subject})

    # --- what replaces nats-py's own ---

    @override
    def _connect_command(self) -> bytes:
        """What nats-py says, and who connects: read anew, for it may have been changed on disk."""
        said = msgspec.json.decode(super()._connect_command().partition(b" ")[2])
        server = self._current_server.uri if self._current_server is not None else None
        try:
            who = login(
                self._renewed(),
                (server.hostname or "") if server is not None else "",
                server.port if server is not None else None,
                nonce=self._server_info.get("nonce"),
            )
        except InvalidError as error:
            # The file is being written, perhaps: nats-py tries again after an error of its own.
            raise nats.errors.Error(error.detail) from error
        return b"CONNECT " + msgspec.json.encode(said | who) + _LINE_END

    def _renewed(self) -> NatsOptions:
        """The options as they are now, or as they were when they could last be read."""
        with contextlib.suppress(InvalidError):
            self._options = self.renew()
        return self._options

    def _renew_tls(self) -> None:
        with contextlib.suppress(InvalidError):
            context = tls_context(self._renewed())
            if context is not None:
                self.options["tls"] = context

    @override
    async def _close(self, status: int, do_cbs: bool = True) -> None:
        helpers = [task for task in (self._watching, self._leaving) if task is not None]
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
        # Left to itself nats-py waits here until a peer, frozen perhaps, has taken everything.
        self._flush_queued()
        self._pending_data_size = 0
        for tell in self.on_closing:  # as soon as it counts as closed: see the line after
            asyncio.get_running_loop().call_soon(tell)
        await super()._close(status, do_cbs)

    async def _connect_to_server(self, s: Any) -> None:
        if s.uri.scheme in {"ws", "wss"}:
            msg = "holdfast connects to NATS by TCP or TLS, not by WebSocket"
            raise nats.errors.Error(msg)
        # nats-py leaves running, open and unread what an attempt before this one has begun.
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        self.abandon()
        while not self._control_lines.empty():
            self._control_lines.get_nowait()
        if self._watching is not None:  # not for the first time
            self._renew_tls()
        self._loop = asyncio.get_running_loop()
        self._transport = Wire(self._parser, self._control_lines)
        await self._transport.connect(s.uri, 0, self.options["connect_timeout"])

    async def _read_loop(self) -> None:
        """Act on control lines. Messages never come here: they are routed while being parsed."""
        wire = self._transport
        if not isinstance(wire, Wire):
            return
        wire.start_parsing()
        while True:
            line = await self._control_lines.get()
            if isinstance(line, Disconnected):
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
            await self._act_on_error(line[4:].strip().decode("utf-8", "replace").lower())
        elif line.startswith(b"INFO"):
            await self._process_info(_decode_info(line))

    async def _act_on_error(self, text: str) -> None:
        """Most errors end the connection for now: it is made anew, with credentials read anew.

        nats-py closes for good at anything that it does not know, a server that is full or goes
        away included, and where a password was changed or a JWT has expired.
        """
        denied = _DENIED_RE.search(text)
        if denied is not None:
            self.counters.violations += 1
            news = Denied(publish=denied[1] == "publish", subject=denied[2])
            if not news.publish and len(self.denied_subscriptions) < _MAX_DENIED_KEPT:
                self.denied_subscriptions[news.subject] = None
            for tell in self.on_denied:
                tell(news)
        if "permissions violation" in text:
            await self._process_err(text)
            return
        error = nats.errors.Error(f"nats: {text}")
        await self._error_cb(error)
        await self._process_op_err(error)


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


class _Callbacks:
    """What nats-py tells of a connection, counted and passed on."""

    def __init__(
        self,
        connection: Connection,
        servers: int,
        on_closed: Callable[[], None] | None,
        on_error: Callable[[Exception], None] | None,
        on_connected: Callable[[str], None] | None,
        on_disconnected: Callable[[str], None] | None,
    ) -> None:
        self._connection = connection
        self._servers = servers
        self._on_closed = on_closed
        self._on_error = on_error
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self.connecting = True
        self.refused: list[Exception] = []

    def arguments(self) -> dict[str, Any]:
        """For ``Client.connect``."""
        return {
            "error_cb": self._error,
            "closed_cb": self._closed,
            "disconnected_cb": self._disconnected,
            "reconnected_cb": self._reconnected,
            "lame_duck_mode_cb": self._going_away,
            "reconnect_to_server_handler": self._connection.choice.next,
        }

    async def _error(self, problem: Exception) -> None:
        if self.connecting and not self._connection.is_connected:
            self.refused.append(problem)
            if sum(map(_is_refused_login, self.refused)) >= self._servers:
                raise _translate(self.refused)  # every server said no; nats-py would ask again
        else:
            self._connection.note_refused(problem)
        if self._on_error is not None:
            self._on_error(problem)

    async def _closed(self) -> None:
        if self._on_closed is not None:
            self._on_closed()

    async def _disconnected(self) -> None:
        if self._connection.is_closed:
            return
        self._connection.counters.disconnects += 1
        for tell in self._connection.on_disconnected:
            tell()
        if self._on_disconnected is not None:
            self._on_disconnected(self._connection.server_name)

    async def _reconnected(self) -> None:
        self._connection.note_connected()
        self._connection.counters.reconnects += 1
        if self._on_connected is not None:
            self._on_connected(self._connection.server_name)

    async def _going_away(self) -> None:
        self._connection.liveness.go("the server is about to stop")


async def connect(
    options: NatsOptions,
    *,
    timeout_seconds: float = CONNECT_SECONDS,
    on_closed: Callable[[], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
    on_connected: Callable[[str], None] | None = None,
    on_disconnected: Callable[[str], None] | None = None,
    renew: Callable[[], NatsOptions] | None = None,
) -> Connection:
    """A connection to one of ``options.servers``, tried for ``timeout_seconds``, at most 5.

    Once connected it reconnects for ever, and leaves a server that is of no use (``liveness``).
    Each time it reads the files anew that say who connects; ``renew`` gives the options anew, where
    what they were made of may change (a NATS context). ``on_closed`` is called when it is closed;
    ``on_error`` with every error that has no other taker, a denied publish or subscription among
    them; ``on_disconnected`` and ``on_connected`` with the server's name when one is lost and when
    one is there again. Raises InvalidError, UnavailableError, ForbiddenError.
    """
    connection = Connection()
    connection.renew = renew or (lambda: options)
    callbacks = _Callbacks(
        connection, len(options.servers), on_closed, on_error, on_connected, on_disconnected
    )
    arguments = {
        **connect_arguments(options),
        "allow_reconnect": True,
        **callbacks.arguments(),
    }
    try:
        async with asyncio.timeout(min(timeout_seconds, CONNECT_SECONDS)):
            await connection.connect(**arguments)
    except (TimeoutError, nats.errors.Error, OSError) as failure:
        connection.abandon()
        raise _translate([*callbacks.refused, failure]) from failure
    except ForbiddenError:
        connection.abandon()
        raise
    callbacks.connecting = False
    connection.note_connected()
    return connection


def _translate(problems: list[Exception]) -> ForbiddenError | UnavailableError:
    """A refused login is worth telling apart: trying again will not help."""
    refused = [str(problem) for problem in problems if _is_refused_login(problem)]
    if refused:
        return _refused(refused[-1])
    told = [text for problem in problems if (text := str(problem).strip())]
    why = told[0] if told else "no answer in time"
    return UnavailableError(f"cannot connect to NATS: {why}")


def _refused(said: str) -> ForbiddenError:
    word = said.removeprefix("nats: ").strip("'")
    return ForbiddenError(f"the NATS server refused the credentials: {word}")


def _is_refused_login(problem: Exception) -> bool:
    return _REFUSED_LOGIN_RE.search(str(problem).lower()) is not None


def _decode_info(line: bytes) -> dict[str, Any]:
    return msgspec.json.decode(line[4:], type=dict[str, Any])
