"""The routes of three servers, through relays that can be cut, slowed down and dropped.

Every route goes through a relay of its own: one for each ordered pair, which the one server has in
its configuration and which leads to the other. A cut stops forwarding, in one direction or both,
and closes nothing: as when packets are dropped, neither side hears of it. What was under way is
kept, and forwarded after the cut is healed, unless the sides have given up by then. A slow link
holds each piece for a while, and for as long as its bytes take at a rate; a dropped one ends, and
may be made anew at once. No rights of root are needed (packets that get lost: ``loss``). The relays
run in a thread, so a test may block its own event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.client.loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK_BYTES: Final = 256 * 1024
_HOST: Final = "127.0.0.1"


@dataclass(slots=True)
class Pace:
    """How fast links are."""

    delay_seconds: float = 0.0
    bytes_per_second: float = math.inf

    async def wait(self, size: int) -> None:
        """As long as so many bytes take."""
        seconds = self.delay_seconds + size / self.bytes_per_second
        if seconds:
            await asyncio.sleep(seconds)


class Links:
    """The relays between all servers of a cluster."""

    def __init__(self, targets: Mapping[str, int]) -> None:
        """``targets`` has the port that each server listens on for routes."""
        self._targets = targets
        self._thread = LoopThread()
        self._ports: dict[tuple[str, str], int] = {}
        self._dialled: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = Pace()
        self._listening: list[asyncio.Server] = []
        self._open: dict[tuple[str, str], asyncio.Event] = {}
        self._thread.run(self._listen())

    def port(self, source: str, target: str) -> int:
        """Where ``source`` reaches ``target``."""
        return self._ports[source, target]

    def is_relay(self, port: int) -> bool:
        """Whether a connection from ``port`` is, or was, one that a relay made.

        A server may list one for a while after it has ended.
        """
        return port in self._dialled

    def cut(self, source: str, target: str) -> None:
        """Drop what ``source`` sends to ``target``."""
        self._thread.run(self._set(source, target, is_open=False))

    def part(self, one: str, other: str) -> None:
        """Drop what two servers send to each other."""
        self.cut(one, other)
        self.cut(other, one)

    def isolate(self, server: str) -> None:
        """Drop what ``server`` sends, and what is sent to it."""
        for other in self._targets:
            if other != server:
                self.part(server, other)

    def slow(self, delay_seconds: float, bytes_per_second: float) -> None:
        """Each link in each direction delays what passes, and lets so much through."""
        self._pace.delay_seconds = delay_seconds
        self._pace.bytes_per_second = bytes_per_second

    def drop(self) -> None:
        """End every connection."""
        self._thread.run(self._drop())

    @property
    def ports(self) -> set[int]:
        """Where routes arrive: at the relays, and at the servers."""
        return {*self._ports.values(), *self._targets.values()}

    def heal(self) -> None:
        """Forward everything again, at once."""
        self.slow(0.0, math.inf)
        for source, target in self._ports:
            self._thread.run(self._set(source, target, is_open=True))

    def join(self, one: str) -> None:
        """Forward again what ``one`` sends, and what is sent to it."""
        for source, target in self._ports:
            if one in {source, target}:
                self._thread.run(self._set(source, target, is_open=True))

    def close(self) -> None:
        """Cut all connections for good, and end the thread."""
        self._thread.run(self._close())
        self._thread.close()

    async def _listen(self) -> None:
        for pair in itertools.permutations(self._targets, 2):
            self._open[pair] = asyncio.Event()
            self._open[pair].set()
            server = await asyncio.start_server(
                partial(self._take, *pair), _HOST, 0, limit=_BLOCK_BYTES
            )
            self._listening.append(server)
            self._ports[pair] = server.sockets[0].getsockname()[1]

    async def _take(
        self,
        source: str,
        target: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(source, target, reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _set(self, source: str, target: str, *, is_open: bool) -> None:
        gate = self._open[source, target]
        if is_open:
            gate.set()
        else:
            gate.clear()

    async def _relay(
        self,
        source: str,
        target: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        there, back = self._open[source, target], self._open[target, source]
        while not (there.is_set() and back.is_set()):  # connecting takes packets both ways
            await there.wait()
            await back.wait()
        if reader.at_eof():
            return  # it was given up meanwhile
        try:
            far_reader, far_writer = await asyncio.open_connection(
                _HOST, self._targets[target], limit=_BLOCK_BYTES
            )
        except OSError:
            return  # nobody listens
        self._dialled.add(far_writer.get_extra_info("sockname")[1])
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, far_writer, there, self._pace))
                pumps.create_task(_pump(far_reader, writer, back, self._pace))
        finally:
            far_writer.close()

    async def _close(self) -> None:
        for server in self._listening:
            server.close()
        while self._tasks:
            await self._drop()

    async def _drop(self) -> None:
        relays = [*self._tasks]
        for task in relays:
            task.cancel()
        if relays:
            await asyncio.wait(relays)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event, pace: Pace
) -> None:
    """Forward until the end, which is forwarded too; while the gate is shut, nothing."""
    with suppress(OSError):
        while True:
            await gate.wait()
            data = await reader.read(_BLOCK_BYTES)
            await gate.wait()
            if not data:
                break
            await pace.wait(len(data))
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()
