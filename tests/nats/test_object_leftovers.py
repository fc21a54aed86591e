"""Chunks that no record names, and claims of them, in a bucket of a real nats-server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from tests.contracts.blob_store import ATTRIBUTES, FAR_AHEAD, UNPINNED, put, put_staged, some_bytes
from tests.nats.buckets import Paused, new_nuid

from holdfast.domain.digest import digest_of
from holdfast.errors import CorruptError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from tests.nats.buckets import Bucket

    from holdfast.stores.leftover_ports import Leftovers
    from holdfast.stores.ports import Stored

pytestmark = pytest.mark.nats

DATA = some_bytes(2500, seed=11)
DIGEST = digest_of(DATA)


@dataclass
class Writer:
    """A put that has written its chunks, and stops before what it asks about the record."""

    paused: Paused
    task: asyncio.Task[Stored]
    copy: str

    async def go_on(self) -> Stored:
        """What it ends with."""
        self.paused.gate.set()
        return await self.task


async def stopped_before_its_record(bucket: Bucket, data: bytes = DATA) -> Writer:
    """Of one chunk."""
    paused = Paused(bucket)
    paused.stop_before(0)
    task = asyncio.create_task(paused.bucket.store.put(digest_of(data), data, ATTRIBUTES))
    await paused.reached.wait()
    [copy] = await bucket.store.leftovers().copies(0)
    return Writer(paused, task, copy)


async def all_named(leftovers: Leftovers, after: int = 0) -> set[str]:
    """Every copy that a record names."""
    return {copy async for copies in leftovers.named(after) for copy in copies}


class TestCopies:
    async def test_blobs_and_parts_of_none_are_found_with_their_chunks_and_sizes(
        self, bucket: Bucket
    ) -> None:
        before = await bucket.store.now()
        info = (await put_staged(bucket.store, DATA)).info
        parts = bucket.store.stage(new_nuid(), 100)
        await parts.write(0, b"x" * 100)
        await parts.write(1, b"y" * 10)
        leftovers = bucket.store.leftovers()

        found = {copy: await leftovers.look(copy) for copy in await leftovers.copies(0)}

        [orphan] = found.keys() - {info.generation}
        stored = found[orphan]
        assert stored is not None
        assert (stored.chunks, stored.size) == (2, 200)
        assert before <= stored.begun_at <= await bucket.store.now()
        assert await leftovers.copies(2) == []
        assert await leftovers.look(new_nuid()) is None

    async def test_every_living_record_names_its_copy_whoever_wrote_it(
        self, bucket: Bucket
    ) -> None:
        info = await put(bucket.store, DATA)
        gone = await put(bucket.store, b"deleted")
        await bucket.store.delete(gone.digest)
        foreign = {
            "name": "theirs",
            "bucket": bucket.name,
            "nuid": "THEIRS",
            "size": 1,
            "chunks": 1,
        }
        await bucket.write_record("theirs", foreign)

        assert await all_named(bucket.store.leftovers()) == {info.generation, "THEIRS"}

    async def test_only_what_was_written_after_a_revision_is_looked_at_again(
        self, bucket: Bucket
    ) -> None:
        await put(bucket.store, b"before")
        touched = await put(bucket.store, b"touched")
        since = (await bucket.store.extent()).last
        info = await put(bucket.store, DATA)
        await bucket.store.touch(touched.digest, unless_seen_since=FAR_AHEAD)

        named = await all_named(bucket.store.leftovers(), since)

        assert named == {info.generation, touched.generation}

    async def test_a_record_that_cannot_be_read_may_name_any_copy(self, bucket: Bucket) -> None:
        await bucket.write_record(DIGEST, b"{")

        with pytest.raises(CorruptError):
            await all_named(bucket.store.leftovers())

    async def test_a_survey_tells_what_records_name_and_how_many_do_not_say(
        self, bucket: Bucket
    ) -> None:
        info = await put(bucket.store, DATA)
        await bucket.write_record(digest_of(b"unreadable"), b"{")
        await bucket.store.leftovers().claim(info.generation, "a")

        survey = await bucket.store.survey(None, limit=10)

        assert (survey.copies, survey.others, survey.unreadable) == ([info.generation], 1, 1)


class TestClaims:
    async def test_while_a_copy_is_claimed_nobody_counts_on_it_but_it_is_read(
        self, bucket: Bucket
    ) -> None:
        info = await put(bucket.store, DATA)
        leftovers = bucket.store.leftovers()

        await leftovers.claim(info.generation, "a")

        assert not await bucket.open().touch(DIGEST, unless_seen_since=FAR_AHEAD)
        assert (await bucket.open().stat(DIGEST, sure=True)).damaged
        assert await bucket.open().get(info) == DATA
        listing = await bucket.open().list_blobs(prefix="", cursor=None, limit=10)
        assert listing.entries == [info]

    async def test_a_claim_ends_when_the_last_claimant_takes_it_back(self, bucket: Bucket) -> None:
        info = await put(bucket.store, DATA)
        leftovers = bucket.store.leftovers()
        await asyncio.gather(*(leftovers.claim(info.generation, by) for by in "abc"))

        await leftovers.disclaim(info.generation, "a")
        await leftovers.disclaim(info.generation, "c")
        await leftovers.disclaim(info.generation, "another")
        assert not await bucket.store.touch(DIGEST, unless_seen_since=FAR_AHEAD)

        await leftovers.disclaim(info.generation, "b")
        assert await bucket.store.touch(DIGEST, unless_seen_since=FAR_AHEAD)
        assert await bucket.messages() == 2

    async def test_nothing_is_left_of_a_copy_that_is_removed_nor_of_its_claims(
        self, bucket: Bucket
    ) -> None:
        parts = bucket.store.stage(copy := new_nuid(), 100)
        await parts.write(0, b"x")
        leftovers = bucket.store.leftovers()
        await leftovers.claim(copy, "a")
        await leftovers.claim(copy, "b")

        await leftovers.remove(copy)
        await leftovers.remove(copy)

        assert await bucket.messages() == 0

    async def test_a_put_that_finds_the_copy_claimed_takes_its_place(self, bucket: Bucket) -> None:
        info = await put(bucket.store, DATA, replace(ATTRIBUTES, type="first/one"))
        leftovers = bucket.store.leftovers()
        await leftovers.claim(info.generation, "a")

        again = await put(bucket.open(), DATA)
        await leftovers.remove(info.generation)

        assert again.generation != info.generation
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA
        assert await bucket.orphans() == 0


class TestWriters:
    async def test_a_put_whose_chunk_is_claimed_before_its_record_is_there_makes_another_copy(
        self, bucket: Bucket
    ) -> None:
        writer = await stopped_before_its_record(bucket)
        leftovers = bucket.store.leftovers()
        await leftovers.claim(writer.copy, "a")
        assert await all_named(leftovers) == set()

        stored = await writer.go_on()
        await leftovers.remove(writer.copy)

        assert stored.created
        assert stored.info.generation != writer.copy
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA
        assert await bucket.orphans() == 0

    async def test_who_counts_on_its_record_before_it_has_looked_keeps_the_blob(
        self, bucket: Bucket
    ) -> None:
        """It is killed then, or as here, does not look."""
        writer = await stopped_before_its_record(bucket)
        writer.paused.bucket.store.leave_young(timedelta(hours=1))
        leftovers = bucket.store.leftovers()
        await leftovers.claim(writer.copy, "a")
        assert (await writer.go_on()).info.generation == writer.copy

        hit = await bucket.open().put(DIGEST, DATA, UNPINNED)
        await leftovers.remove(writer.copy)

        assert hit.info.generation != writer.copy
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA

    async def test_a_put_whose_chunk_is_gone_is_told_and_leaves_no_record(
        self, bucket: Bucket
    ) -> None:
        writer = await stopped_before_its_record(bucket)
        leftovers = bucket.store.leftovers()
        await leftovers.claim(writer.copy, "a")
        await leftovers.remove(writer.copy)

        with pytest.raises(UnavailableError, match="removed before it became a blob"):
            await writer.go_on()

        with pytest.raises(NotFoundError):
            await bucket.store.stat(DIGEST, sure=True)
        assert await bucket.orphans() == 0

    async def test_a_commit_of_parts_that_are_claimed_makes_another_copy(
        self, bucket: Bucket
    ) -> None:
        parts = bucket.store.stage(copy := new_nuid(), 1000)
        for part in range(3):
            await parts.write(part, DATA[part * 1000 : part * 1000 + 1000])
        leftovers = bucket.store.leftovers()
        await leftovers.claim(copy, "a")

        stored = await parts.commit(DIGEST, len(DATA), UNPINNED)
        await leftovers.remove(copy)

        assert stored.info.generation != copy
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA
        assert await bucket.orphans() == 0
