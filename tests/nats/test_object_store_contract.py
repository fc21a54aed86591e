"""The JetStream stores keep the contract, on a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.blob_changes import BlobChangesContract
from tests.contracts.blob_collecting import BlobCollectingContract
from tests.contracts.blob_model import BlobStoreModel, run_model
from tests.contracts.blob_repacking import BlobRepackingContract
from tests.contracts.blob_store import BlobStoreContract, SpoiltRecordContract
from tests.examples import at_length
from tests.nats.buckets import Bucket
from tests.nats.tools import connected

from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
from holdfast.transport.connection import connect
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast.domain.digest import Digest
    from holdfast.runtime.embedded import EmbeddedServer
    from holdfast.stores.ports import BlobStore
    from holdfast.transport.connection import Connection

pytestmark = pytest.mark.nats


class TestObjectBlobStore(
    BlobRepackingContract,
    BlobCollectingContract,
    BlobChangesContract,
    SpoiltRecordContract,
    BlobStoreContract,
):
    @pytest_asyncio.fixture(autouse=True)
    async def fresh_bucket(self, connection: Connection) -> AsyncIterator[None]:
        self.bucket = await Bucket.create(connection)
        yield
        await self.bucket.remove()

    @pytest.fixture
    def store(self) -> ObjectBlobStore:
        return self.bucket.store

    @pytest_asyncio.fixture
    async def unreachable_store(self, nats_url: str) -> ObjectBlobStore:
        async with connected(NatsOptions(servers=(nats_url,))) as closed_at_once:
            return Bucket(closed_at_once, self.bucket.name).store

    async def alter(
        self, store: BlobStore, digest: Digest, mutate: Callable[[bytes], bytes]
    ) -> None:
        info = await store.stat(digest, partial=True)
        whole = b"".join([bytes(one.data) for one in await self.bucket.chunks(info.generation)])
        altered, size = mutate(whole), info.part_size
        cut = [altered[part * size : (part + 1) * size] for part in range(info.chunks - 1)]
        last = altered[(info.chunks - 1) * size :]
        await self.bucket.replace_chunks(info.generation, [*cut, last])

    async def lose(self, store: BlobStore, digest: Digest) -> None:
        await self.bucket.lose_chunks(digest)

    async def spoil_record(self, store: BlobStore, digest: Digest) -> None:
        await self.bucket.write_record(digest, b'{"name": broken')

    async def leftovers(self, store: BlobStore) -> int:
        del store
        return await self.bucket.orphans()


@pytest.mark.parametrize("histories", at_length(10, 30))
def test_any_sequence_of_operations_leaves_the_object_store_looking_like_a_dict(
    nats_server: EmbeddedServer, histories: int
) -> None:
    class ObjectModel(BlobStoreModel):
        bucket: Bucket
        connection: Connection

        async def open_store(self) -> BlobStore:
            self.connection = await connect(NatsOptions(servers=(nats_server.url,)))
            self.bucket = await Bucket.create(self.connection)
            return self.bucket.store

        async def close_store(self, store: BlobStore) -> None:
            async with asyncio.timeout(30):
                await self.bucket.remove()
                await self.connection.close()

        async def lose(self, digest: Digest) -> None:
            await self.bucket.lose_chunks(digest)

    run_model(ObjectModel, max_examples=histories)
