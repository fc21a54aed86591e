"""Many copies of an Object Store bucket are counted in few requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_store import put
from tests.nats.tools import connected, receive

from holdfast.transport import jetstream
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.nats.buckets import Bucket

    from holdfast.domain.digest import Digest

pytestmark = pytest.mark.nats


@pytest.fixture(autouse=True)
def _leader_is_believed_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, a leader that was checked need not be asked again."""
    monkeypatch.setattr(jetstream, "BELIEVED_SECONDS", 3600.0)


async def stored(bucket: Bucket, count: int) -> list[Digest]:
    """So many blobs of a chunk each."""
    infos = await asyncio.gather(*(put(bucket.store, b"%d" % number) for number in range(count)))
    return [info.digest for info in infos]


async def missing_and_requests(
    bucket: Bucket, digests: Sequence[Digest], nats_url: str
) -> tuple[list[Digest], int]:
    """The missing ones, counted, and the number of requests about the bucket that this took."""
    async with connected(NatsOptions(servers=(nats_url,))) as other:
        asked = await receive(other, "$JS.API.>")
        missing = await bucket.store.missing(digests, partial=True, counted=True)
        await other.wait_flushed(30)
        subjects = [asked.get_nowait().subject for _ in range(asked.qsize())]
    return missing, sum(bucket.stream in subject for subject in subjects)


@pytest.mark.parametrize(("count", "requests"), [(1, 3), (120, 3), (140, 4)])
async def test_the_requests_grow_with_the_batches_of_records_alone(
    bucket: Bucket, nats_url: str, count: int, requests: int
) -> None:
    digests = await stored(bucket, count)

    assert await missing_and_requests(bucket, digests, nats_url) == ([], requests)


async def test_of_a_bucket_with_many_others_each_copy_is_counted(
    bucket: Bucket, nats_url: str
) -> None:
    digests = await stored(bucket, 80)

    assert await missing_and_requests(bucket, digests[:2], nats_url) == ([], 2 + 2)


@pytest.mark.parametrize("others", [1, 80])
async def test_a_copy_that_lost_its_chunk_is_missing_where_it_is_counted(
    bucket: Bucket, others: int
) -> None:
    info, *_ = [await put(bucket.store, b"lost"), await stored(bucket, others)]
    intact = await put(bucket.store, b"intact")
    both = [intact.digest, info.digest]
    await bucket.js.purge(bucket.stream, f"$O.{bucket.name}.C.{info.generation}")

    assert await bucket.store.missing(both) == []
    assert await bucket.store.missing(both, counted=True) == [info.digest]
