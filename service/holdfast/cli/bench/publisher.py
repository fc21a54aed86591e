"""Bare JetStream publishes, many in flight: the least that it costs to have commands replicated.

On holdfast's own connection, which writes to the server as fast as any, and without a timer or an
object for each message.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import nats

from holdfast.errors import UnavailableError
from holdfast.protocol.headers import STATUS
from holdfast.transport import connection as transport
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream_messages import WRITE_IN_FLIGHT, Ack
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from holdfast.transport.connection import Connection
    from holdfast.transport.message import Message

STREAM: Final = "BENCH_PUBLISHES"
SUBJECT: Final = "bench.publishes"
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_SECONDS: Final = 60.0


class Publisher:
    """Publishes to one subject of a stream. Made by ``publisher``."""

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        """On ``connection``, with replies to ``inbox``."""
        self._connection = connection
        self._inbox = inbox

    async def publish(self, payloads: Sequence[bytes], in_flight: int) -> None:
        """Publish all of ``payloads``, ``in_flight`` at a time. Raises UnavailableError."""
        rest, missing = iter(payloads), len(payloads)
        is_done = asyncio.get_running_loop().create_future()

        def send_next() -> None:
            payload = next(rest, None)
            if payload is not None:
                self._connection.send(SUBJECT, payload, reply=mailbox.subject)

        def acknowledged(message: Message) -> None:
            nonlocal missing
            missing -= 1
            if is_done.done():
                return
            if b'"error"' in bytes(message.data) or STATUS in message.headers:
                is_done.set_exception(UnavailableError("a publish was refused"))
            elif not missing:
                is_done.set_result(None)
            else:
                send_next()

        mailbox = self._inbox.open(acknowledged, SUBJECT)
        try:
            for _ in range(in_flight):
                send_next()
            async with asyncio.timeout(_SECONDS):
                await is_done
        finally:
            mailbox.close()

    async def compare_and_set(self, payloads: Sequence[bytes]) -> None:
        """Publish one after the other, each only if the last one is that before it.

        One for which the server is not done yet with that before it is sent again. Raises
        UnavailableError.
        """
        headers: dict[str, str] = {}
        for payload in payloads:
            while (ack := await self._published(payload, headers)).error is not None:
                if ack.error.err_code != WRITE_IN_FLIGHT:
                    raise UnavailableError(f"a publish was refused: {ack.error.description}")
            headers = {_EXPECTED: str(ack.seq)}

    async def _published(self, payload: bytes, headers: Mapping[str, str]) -> Ack:
        message = await self._inbox.request(
            SUBJECT, payload, headers=headers, timeout_seconds=_SECONDS
        )
        return msgspec.json.decode(message.data, type=Ack)


@asynccontextmanager
async def publisher(url: str, replicas: int) -> AsyncIterator[Publisher]:
    """A publisher to a stream of its own, which has so many ``replicas``."""
    servers = url.split(",")
    client = await nats.connect(servers)
    try:
        await client.jetstream().add_stream(name=STREAM, subjects=[SUBJECT], num_replicas=replicas)
        connection = await transport.connect(
            NatsOptions(servers=tuple(servers)), timeout_seconds=_SECONDS
        )
        try:
            yield Publisher(connection, Inbox(connection))
        finally:
            await connection.close()
            await client.jetstream().delete_stream(STREAM)
    finally:
        await client.close()
