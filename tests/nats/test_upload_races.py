"""Uploads whose steps fall between each other, over JetStream, where removing chunks is for good.

A memory store forgets staged parts that became a blob; JetStream purges whatever it is told to. So
the order in which owners wake up, fail and give up is tried here, against what must stay readable.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from tests.repository.pool import name_targets

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import (
    ConflictError,
    NotFoundError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.protocol.headers import BLOB_PART
from holdfast.repository.uploads.owned import Opened, UploadLimits
from holdfast.repository.uploads.record import UPLOAD, Result
from holdfast.repository.uploads.uploads import UploadService
from holdfast.stores.jetstream.blobs.commits import ObjectCommits
from holdfast.stores.jetstream.blobs.meta import chunk_subject, meta_subject
from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
from holdfast.stores.jetstream.buckets.provisioning import (
    ensure_stream,
    object_stream,
    record_stream,
)
from holdfast.stores.jetstream.records import KeyValueRecordStore
from holdfast.stores.location import BucketLocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.stores.ports import Attributes, BlobInfo, Claiming, Stored
    from holdfast.transport.jetstream import JetStream

pytestmark = pytest.mark.nats

PARTS: Final = (b"x" * 1024, b"y" * 10)
CONTENT: Final = b"".join(PARTS)
DIGEST: Final[Digest] = digest_of(CONTENT)


class GatedCommits(ObjectCommits):
    """Stops before a blob's record is published, or loses what was said of it after."""

    gate: asyncio.Event | None = None
    loses_answer = False

    async def commit(
        self,
        info: BlobInfo,
        attributes: Attributes,
        claim: Claiming | None = None,
        *,
        likely_new: bool = False,
        doubtful: bool = False,
        is_young: Callable[[], bool] = lambda: False,
    ) -> Stored:
        async def claim_and_stop(nuid: str) -> None:
            if claim is not None:
                await claim(nuid)
            if self.gate is not None:
                self.reached.set()
                await self.gate.wait()

        stored = await super().commit(
            info,
            attributes,
            claim_and_stop,
            likely_new=likely_new,
            doubtful=doubtful,
            is_young=is_young,
        )
        if self.loses_answer:
            self.loses_answer = False
            raise OutcomeUnknownError
        return stored

    def stop_at_record(self) -> None:
        self.gate, self.reached = asyncio.Event(), asyncio.Event()


