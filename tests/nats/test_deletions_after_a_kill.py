"""nats-server may bring deleted messages back when it is killed; deleted blobs stay deleted.

Its tombstone of a message may go when the block that it lies in is rewritten, which is done at each
sync tick for blocks that are more than half dead, and then the message is there again (2.15.1). So
what says that a blob is deleted must be a message that stays.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import fresh_staging, put, some_bytes
from tests.nats.buckets import NOW, Bucket
from tests.nats.tools import FlakyJetStream, connected, kill, until

from holdfast.errors import NotFoundError
from holdfast.stores.jetstream.blobs.meta import chunk_subject, meta_subject, tombstone
from holdfast.stores.ports import BlobInfo
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream_messages import ROLLUP, TTL
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.conftest import StartServer

    from holdfast.transport.message import Message

pytestmark = pytest.mark.nats

KIB = 1024
BLOB_BYTES = 900 * KIB
"""Nine fill a block of 8 MiB."""


class Hurried(FlakyJetStream):
    """JetStream where whatever was given a time to end has ended a second later."""

    async def _request(
        self, subject: str, data: bytes | memoryview, headers: Mapping[str, str] | None
    ) -> Message:
        if headers is not None and TTL in headers:
            headers = {**headers, TTL: "1s"}
        return await super()._request(subject, data, headers)


class Server:
    """A server that is killed and started again, and the blobs of its bucket, by number."""

    def __init__(self, start_server: StartServer, directory: Path) -> None:
        self._start = partial(start_server, directory=directory, sync_interval="1s")
        self._directory = directory
        self.server = self._start()
        self.infos: dict[int, BlobInfo] = {}

    async def put(self, bucket: Bucket, numbers: range) -> None:
        for number in numbers:
            self.infos[number] = await put(bucket.store, some_bytes(BLOB_BYTES, number))

    async def delete(self, bucket: Bucket, numbers: range) -> None:
        for number in numbers:
            assert await bucket.store.delete(self.infos[number].digest)

    async def until_a_tick(self, before: dict[str, int]) -> None:
        """Until the server has rewritten one of the blocks that there were ``before``."""
        await until(lambda: any(before[name] != self.blocks().get(name) for name in before), 60)

    def blocks(self) -> dict[str, int]:
        """The bucket's blocks. One that is rewritten has the same name and is another file."""
        found = self._directory.rglob("OBJ_*/msgs/*.blk")
        return {path.name: path.stat().st_ino for path in found}

    def kill_and_start(self) -> None:
        kill(self.server)
        self.server = self._start()


async def wait_for_the_end_of_what_ends(bucket: Bucket) -> None:
    """Until a message with a TTL that was sent now is gone, and with it those sent before."""
    staging = fresh_staging()
    await bucket.js.publish(chunk_subject(bucket.name, staging), b"", {TTL: "1s"})
    async with asyncio.timeout(30):
        while staging in await bucket.chunk_counts():
            pass


@pytest.mark.fault("G01")
async def test_deleted_blobs_stay_deleted_when_the_server_is_killed_after_two_sync_ticks(
    start_server: StartServer, tmp_path: Path
) -> None:
    machine = Server(start_server, tmp_path)
    async with connected(NatsOptions(servers=(machine.server.url,))) as connection:
        bucket = await Bucket.create(connection)
        bucket.js = Hurried(connection, Inbox(connection))
        bucket.store = bucket.open()
        await machine.put(bucket, range(20))
        # Around the head of the second block; what the server notes of that lies in the third.
        await machine.delete(bucket, range(8, 12))
        await wait_for_the_end_of_what_ends(bucket)
        await machine.put(bucket, range(20, 40))
        for victims in (range(20, 26), range(30, 36)):  # most of the third block, then of a later
            before = machine.blocks()
            await machine.delete(bucket, victims)
            await machine.until_a_tick(before)

    machine.kill_and_start()

    deleted = {*range(8, 12), *range(20, 26), *range(30, 36)}
    async with connected(NatsOptions(servers=(machine.server.url,))) as connection:
        store = Bucket(connection, bucket.name).store
        for number, info in machine.infos.items():
            if number in deleted:
                with pytest.raises(NotFoundError):
                    await store.stat(info.digest)
            else:
                assert await store.get(info) == some_bytes(BLOB_BYTES, number)
        left = [info for number, info in machine.infos.items() if number not in deleted]
        page = await store.list_blobs(prefix="", cursor=None, limit=1000)
        assert {row.digest for row in page.entries if isinstance(row, BlobInfo)} == {
            info.digest for info in left
        }
        assert await store.missing([info.digest for info in machine.infos.values()]) == [
            info.digest for number, info in machine.infos.items() if number in deleted
        ]


async def test_a_tombstone_of_an_older_release_that_ends_leaves_nothing_there(
    start_server: StartServer,
) -> None:
    server = start_server(sync_interval="1s")
    async with connected(NatsOptions(servers=(server.url,))) as connection:
        bucket = await Bucket.create(connection)
        info = await put(bucket.store, b"once")
        grave = tombstone(bucket.name, info.digest, info.generation, NOW, None)
        subject = meta_subject(bucket.name, info.digest)
        await bucket.js.publish(subject, grave, {ROLLUP: "sub", TTL: "1s"})

        await wait_for_the_end_of_what_ends(bucket)

        with pytest.raises(NotFoundError):
            await bucket.store.stat(info.digest)
        assert not await bucket.store.delete(info.digest)
        again = await put(bucket.store, b"once")
        assert await bucket.store.get(again) == b"once"
