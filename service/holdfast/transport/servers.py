"""The choice of a server for a connection that has lost its own.

nats-py shuffles the servers and may come back to the one that was just left for not answering.
Here the one tried longest ago comes first, so each is tried before any is tried again, and one that
was left on purpose comes last for a while.
"""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from urllib.parse import ParseResult

FIRST_WAIT_SECONDS: Final = 0.25
"""Between two attempts at one server; doubled with each failure."""

LONGEST_WAIT_SECONDS: Final = 2.0
GREETING_SECONDS: Final = 1.5
"""Time a server may take to be connected to and to greet."""

AVOIDED_SECONDS: Final = 30.0
"""Time that a server which was left comes behind any other."""


class Server(Protocol):
    """One of those that are known."""

    @property
    def uri(self) -> ParseResult:
        """Where it is."""


class ServerChoice:
    """The next server for one connection. ``monotonic`` gives seconds that only rise."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tried_at: dict[str, float] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._connected_at: dict[str, float] = {}
        self._left_at: dict[str, float] = {}

    def leave(self, address: str) -> None:
        """The server at ``address`` is connected and of no use."""
        self._left_at[address] = self._monotonic()

    def connected(self, address: str) -> None:
        """The server at ``address`` has taken the connection. If that lasts, it is as new."""
        self._connected_at[address] = self._tried_at[address] = self._monotonic()

    def next[S: Server](self, servers: Sequence[S], info: Mapping[str, Any]) -> tuple[S, float]:
        """The server to try and the seconds to wait before that (nats-py's handler)."""
        del info
        now = self._monotonic()
        for address, since in self._connected_at.items():
            if now - since > LONGEST_WAIT_SECONDS:
                self._backoffs.pop(address, None)
        self._connected_at.clear()
        chosen = min(servers, key=lambda server: self._rank(server.uri.netloc, now))
        address = chosen.uri.netloc
        wait_seconds = max(0.0, self._tried_at.get(address, -math.inf) + self._pause(address) - now)
        self._tried_at[address] = now + wait_seconds
        return chosen, wait_seconds

    def _rank(self, address: str, now: float) -> tuple[bool, float, float]:
        avoided = now - self._left_at.get(address, -math.inf) < AVOIDED_SECONDS
        return avoided, self._tried_at.get(address, -math.inf), random.random()  # noqa: S311

    def _pause(self, address: str) -> float:
        """None before the first attempt."""
        if address in self._backoffs:
            return self._backoffs[address].next()
        self._backoffs[address] = Backoff(2 * FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
        return 0.0


async def other_greets(servers: Sequence[ParseResult], known: str, *, tls: bool) -> bool:
    """Whether one of ``servers`` takes a connection and says that it is another than ``known``.

    With ``tls`` they say nothing before that, and taking a connection is enough. ``known`` is the
    id of a server, which may be among them under another address.
    """
    asking = [asyncio.create_task(_greets(server, known, tls=tls)) for server in servers]
    try:
        for answer in asyncio.as_completed(asking):
            if await answer:
                return True
        return False
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _greets(server: ParseResult, known: str, *, tls: bool) -> bool:
    try:
        async with asyncio.timeout(GREETING_SECONDS):
            reader, writer = await asyncio.open_connection(server.hostname, server.port or 4222)
            try:
                return tls or await _server_id(reader) not in {"", known}
            finally:
                writer.transport.abort()
                with suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError, msgspec.MsgspecError):
        return False


class _Greeting(msgspec.Struct):
    server_id: str = ""


async def _server_id(reader: asyncio.StreamReader) -> str:
    """The content of the server's first line, ``INFO {…}``. Raises ValueError, MsgspecError."""
    word, _, greeting = (await reader.readline()).partition(b" ")
    return msgspec.json.decode(greeting, type=_Greeting).server_id if word == b"INFO" else ""
