"""Records of a bucket by the million, made by pipelined publishes over one connection."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from nats.nuid import NUID

from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, record_stream
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.location import BucketLocation
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from holdfast.transport.message import Message

IN_FLIGHT: Final = 2000
_nuid = NUID()


def new_id() -> str:
    """A fresh one."""
    return _nuid.next().decode()


@asynccontextmanager
async def connected(
    url: str, bucket: str
) -> AsyncIterator[tuple[KeyValueRecordStore, JetStream, Inbox]]:
    """The bucket over a connection of its own."""
    connection = await connect(NatsOptions(servers=(url,)))
    try:
        inbox = Inbox(connection)
        js = JetStream(connection, inbox)
        yield KeyValueRecordStore(js, bucket, new_id=new_id), js, inbox
    finally:
        await connection.close()


async def fill(url: str, bucket: str, records: Iterable[tuple[str, bytes]]) -> None:
    """Make the bucket and its ``records``, with a bounded number unacknowledged."""
    slots = asyncio.Semaphore(IN_FLIGHT)

    def acknowledged(message: Message) -> None:
        if b'"error"' in bytes(message.data):
            raise SystemExit(bytes(message.data).decode())
        slots.release()

    async with connected(url, bucket) as (_, js, inbox):
        await ensure_stream(js, record_stream(bucket, BucketLocation(bucket=bucket)))
        mailbox = inbox.open(acknowledged)
        for key, value in records:
            await slots.acquire()
            await js.connection.wait_sendable()
            js.connection.send(f"$KV.{bucket}.{key}", value, reply=mailbox.subject)
        for _ in range(IN_FLIGHT):
            await slots.acquire()
        mailbox.close()
