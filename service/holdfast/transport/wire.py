"""The socket of a connection, with the methods that nats-py wants a transport to have.

It receives in place: what arrives goes into the parser's own buffers.

Why: docs/decisions.md, "The socket's send buffer is set, its receive buffer is not".
"""

from __future__ import annotations

import asyncio
import io
import socket
import time
from typing import TYPE_CHECKING, Final, cast

from holdfast.transport.parser import ParseError, Parser

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from urllib.parse import ParseResult

_HIGH_WATER_BYTES: Final = 4 * 1024 * 1024
SEND_BUFFER_BYTES: Final = 2 * 1024 * 1024
JOINED_PIECE_BYTES: Final = 4 * 1024
"""Pieces that are smaller than that on average are joined: to copy one costs less than to keep it
apart."""

_LINE_END: Final = b"\r\n"
_CLOSE_SECONDS: Final = 2.0


class Disconnected(Exception):  # noqa: N818  (an event, not an error of ours)
    """The socket of ``wire`` is gone."""

    def __init__(self, wire: Wire, error: Exception | None) -> None:
        super().__init__()
        self.wire = wire
        self.error = error


type ControlLine = bytes | ParseError | Disconnected
"""A line that is no message, or why none will follow."""


class Wire(asyncio.BufferedProtocol):
    """The socket: a protocol that receives in place, written to as nats-py writes.

    Until ``start_parsing`` lines are kept for ``readline`` (the handshake); then the parser gets
    everything. ``backlog`` is how many bytes the peer has not taken; 0 while it keeps up.
    ``received_at`` is when it last sent any, on the monotonic clock.
    """

    def __init__(self, parser: Parser, events: asyncio.Queue[ControlLine]) -> None:
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
        self.received_at = time.monotonic()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio.Transport, but all that it asks for.
        self._transport = cast("asyncio.Transport", transport)
        # Left to grow by itself the buffer holds bulk senders back.
        plain = transport.get_extra_info("socket")
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return memoryview(self._scratch) if self._handshake is not None else self._parser.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self.received_at = time.monotonic()
        if self._handshake is not None:
            self._handshake += memoryview(self._scratch)[:nbytes]
            self._progress.set()
            return
        self._parse(self._parser.received, nbytes)

    def _parse[T](self, take: Callable[[T], None], received: T) -> None:
        try:
            take(received)
        except ParseError as error:
            self._events.put_nowait(error)
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
        self._events.put_nowait(Disconnected(self, exc if isinstance(exc, OSError) else None))

    # what nats-py calls

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
        transport = self._plain()
        if not transport.is_closing():  # else its reader has not yet been told; uvloop fails here
            transport.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        transport = self._plain()
        if transport.is_closing():
            return  # its reader has not yet been told; CPython before 3.13.2 fails here
        if sum(map(len, payload)) < JOINED_PIECE_BYTES * len(payload):
            transport.write(b"".join(payload))
        else:
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
        raise ConnectionResetError("connection lost during the handshake")

    async def wait_writable(self) -> None:
        await self._writable.wait()

    async def drain(self) -> None:
        # A connection that is lost tells its reader; nats-py would break off its own closing here.
        await self._writable.wait()

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
        return self._eof or (self._transport is not None and self._transport.is_closing())

    def __bool__(self) -> bool:
        return self._transport is not None

    def _plain(self) -> asyncio.Transport:
        if self._transport is None:
            raise ConnectionResetError("not connected")
        return self._transport
