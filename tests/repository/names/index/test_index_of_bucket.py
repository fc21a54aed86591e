"""Changes that a server makes to a bucket without telling those who follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.nats.buckets import create_records, new_nuid
from tests.repository.names.index.index_tools import (
    Names,
    digest,
    listed,
    listed_once_rebuilt,
    running,
)

from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, record_stream
from holdfast.stores.location import BucketLocation
from holdfast.transport.connection import connect
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.nats.tools import FlakyJetStream

    from holdfast.stores.jetstream.records import KeyValueRecordStore
    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats


@pytest_asyncio.fixture
async def connection(nats_url: str) -> AsyncIterator[Connection]:
    connection = await connect(NatsOptions(servers=(nats_url,)))
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def opened(connection: Connection) -> tuple[FlakyJetStream, KeyValueRecordStore]:
    return await create_records(connection, f"names-{new_nuid()}")


async def test_names_whose_messages_were_purged_are_not_listed(
    opened: tuple[FlakyJetStream, KeyValueRecordStore],
) -> None:
    js, store = opened
    names = Names(store)
    for name in ("a", "b", "c"):
        await names.write(name)
    async with running(store) as index:
        assert await listed(index) == ["a", "b", "c"]

        body = {"filter": f"$KV.{store.bucket}.n.b"}
        await js.api(f"STREAM.PURGE.{store.stream}", body)

        assert await listed_once_rebuilt(index) == ["a", "c"]


async def test_names_of_a_bucket_that_was_made_anew_are_its_own(
    opened: tuple[FlakyJetStream, KeyValueRecordStore],
) -> None:
    js, store = opened
    await Names(store).write("old")
    async with running(store) as index:
        assert await listed(index) == ["old"]

        await js.api(f"STREAM.DELETE.{store.stream}")
        location = BucketLocation(bucket=store.bucket)
        await ensure_stream(js, record_stream(store.bucket, location))
        await Names(store).write("new")

        assert await listed_once_rebuilt(index) == ["new"]


async def test_markers_that_expire_make_no_index_doubtful(
    opened: tuple[FlakyJetStream, KeyValueRecordStore],
) -> None:
    js, store = opened
    names = Names(store)
    async with running(store) as index:
        for version in range(1, 4):
            await names.write_version("a", version, version)
        for version in range(1, 4):
            await names.remove(f"v.a.=v{version}")  # its marker lives for a second
        await names.write("a")
        while (await js.state(store.stream)).num_subjects > 1:
            assert not await index.keeps(digest(1))
        assert await listed(index) == ["a"]

        await names.write("b")
        assert await listed(index) == ["a", "b"]
        assert index.state.rebuilt == 0
