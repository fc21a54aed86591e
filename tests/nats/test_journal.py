"""The store of logs in a stream keeps the contract, and knows its own appends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.journal import JournalStoreContract, new_id
from tests.nats.tools import FlakyJetStream, connected

from holdfast.stores.jetstream.journal import CHECKSUM, StreamJournalStore
from holdfast.stores.jetstream.provisioning import ensure_stream, log_stream
from holdfast.stores.location import BucketLocation
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream_messages import EXPECTED_SUBJECT_SEQUENCE, MSG_ID
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.stores.journal_ports import JournalStore
    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats


async def create_logs(
    connection: Connection, name: str, *, max_bytes: int | None = None
) -> StreamJournalStore:
    """A fresh stream of logs."""
    js = FlakyJetStream(connection, Inbox(connection))
    location = BucketLocation(bucket=name, states_max_bytes=max_bytes)
    await ensure_stream(js, log_stream(name, location))
    return StreamJournalStore(js, name)


@pytest_asyncio.fixture
async def store(connection: Connection, fresh_name: str) -> StreamJournalStore:
    return await create_logs(connection, fresh_name)


class TestStreamJournalStore(JournalStoreContract):
    @pytest_asyncio.fixture
    async def other(
        self, nats_url: str, store: StreamJournalStore
    ) -> AsyncIterator[StreamJournalStore]:
        async with connected(NatsOptions(servers=(nats_url,))) as another:
            yield StreamJournalStore(FlakyJetStream(another, Inbox(another)), store.bucket)

    @pytest_asyncio.fixture
    async def unreachable_store(self, nats_url: str, fresh_name: str) -> StreamJournalStore:
        async with connected(NatsOptions(servers=(nats_url,))) as closed_at_once:
            return await create_logs(closed_at_once, fresh_name + "-gone")

    async def append_damaged(self, store: JournalStore, log: str, expected: int) -> int:
        assert isinstance(store, StreamJournalStore)
        headers = {
            MSG_ID: new_id(),
            EXPECTED_SUBJECT_SEQUENCE: str(expected),
            CHECKSUM: "00000000",
        }
        return (await store._js.publish(store._subject(log), b"sound", headers)).seq
