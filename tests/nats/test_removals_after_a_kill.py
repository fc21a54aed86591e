"""nats-server may bring deleted messages back when it is killed; removed records stay removed.

Its note of a deletion may go when the block that it lies in is rewritten, which is done at each
sync tick for blocks that are more than half dead, and then the message is there again (2.15.1). So
what says that a record was removed for good must be a message that stays.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from tests.nats.tools import connected, kill, until

from holdfast.errors import NotFoundError
from holdfast.stores.jetstream.buckets.provisioning import ensure_stream, record_stream
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.location import BucketLocation
from holdfast.stores.record_ports import Delete, Put
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from tests.conftest import StartServer

pytestmark = pytest.mark.nats

VALUE: Final = b"x" * (900 * 1024)
"""Four fill a block of such a stream."""

BUCKET: Final = "snapshots"


@asynccontextmanager
async def records_of(url: str) -> AsyncIterator[KeyValueRecordStore]:
    """The bucket, whose markers go away after a second."""
    async with connected(NatsOptions(servers=(url,))) as connection:
        js = JetStream(connection, Inbox(connection))
        await ensure_stream(js, record_stream(BUCKET, BucketLocation(bucket="store")))
        ids = (f"{number:022d}" for number in range(10**6))
        yield KeyValueRecordStore(js, BUCKET, new_id=ids.__next__, marker_ttl=timedelta(seconds=1))


def key_of(number: int) -> str:
    """Of the record of that number."""
    return f"s.app.{number:04}"


async def put(store: KeyValueRecordStore, numbers: Iterable[int]) -> None:
    for number in numbers:
        await store.put(key_of(number), VALUE, expected=0)


async def remove(store: KeyValueRecordStore, numbers: Iterable[int]) -> None:
    for number in numbers:
        await store.batch([Delete(key=key_of(number), for_good=True)])


async def until_markers_went(store: KeyValueRecordStore) -> None:
    """Until a marker that is written now is gone, and with it those that were written before."""
    await store.batch([Put(key="passing", value=b"", expected=None)])
    await store.batch([Delete(key="passing")])
    async with asyncio.timeout(30):
        while "passing" in await store.list_keys(""):
            pass


@pytest.mark.fault("G01")
async def test_removed_records_stay_removed_when_the_server_is_killed_after_two_sync_ticks(
    start_server: StartServer, tmp_path: Path
) -> None:
    start = partial(start_server, directory=tmp_path, sync_interval="1s")

    def blocks() -> dict[str, int]:
        """One that is rewritten has the same name and is another file."""
        found = tmp_path.rglob("KV_*/msgs/*.blk")
        return {path.name: path.stat().st_ino for path in found}

    server = start()
    async with records_of(server.url) as store:
        await put(store, range(20))
        # In the third block, which stays; what the server notes of that lies in the sixth, of which
        # most is removed then.
        await remove(store, [9])
        await until_markers_went(store)
        await put(store, range(20, 29))
        before = blocks()
        await remove(store, range(20, 26))
        await until(lambda: any(before[name] != blocks().get(name) for name in before), 60)
        await until_markers_went(store)

    kill(server)
    server = start()

    removed = {9, *range(20, 26)}
    async with records_of(server.url) as store:
        everything = [key_of(number) for number in range(29)]
        kept = [key_of(number) for number in range(29) if number not in removed]
        assert [record.key for record in await store.get_many(everything)] == kept
        for number in removed:
            with pytest.raises(NotFoundError):
                await store.get(key_of(number))
