"""What three servers say to each other, through relays that can be cut.

Every route goes through a relay of its own: one for each ordered pair, which the one server has in
its configuration and which leads to the other. A cut stops forwarding, in one direction or both,
and closes nothing: as when packets are dropped, neither side hears of it. What was under way is
kept, and forwarded after the cut is healed, unless the sides have given up by then. No rights of
root are needed. The relays run in a thread, so a test may block its own event loop.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.client.loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK_BYTES: Final = 256 * 1024
_HOST: Final = "127.0.0.1"


class Links:
    """The relays between all servers of a cluster."""

    def __init__(self, targets: Mapping[str, int]) -> None:
        """``targets`` has the port that each server listens on for routes."""
        self._targets = targets
        self._thread = LoopThread()
        self._ports: dict[tuple[str, str], int] = {}
        self._dialled: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
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

    def heal(self) -> None:
        """Forward everything again."""
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
                pumps.create_task(_pump(reader, far_writer, there))
                pumps.create_task(_pump(far_reader, writer, back))
        finally:
            far_writer.close()

    async def _close(self) -> None:
        for server in self._listening:
            server.close()
        for task in [*self._tasks]:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
) -> None:
    """Forward until the end, which is forwarded too; while the gate is shut, nothing."""
    with suppress(OSError):
        while True:
            await gate.wait()
            data = await reader.read(_BLOCK_BYTES)
            await gate.wait()
            if not data:
                break
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()
