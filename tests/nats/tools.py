"""Tools of several tests against a real server."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from tests.processes import stop

from holdfast.transport.connection import connect
from holdfast.transport.jetstream import JetStream
from holdfast.transport.observer import Observer
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer
    from holdfast.transport.connection import Connection
    from holdfast.transport.jetstream_messages import BatchMessage
    from holdfast.transport.message import Message


async def until(condition: Callable[[], bool], timeout_seconds: float = 60) -> None:
    """Wait for what no event tells of. Raises TimeoutError."""
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.01)


def damage_block(directory: Path, mark: bytes, *, index_is_lost: bool = False) -> None:
    """Alter a bit of ``mark``, where a server keeps what was appended to logs."""
    [block] = directory.rglob("HF_states/msgs/1.blk")
    place = block.read_bytes().index(mark)
    with block.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    if index_is_lost:
        (block.parent / "index.db").unlink()


class Told(Observer):
    """The errors that a connection told, and how often that it is closed."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.closed_times = 0

    def failed(self, problem: Exception) -> None:
        self.problems.append(str(problem))

    def closed(self) -> None:
        self.closed_times += 1


@asynccontextmanager
async def connected(options: NatsOptions) -> AsyncIterator[Connection]:
    """A connection that is closed afterwards."""
    connection = await connect(options)
    try:
        yield connection
    finally:
        await connection.close()


async def receive(connection: Connection, subject: str) -> asyncio.Queue[Message]:
    """The messages on ``subject``, once the server knows that they are wanted."""
    messages: asyncio.Queue[Message] = asyncio.Queue()
    connection.route(subject, messages.put_nowait)
    await connection.wait_flushed(30)
    return messages


async def next_of(messages: asyncio.Queue[Message]) -> Message:
    """The next one. Raises TimeoutError."""
    async with asyncio.timeout(30):
        return await messages.get()


def kill(server: EmbeddedServer) -> None:
    """End the server as a power cut would."""
    os.kill(server.pid, signal.SIGKILL)
    server.stop()  # collects the process and releases its directory


@contextmanager
def frozen(server: EmbeddedServer) -> Iterator[None]:
    """The server keeps its sockets open and does nothing, not even what it had begun."""
    stop(server.pid)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


class FlakyJetStream(JetStream):
    """Real JetStream over a network that loses what a test tells it to lose.

    ``lose_request`` and ``lose_answer`` are asked about each request, in this order. A request that
    is lost never reaches the server; of one whose answer is lost the server has done its part. The
    caller meets the time-out at once instead of waiting for it. A batch counts as one request, on
    the subject of its first message.
    """

    lose_request: Callable[[str, Mapping[str, str]], bool] = staticmethod(lambda *_: False)
    lose_answer: Callable[[str, Mapping[str, str]], bool] = staticmethod(lambda *_: False)

    async def _request(
        self, subject: str, data: bytes | memoryview, headers: Mapping[str, str] | None
    ) -> Message:
        if self.lose_request(subject, headers or {}):
            raise TimeoutError
        answer = await super()._request(subject, data, headers)
        if self.lose_answer(subject, headers or {}):
            raise TimeoutError
        return answer

    async def _send_batch(self, messages: Sequence[BatchMessage], batch: str) -> Message:
        first = messages[0]
        if self.lose_request(first.subject, first.headers):
            raise TimeoutError
        answer = await super()._send_batch(messages, batch)
        if self.lose_answer(first.subject, first.headers):
            raise TimeoutError
        return answer


class From:
    """True from the first time on that it is asked about something that ``matches``."""

    def __init__(self, matches: Callable[[str, Mapping[str, str]], bool]) -> None:
        self._matches = matches
        self._has_begun = False

    def __call__(self, subject: str, headers: Mapping[str, str]) -> bool:
        self._has_begun = self._has_begun or self._matches(subject, headers)
        return self._has_begun


class Times:
    """True the first ``count`` times it is asked about something that ``matches``."""

    def __init__(self, count: int, matches: Callable[[str, Mapping[str, str]], bool]) -> None:
        self.left = count
        self._matches = matches

    def __call__(self, subject: str, headers: Mapping[str, str]) -> bool:
        if self.left and self._matches(subject, headers):
            self.left -= 1
            return True
        return False
