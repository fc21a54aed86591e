"""Chunks that no record names, and claims of them, in a bucket of a real nats-server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tests.contracts.blob_store import ATTRIBUTES, FAR_AHEAD, UNPINNED, put, put_staged, some_bytes
from tests.nats.buckets import Paused, new_nuid
from tests.nats.tools import Times

from holdfast.domain.digest import digest_of
from holdfast.errors import CorruptError, NotFoundError, OutcomeUnknownError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        """Go on to the end; the result."""
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


def never(_: datetime) -> bool:
    """No claim is abandoned."""
    return False


async def claimed(bucket: Bucket, copy: str) -> str:
    """The mark of a new claim."""
    mark = await bucket.open().leftovers().claim(copy, abandoned=never)
    assert mark is not None
    return mark


async def all_named(leftovers: Leftovers, after: int = 0) -> set[str]:
    """Every copy that a record names."""
    return {copy async for met in leftovers.named(after) for copy in met.copies}


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
        await claimed(bucket, info.generation)

        survey = await bucket.store.survey(None, limit=10)

        assert (survey.copies, survey.others, survey.unreadable) == ([info.generation], 1, 1)


class TestClaims:
    async def test_who_counts_on_a_claimed_copy_takes_the_claim_and_it_stays(
        self, bucket: Bucket
    ) -> None:
        info = await put(bucket.store, DATA)
        mark = await claimed(bucket, info.generation)

        assert await bucket.open().touch(DIGEST, unless_seen_since=FAR_AHEAD)

        assert not await bucket.store.leftovers().remove(info.generation, mark)
        assert await bucket.open().get(info) == DATA
        assert await bucket.messages() == 2

    async def test_a_claimed_copy_is_read_and_listed(self, bucket: Bucket) -> None:
        info = await put(bucket.store, DATA)
        await claimed(bucket, info.generation)

        assert await bucket.open().get(info) == DATA
        listing = await bucket.open().list_blobs(prefix="", cursor=None, limit=10)
        assert listing.entries == [info]

    async def test_nobody_counts_on_a_copy_that_is_going_and_the_next_that_claims_removes_it(
        self, bucket: Bucket
    ) -> None:
        """Whoever was removing it was killed."""
        info = await put(bucket.store, DATA)
        mark = await claimed(bucket, info.generation)
        bucket.js.lose_request = Times(9, lambda subject, _: "PURGE" in subject)
        with pytest.raises(OutcomeUnknownError):
            await bucket.store.leftovers().remove(info.generation, mark)
        bucket.js.lose_request = Times(0, lambda *_: False)

        assert not await bucket.open().touch(DIGEST, unless_seen_since=FAR_AHEAD)
        again = await put(bucket.open(), DATA)
        assert await bucket.store.leftovers().claim(info.generation, abandoned=never) is None

        assert again.generation != info.generation
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA
        assert await bucket.orphans() == 0
        assert await bucket.messages() == 2

    @pytest.mark.parametrize("purges", [0, 1])
    async def test_who_goes_on_late_with_a_removal_that_another_has_ended_removes_nothing_newer(
        self, bucket: Bucket, purges: int
    ) -> None:
        """A writer that was paused for as long may count on it."""
        await bucket.store.stage(copy := new_nuid(), 100).write(0, b"x")
        mark = await claimed(bucket, copy)
        paused = Paused(bucket)
        paused.stop_before(purges, ".STREAM.PURGE.")
        removing = asyncio.create_task(paused.bucket.store.leftovers().remove(copy, mark))
        await paused.reached.wait()
        assert await bucket.store.leftovers().claim(copy, abandoned=never) is None
        assert await bucket.messages() == 0
        await bucket.replace_chunks(copy, [b"x"])
        await claimed(bucket, copy)

        paused.gate.set()
        await removing

        assert await bucket.messages() == 2

    async def test_a_claim_of_another_is_left_alone_until_it_is_abandoned(
        self, bucket: Bucket
    ) -> None:
        await bucket.store.stage(copy := new_nuid(), 100).write(0, b"x")
        mark = await claimed(bucket, copy)
        leftovers = bucket.open().leftovers()

        assert await leftovers.claim(copy, abandoned=never) is None
        mine = await leftovers.claim(copy, abandoned=lambda at: at <= FAR_AHEAD)

        assert mine is not None
        assert not await bucket.store.leftovers().remove(copy, mark)
        await bucket.store.leftovers().release(copy, mark)
        assert await leftovers.remove(copy, mine)
        assert await bucket.messages() == 0

    async def test_a_claim_that_is_released_leaves_nothing(self, bucket: Bucket) -> None:
        await bucket.store.stage(copy := new_nuid(), 100).write(0, b"x")

        await bucket.store.leftovers().release(copy, await claimed(bucket, copy))

        assert await bucket.messages() == 1
        assert await bucket.store.leftovers().claim(copy, abandoned=never) is not None


class TestWriters:
    async def test_a_put_whose_chunk_is_claimed_before_its_record_is_there_takes_the_claim(
        self, bucket: Bucket
    ) -> None:
        writer = await stopped_before_its_record(bucket)
        mark = await claimed(bucket, writer.copy)
        assert await all_named(bucket.store.leftovers()) == set()

        stored = await writer.go_on()

        assert stored.created
        assert not await bucket.store.leftovers().remove(writer.copy, mark)
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA
        assert await bucket.messages() == 2

    async def test_who_counts_on_its_record_before_it_has_looked_keeps_the_blob(
        self, bucket: Bucket
    ) -> None:
        """It is killed then, or as here, does not look."""
        writer = await stopped_before_its_record(bucket)
        writer.paused.bucket.store.leave_young(timedelta(hours=1))
        mark = await claimed(bucket, writer.copy)
        assert (await writer.go_on()).info.generation == writer.copy

        await bucket.open().put(DIGEST, DATA, UNPINNED)

        assert not await bucket.store.leftovers().remove(writer.copy, mark)
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA

    async def test_a_put_whose_chunk_is_gone_is_told_and_leaves_no_record(
        self, bucket: Bucket
    ) -> None:
        writer = await stopped_before_its_record(bucket)
        mark = await claimed(bucket, writer.copy)
        assert await bucket.store.leftovers().remove(writer.copy, mark)

        with pytest.raises(UnavailableError, match="removed before they became a blob"):
            await writer.go_on()

        with pytest.raises(NotFoundError):
            await bucket.store.stat(DIGEST, sure=True)
        assert await bucket.orphans() == 0

    async def test_a_commit_of_parts_that_are_claimed_takes_the_claim(self, bucket: Bucket) -> None:
        parts = bucket.store.stage(copy := new_nuid(), 1000)
        for part in range(3):
            await parts.write(part, DATA[part * 1000 : part * 1000 + 1000])
        mark = await claimed(bucket, copy)

        stored = await parts.commit(DIGEST, len(DATA), UNPINNED)

        assert stored.info.generation == copy
        assert not await bucket.store.leftovers().remove(copy, mark)
        assert await bucket.open().get(await bucket.open().stat(DIGEST)) == DATA


@pytest.mark.parametrize("moment", [1, 2, 3])
async def test_of_blobs_no_more_are_counted_than_there_are_though_claims_end_meanwhile(
    bucket: Bucket, moment: int
) -> None:
    writer = await stopped_before_its_record(bucket, b"another")
    await put(bucket.store, DATA)
    leftovers = bucket.store.leftovers()
    mark = await leftovers.claim(writer.copy, abandoned=never)
    assert mark is not None
    assert await bucket.store.count() == (1, 2)
    request, asked = bucket.js._request, 0

    async def releasing(subject: str, data: Any, headers: Mapping[str, str] | None) -> Any:
        nonlocal asked
        if ".STREAM.INFO." in subject:
            asked += 1
            if asked == moment:
                await leftovers.release(writer.copy, mark)
        return await request(subject, data, headers)

    bucket.js._request = releasing  # type: ignore[method-assign]
    least, most = await bucket.store.count()
    await writer.go_on()

    assert least <= 1 <= most
