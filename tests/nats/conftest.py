"""Connections and fresh names on the shared nats-server."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.nats.buckets import Bucket

from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.transport.connection import Connection


@pytest.fixture
def fresh_name() -> str:
    """A name that no other test uses: for a bucket, a stream or a subject."""
    return f"t{secrets.token_hex(6)}"


@pytest_asyncio.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    """A connection to the shared server."""
    connection = await connect(NatsOptions(servers=(nats_url,)))
    yield connection
    await connection.close()


@pytest.fixture
def jetstream(connection: Connection) -> JetStream:
    """JetStream over ``connection``."""
    return JetStream(connection, Inbox(connection))


@pytest_asyncio.fixture
async def bucket(connection: Connection) -> AsyncIterator[Bucket]:
    """A fresh bucket with a store in it."""
    bucket = await Bucket.create(connection)
    yield bucket
    await bucket.remove()