class GatedStore(ObjectBlobStore):
    """A store with such commits."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        super().__init__(jetstream, bucket, sources=SOURCES)
        self.commits = self._commits = GatedCommits(
            jetstream, bucket, self._records, self._chunks, self._places, SOURCES
        )


@dataclass
class Worker:
    store: GatedStore
    uploads: UploadService

    async def send_parts(self) -> str:
        opened = await self.uploads.open(size=None, digest=None, type="a/b", op_id=None)
        assert isinstance(opened, Opened)
        for number, data in enumerate(PARTS):
            await self.uploads.part(opened.upload, number, data)
        return opened.upload

    async def read(self) -> bytes:
        return await self.store.get(await self.store.stat(DIGEST))


class Pool:
    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self.jetstream = jetstream
        self.bucket = bucket

    def worker(self, name: str) -> Worker:
        store = GatedStore(self.jetstream, self.bucket)
        records = KeyValueRecordStore(self.jetstream, self.bucket, new_id=SOURCES.new_id)
        uploads = UploadService(
            store,
            records,
            owner=name,
            part_size=1024,
            sources=SOURCES,
            limits=UploadLimits(),
            targets=name_targets(name, store, records, SOURCES),
        )
        return Worker(store, uploads)

    async def messages(self) -> int:
        answer = await self.jetstream.api(f"STREAM.INFO.OBJ_{self.bucket}")
        return int(answer["state"]["messages"])


@pytest.fixture
async def pool(jetstream: JetStream, fresh_name: str) -> Pool:
    location = BucketLocation(bucket=fresh_name)
    await ensure_stream(jetstream, object_stream(fresh_name, location))
    await ensure_stream(jetstream, record_stream(fresh_name, location))
    return Pool(jetstream, fresh_name)


@pytest.mark.fault("P06")
async def test_a_former_owner_that_commits_first_keeps_the_chunks_of_the_blob(pool: Pool) -> None:
    former, successor = pool.worker("a"), pool.worker("b")
    upload = await former.send_parts()
    former.store.commits.stop_at_record()
    late = asyncio.create_task(former.uploads.final(upload, len(PARTS), DIGEST))
    await former.store.commits.reached.wait()
    await successor.uploads.resume(upload)

    assert former.store.commits.gate is not None
    former.store.commits.gate.set()
    await late
    result = await successor.uploads.final(upload, len(PARTS), DIGEST)

    assert result.digest == DIGEST
    assert await successor.read() == CONTENT
    assert await pool.messages() == len(PARTS) + 1


@pytest.mark.fault("P05")
async def test_an_abort_after_an_unknown_commit_leaves_the_blob_whole(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = await worker.send_parts()
    worker.store.commits.loses_answer = True
    with pytest.raises(OutcomeUnknownError):
        await worker.uploads.final(upload, len(PARTS), DIGEST)

    await worker.uploads.abort(upload)

    assert await worker.read() == CONTENT


async def test_a_commit_that_a_foreign_object_blocks_ends_the_upload_and_leaves_nothing(
    pool: Pool,
) -> None:
    worker = pool.worker("a")
    upload = await worker.send_parts()
    foreign = {"name": DIGEST, "bucket": pool.bucket, "nuid": "F" * 22, "size": 0, "chunks": 0}
    subject = meta_subject(pool.bucket, DIGEST)
    await pool.jetstream.publish(subject, json.dumps(foreign).encode(), {})

    with pytest.raises(ConflictError, match="another program"):
        await worker.uploads.final(upload, len(PARTS), DIGEST)

    with pytest.raises(NotFoundError):
        await worker.uploads.resume(upload)
    assert await pool.messages() == 1


@pytest.mark.fault("I14")
async def test_a_put_refused_for_want_of_space_leaves_no_chunk(pool: Pool) -> None:
    name = pool.bucket
    present = (await pool.jetstream.api(f"STREAM.INFO.OBJ_{name}"))["config"]
    await pool.jetstream.api(f"STREAM.UPDATE.OBJ_{name}", {**present, "max_bytes": 1500})
    worker = pool.worker("a")
    upload = await worker.uploads.open(size=None, digest=None, type="a/b", op_id=None)
    assert isinstance(upload, Opened)
    await worker.uploads.part(upload.upload, 0, PARTS[0])

    with pytest.raises(QuotaExceededError):
        await worker.uploads.part(upload.upload, 1, b"z" * 1000)
    await worker.uploads.abort(upload.upload)

    assert await pool.messages() == 0


async def test_a_deletion_whose_space_was_not_freed_is_finished_by_the_next(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = await worker.send_parts()
    await worker.uploads.final(upload, len(PARTS), DIGEST)
    purge, worker.store._chunks.remove = worker.store._chunks.remove, _unreachable  # type: ignore[method-assign]  # the one step that fails

    with pytest.raises(OutcomeUnknownError):
        await worker.store.delete(DIGEST)
    worker.store._chunks.remove = purge  # type: ignore[method-assign]  # as above
    again = await worker.store.delete(DIGEST)

    assert again is False
    assert await pool.messages() == 1  # the tombstone


async def _unreachable(nuid: str, **_: int | None) -> None:
    raise UnavailableError(nuid)


@pytest.mark.fault("P05")
async def test_parts_that_were_written_again_are_named_by_the_uploads_record(pool: Pool) -> None:
    worker = pool.worker("a")
    upload = await worker.send_parts()
    records = KeyValueRecordStore(pool.jetstream, pool.bucket, new_id=SOURCES.new_id)
    before = UPLOAD.read(await records.get(UPLOAD.key(upload))).record
    twice = chunk_subject(pool.bucket, before.nuids[-1])
    await pool.jetstream.publish(twice, PARTS[0], {BLOB_PART: "0"})
    worker.store.commits.loses_answer = True

    with pytest.raises(OutcomeUnknownError):
        await worker.uploads.final(upload, len(PARTS), DIGEST)

    record = UPLOAD.read(await records.get(UPLOAD.key(upload))).record
    generation = (await worker.store.stat(DIGEST)).generation
    assert generation not in before.nuids
    assert generation in record.nuids
    assert record.nuids[-1] == before.nuids[-1]
    # The first parts were found to be doubled before they were claimed: they are no blob's.
    assert {claim.nuid for claim in record.claims} == {generation}
    other = pool.worker("b")
    assert await other.uploads.resume(upload) == Result(
        digest=DIGEST, size=len(CONTENT), created=True
    )
    assert await worker.read() == CONTENT
    assert await pool.messages() == len(PARTS) + 1
