"""Reads of a blob whose chunk is moved meanwhile, for others delete it and put it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.blob_store import put, said, some_bytes
from tests.nats.buckets import Bucket
from tests.nats.tools import FlakyJetStream

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import digest_of
from holdfast.errors import NotFoundError
from holdfast.repository.blobs import BlobRepository, Content
from holdfast.repository.states.blobs import SavedBytes
from holdfast.repository.states.record import SaveEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.transport.jetstream_messages import StoredMessage

pytestmark = pytest.mark.nats

DATA = some_bytes(3000)
DIGEST = digest_of(DATA)


class Mover:
    """Another worker, which does something before each of the next ``left`` reads of chunks."""

    def __init__(self, bucket: Bucket, left: int, act: Callable[[Bucket], Awaitable[object]]):
        self.left = left
        self._js, self._act = bucket.js, act
        self._bucket = Bucket(bucket.js.connection, bucket.name)
        bucket.js.direct_batch = self._direct_batch  # type: ignore[assignment,method-assign]  # acts before it

    async def _direct_batch(
        self, stream: str, query: Mapping[str, Any]
    ) -> tuple[list[StoredMessage], int]:
        if self.left:
            self.left -= 1
            await self._act(self._bucket)
        return await FlakyJetStream.direct_batch(self._js, stream, query)


async def deletes(bucket: Bucket) -> None:
    await bucket.store.delete(DIGEST, kept=said(True))


async def deletes_and_puts_again(bucket: Bucket) -> None:
    await deletes(bucket)
    await put(bucket.store, DATA)


def repository_of(bucket: Bucket) -> BlobRepository:
    return BlobRepository({"blobs": bucket.store}, max_inline_bytes=len(DATA))


async def test_a_range_of_a_blob_is_not_there_by_its_digest_once_somebody_deleted_it(
    bucket: Bucket,
) -> None:
    await put(bucket.store, DATA)
    mover = Mover(bucket, 1, deletes)

    with pytest.raises(NotFoundError):
        await repository_of(bucket).read(DIGEST, offset=1, length=10)
    assert mover.left == 0


async def test_a_range_of_a_blob_is_read_however_often_its_chunk_is_moved(bucket: Bucket) -> None:
    await put(bucket.store, DATA)
    mover = Mover(bucket, 3, deletes_and_puts_again)

    content = await repository_of(bucket).read(DIGEST, offset=1, length=10)

    assert isinstance(content, Content)
    assert content.data == DATA[1:11]
    assert mover.left == 0


async def test_a_save_is_good_however_often_its_chunk_is_moved_before_it_is_read(
    bucket: Bucket,
) -> None:
    await put(bucket.store, DATA)
    save = SaveEntry(
        number=1, digest=DIGEST, size=len(DATA), kind="bytes", last_applied_index=1, at=""
    )
    mover = Mover(bucket, 3, deletes_and_puts_again)

    assert await SavedBytes(bucket.store, SOURCES).is_good(save)
    assert mover.left == 0
