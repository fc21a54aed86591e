"""nats-py's client with its reader and writer replaced: the one module that knows nats-py.

nats-py keeps the handshake, authentication, server pool, pings and reconnects. The way of every
byte is ours: receiving parses in place (``parser``) and hands messages to a plain function without
a queue or a task in between; sending queues header, payload and line end, joined where short.
The overridden methods are nats-py 2.16's; the dependency is pinned to that minor version and
``tests/nats/test_nats_py.py`` fails when they change. Nothing of it gets further: its errors
become ours here.

Why: docs/decisions.md, "nats-py with its reader and writer replaced", and "Errors of the server
that are not about logins end a connection for now, not for good".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast, override

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.transport import Transport

from holdfast.errors import ForbiddenError, InvalidError, UnavailableError
from holdfast.transport.observer import Denied
from holdfast.transport.options import NatsOptions, connect_arguments, login, tls_context
from holdfast.transport.parser import ParseError, Parser
from holdfast.transport.servers import ServerChoice, other_greets
from holdfast.transport.wire import Disconnected, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nats.aio.subscription import Subscription

    from holdfast.transport.message import Message
    from holdfast.transport.observer import Observer
    from holdfast.transport.wire import ControlLine

_LINE_END: Final = b"\r\n"
_MAX_DENIED_KEPT: Final = 64
_DENIED_RE: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')
_REFUSED_LOGIN_RE: Final = re.compile("authorization|authentication (?!timeout)")


class NatsClient(Client):
    """One connection to NATS, as ``Connection`` holds it; of nats-py's methods it calls ``close``.

    ``wire`` is the socket, another after each reconnect. ``receive`` gets the id of a subscription
    and the message, while the socket is read: it must be quick and must not raise.
    """

    def __init__(
        self,
        receive: Callable[[int, Message], None],
        options: NatsOptions,
        renew: Callable[[], NatsOptions],
    ) -> None:
        """Prepare; ``open`` connects. ``renew`` gives ``options`` anew for each attempt."""
        super().__init__()
        self.wire: Wire | None = None
        self.observers: list[Observer] = []
        self.denied_subscriptions: dict[str, None] = {}
        self._control_lines: asyncio.Queue[ControlLine] = asyncio.Queue()
        self._parser = Parser(receive, self._control_lines.put_nowait)
        self._ps: Any = self._parser  # nats-py only ever resets it
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._flush_scheduled = False
        self._login_options = options
        self._renew_options = renew
        self._choice = ServerChoice(time.monotonic)
        self._was_connected = False
        self._given_servers = len(options.servers)
        self._problems: list[Exception] = []
        self._refusals: dict[str, str] = {}

    async def open(self, timeout_seconds: float) -> None:
        """Connect to one of the servers. Raises InvalidError, UnavailableError, ForbiddenError."""
        arguments = {
            **connect_arguments(self._login_options),
            "allow_reconnect": True,
            "error_cb": self._told_error,
            "disconnected_cb": self._told_disconnected,
            "reconnected_cb": self._told_reconnected,
            "lame_duck_mode_cb": self._told_going_away,
            "reconnect_to_server_handler": self._choice.next,
        }
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.connect(**arguments)
        except (TimeoutError, nats.errors.Error, OSError) as failure:
            self.abandon()
            raise _translated([*self._problems, failure]) from failure
        except ForbiddenError:
            self.abandon()
            raise
        self._was_connected = True
        self._note_connected()

    def subscribe_to(self, subject: str, queue: str) -> int:
        """Have messages on ``subject`` received, after a reconnect too; the subscription's id."""
        self._sid += 1
        sid = self._sid
        self._subs[sid] = cast("Subscription", _Subscription(subject, queue))
        self.queue_bytes(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def stop_receiving(self, sid: int) -> None:
        """Tell the server to send no more to ``sid``; what is on its way is still received."""
        if sid in self._subs and not self.is_closed:
            self.queue_bytes(f"UNSUB {sid}\r\n".encode())

    def forget(self, sid: int) -> None:
        """Do not subscribe to it again. May be repeated."""
        self._subs.pop(sid, None)

    def queue_bytes(self, *pieces: bytes | memoryview) -> None:
        """Have ``pieces`` sent together with whatever else is queued in this turn of the loop."""
        queued: list[bytes | memoryview] = cast("Any", self._pending)
        queued.extend(pieces)
        self._pending_data_size += sum(map(len, pieces))
        if not self._flush_scheduled and self._event_loop is not None:
            self._flush_scheduled = True
            self._event_loop.call_soon(self.flush_queued)

    def flush_queued(self) -> None:
        """Hand what is queued to the socket in one call.

        While disconnected it stays queued: nats-py sends it after it has subscribed again.
        """
        self._flush_scheduled = False
        if self._pending and self.wire is not None and self.is_connected:
            queued, self._pending, self._pending_data_size = self._pending, [], 0
            self.wire.writelines(queued)

    async def round_trip(self, timeout_seconds: int) -> None:
        """Return once the server has taken what was sent. Raises UnavailableError."""
        self.flush_queued()
        try:
            await self.flush(timeout_seconds)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise UnavailableError("the NATS server does not answer") from error

    async def _process_pong(self) -> None:
        """As nats-py does, which fails where nobody waits for it any more, and reads no further."""
        if self._pongs and self._pongs[0].done():
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    async def ask_for_sign_of_life(self) -> None:
        """Send a PING, if that is possible; nothing is awaited of the server."""
        with contextlib.suppress(OSError, nats.errors.Error):
            await self._send_ping()

    def abandon(self) -> None:
        """Drop the socket at once, without the courtesies of ``close``."""
        if self.wire is not None:
            self.wire.abort()

    @property
    def server_info(self) -> Mapping[str, Any]:
        """The server's description of itself, as it was when the connection was made."""
        return self._server_info

    @property
    def server_name(self) -> str:
        """The name of the server that it is, or was last, connected to."""
        return str(self._server_info.get("server_name", ""))

    def tell(self, event: Callable[[Observer], None]) -> None:
        """Have ``event`` call each observer."""
        for observer in self.observers:
            event(observer)

    # --- other servers ---

    async def has_better_server(self) -> bool:
        """Whether another server answers, or may: of one address several may be behind it."""
        others = [server.uri for server in self._server_pool if server is not self._current_server]
        known = str(self._server_info.get("server_id", ""))
        tls = bool(self.options["tls_handshake_first"])
        return not others or await other_greets(others, known, tls=tls)

    async def go_elsewhere(self) -> None:
        """Drop the server, and connect to another if there is one."""
        if self._current_server is not None:
            self._choice.leave(self._current_server.uri.netloc)
        self.abandon()
        await self.force_reconnect()

    def refusal(self) -> ForbiddenError | None:
        """The refusal of a login since the connection was lost."""
        said = list(self._refusals.values())
        return _refused(said[-1]) if said else None

    def is_refused_everywhere(self) -> bool:
        """Whether every server has refused the login since the connection was lost."""
        return bool(self._refusals) and all(
            server.uri.netloc in self._refusals for server in self._server_pool
        )

    def _note_connected(self) -> None:
        self._refusals.clear()
        if self._current_server is not None:
            self._choice.connected(self._current_server.uri.netloc)

    # --- what nats-py tells ---

    async def _told_error(self, problem: Exception) -> None:
        if not self._was_connected and not self.is_connected:
            self._problems.append(problem)
            if sum(map(_is_refused_login, self._problems)) >= self._given_servers:
                raise _translated(self._problems)  # every server said no; nats-py would ask again
        elif self._current_server is not None and _is_refused_login(problem):
            self._refusals[self._current_server.uri.netloc] = str(problem)
        self.tell(lambda observer: observer.failed(problem))

    async def _told_disconnected(self) -> None:
        if not self.is_closed:
            self.tell(lambda observer: observer.disconnected(self.server_name))

    async def _told_reconnected(self) -> None:
        self._note_connected()
        self.tell(lambda observer: observer.reconnected(self.server_name))

    async def _told_going_away(self) -> None:
        self.tell(lambda observer: observer.server_stopping())

    # --- what replaces nats-py's own ---

    @override
    def _connect_command(self) -> bytes:
        """The login that nats-py sends: read anew, for it may have been changed on disk."""
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
            self._login_options = self._renew_options()
        return self._login_options

    def _renew_tls(self) -> None:
        with contextlib.suppress(InvalidError):
            context = tls_context(self._renewed())
            if context is not None:
                self.options["tls"] = context

    @override
    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # Left to itself nats-py waits here until a peer, frozen perhaps, has taken everything.
        self.flush_queued()
        self._pending_data_size = 0
        if status == self.CLOSED and not self.is_closed:  # it is closed with the next line
            asyncio.get_running_loop().call_soon(self.tell, lambda observer: observer.closed())
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
        if self._was_connected:
            self._renew_tls()
        self._event_loop = asyncio.get_running_loop()
        self._transport = self.wire = wire = _NatsWire(self._parser, self._control_lines)
        await wire.connect(s.uri, 0, self.options["connect_timeout"])

    async def _read_loop(self) -> None:
        """Act on control lines. Messages never come here: they are routed while being parsed."""
        wire = self.wire
        if wire is None:
            return
        wire.start_parsing()
        while True:
            line = await self._control_lines.get()
            if isinstance(line, Disconnected):
                if line.wire is wire:
                    await self._process_op_err(line.error or nats.errors.UnexpectedEOF())
                    return
            elif isinstance(line, ParseError):
                await self._process_op_err(nats.errors.ProtocolError())
                return
            else:
                await self._act_on(line)

    async def _act_on(self, line: bytes) -> None:
        if line.startswith(b"PING"):
            await self._process_ping()
        elif line.startswith(b"PONG"):
            await self._process_pong()
        elif line.startswith(b"-ERR"):
            await self._act_on_error(line[4:].strip().decode("utf-8", "replace").lower())
        elif line.startswith(b"INFO"):
            await self._process_info(msgspec.json.decode(line[4:], type=dict[str, Any]))

    async def _act_on_error(self, text: str) -> None:
        """Most errors end the connection for now: it is made anew, with credentials read anew.

        nats-py closes for good at anything that it does not know, a server that is full or goes
        away included, and where a password was changed or a JWT has expired.
        """
        denied = _DENIED_RE.search(text)
        if denied is not None:
            news = Denied(publish=denied[1] == "publish", subject=denied[2])
            if not news.publish and len(self.denied_subscriptions) < _MAX_DENIED_KEPT:
                self.denied_subscriptions[news.subject] = None
            self.tell(lambda observer: observer.denied(news))
        if "permissions violation" in text:
            await self._process_err(text)
            return
        error = nats.errors.Error(f"nats: {text}")
        await self._error_cb(error)
        await self._process_op_err(error)


class _NatsWire(Wire, Transport):
    """A socket that nats-py takes for one of its own."""


@dataclass(slots=True)
class _Subscription:
    """The part of a subscription that nats-py looks at when it reconnects or closes."""

    _subject: str
    _queue: str
    _max_msgs: int = 0
    _received: int = 0
    _wait_for_msgs_task: None = None
    _message_iterator: None = None
    _pending_next_msgs_calls: None = None


def _translated(problems: list[Exception]) -> ForbiddenError | UnavailableError:
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
