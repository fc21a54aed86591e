"""Bytes that no record names: which of them a collection removes, on each kind of store."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.nats.tools import connected
from tests.repository.collector.conftest import Deployed
from tests.repository.collector.test_collector import BEFORE, collected, put, remaining
from tests.runtime.test_start_refusals import config_of

from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import open_stores
from holdfast.domain.digest import digest_of
from holdfast.repository.collector import sweep
from holdfast.repository.collector.pace import Pace
from holdfast.repository.collector.report import Orphans
from holdfast.repository.collector.spool import Spool
from holdfast.repository.uploads.record import ENDED_TTL, UPLOAD, State, UploadRecord
from holdfast.stores.jetstream.blobs.meta import meta_subject
from holdfast.stores.jetstream.buckets.provisioning import bucket_names
from holdfast.stores.ports import Attributes
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast.stores.ports import BlobStore
    from holdfast.transport.jetstream_messages import StoredMessage

PARTS = (b"x" * 100, b"y" * 100, b"z" * 30)
DATA = b"".join(PARTS)


async def staged(store: BlobStore) -> str:
    """Parts of which a writer that was killed made no blob."""
    place = store.stage(copy := SOURCES.new_id(), len(PARTS[0]))
    for number, part in enumerate(PARTS):
        await place.write(number, part)
    return copy


async def are_there(store: BlobStore, copy: str) -> bool:
    """Whether the parts are, all or any."""
    found = [bytes(part) async for part in store.staged_parts(copy)]
    assert found in ([], [*PARTS])
    return bool(found)


async def write_upload(deployed: Deployed, state: State, *copies: str) -> None:
    """An upload that has named these copies."""
    record = UploadRecord(
        owner="w", nuids=copies, part_size=100, type="a/b", created_at="", state=state
    )
    ttl = None if state in {"open", "committing"} else ENDED_TTL
    key = UPLOAD.key(SOURCES.new_id())
    await deployed.stores.records.put(key, msgspec.json.encode(record), expected=0, ttl=ttl)


@pytest.fixture
def swept(deployed: Deployed) -> Deployed:
    """One where a writer that is killed leaves bytes."""
    if deployed.stores.blobs.leftovers() is None:
        pytest.skip("this store leaves nothing")
    return deployed


@pytest.mark.parametrize("space", ["blobs", "packs"])
async def test_parts_that_nothing_names_go_and_are_reported(swept: Deployed, space: str) -> None:
    store: BlobStore = getattr(swept.stores, space)
    kept = await put(store, b"pinned", pinned=True)
    copy = await staged(store)

    found = (await collected(swept))[space]

    assert found.failure is None
    assert (found.orphans.copies, found.orphans.chunks) == (1, 3)
    assert len(DATA) <= found.orphans.bytes <= 3 * len(PARTS[0])
    assert found.removed.blobs == 0
    assert not await are_there(store, copy)
    assert await remaining(store) == {kept}
    assert (await collected(swept))[space].orphans.copies == 0


async def test_a_dry_run_says_what_parts_would_go_and_leaves_them(swept: Deployed) -> None:
    copy = await staged(swept.stores.blobs)

    found = (await collected(swept, dry_run=True))["blobs"]

    assert found.orphans.copies == 1
    assert await are_there(swept.stores.blobs, copy)


async def test_blobs_of_several_chunks_stay(swept: Deployed) -> None:
    place = swept.stores.blobs.stage(SOURCES.new_id(), len(PARTS[0]))
    for number, part in enumerate(PARTS):
        await place.write(number, part)
    await place.commit(digest_of(DATA), len(DATA), Attributes(type="a/b", created_at=BEFORE))

    found = (await collected(swept))["blobs"]

    assert found.orphans.copies == 0
    info = await swept.stores.blobs.stat(digest_of(DATA), sure=True)
    assert await swept.stores.blobs.get(info) == DATA


class Lossy(JetStream):
    """JetStream whose direct reads are a replica's that has lost the message ``lost``."""

    lost = 0

    async def direct_at(self, stream: str, query: Mapping[str, Any]) -> StoredMessage | None:
        """See `JetStream.direct_at`."""
        message = await super().direct_at(stream, query)
        if message is not None and message.sequence == self.lost:
            return await super().direct_at(stream, {**query, "seq": self.lost + 1})
        return message

    async def direct_each(
        self, stream: str, queries: Sequence[Mapping[str, Any]]
    ) -> list[StoredMessage]:
        """See `JetStream.direct_each`."""
        found = [await self.direct_at(stream, query) for query in queries]
        return [message for message in found if message is not None]


@pytest.mark.nats
@pytest.mark.fault("N12")
async def test_where_a_replica_has_lost_a_record_the_bytes_that_it_names_stay(
    nats_url: str,
) -> None:
    config = config_of(nats_url, store="nats://blobs", prefix=f"c{SOURCES.new_id()}")
    await init_store(config)
    async with connected(config.nats) as connection:
        jetstream = Lossy(connection, Inbox(connection))
        deployed = Deployed(config, open_stores(config, jetstream, SOURCES))
        await deployed.change(grace_seconds=-1)
        store, bucket = deployed.stores.blobs, bucket_names("blobs", config.prefix).blobs
        digest = await put(store, DATA, pinned=True)
        await put(store, b"behind it", pinned=True)
        record = await jetstream.last_message(f"OBJ_{bucket}", meta_subject(bucket, digest))
        assert record is not None
        jetstream.lost = record.sequence

        found = (await collected(deployed))["blobs"]

        assert found.failure is not None
        assert found.orphans.copies == 0
        assert await store.get(await store.stat(digest, sure=True)) == DATA
        jetstream.lost = 0
        assert (await collected(deployed))["blobs"].failure is None
        await deployed.stores.aclose()


async def test_young_parts_stay(swept: Deployed) -> None:
    copy = await staged(swept.stores.blobs)
    await swept.change(grace_seconds=3600)

    assert (await collected(swept))["blobs"].orphans.copies == 0
    assert await are_there(swept.stores.blobs, copy)


@pytest.mark.parametrize("state", ["open", "committing"])
async def test_parts_of_an_upload_that_may_go_on_stay_of_all_its_owners(
    swept: Deployed, state: State
) -> None:
    copies = [await staged(swept.stores.blobs) for _ in range(2)]
    await write_upload(swept, state, *copies)

    assert (await collected(swept))["blobs"].orphans.copies == 0
    assert [await are_there(swept.stores.blobs, copy) for copy in copies] == [True, True]


@pytest.mark.parametrize("state", ["committed", "aborted", "failed"])
async def test_parts_that_an_ended_upload_has_left_go(swept: Deployed, state: State) -> None:
    copy = await staged(swept.stores.blobs)
    await write_upload(swept, state, copy)

    assert (await collected(swept))["blobs"].orphans.copies == 1
    assert not await are_there(swept.stores.blobs, copy)


async def test_while_the_record_of_an_upload_cannot_be_read_all_parts_stay(
    swept: Deployed,
) -> None:
    copy = await staged(swept.stores.blobs)
    await swept.stores.records.put(UPLOAD.key("x"), b"{", expected=0)

    found = (await collected(swept))["blobs"]

    assert found.failure is not None
    assert await are_there(swept.stores.blobs, copy)


async def test_collectors_at_the_same_time_remove_them_once_and_leave_no_claim(
    swept: Deployed,
) -> None:
    store = swept.stores.blobs
    kept = await put(store, b"kept", pinned=True)
    copies = [await staged(store) for _ in range(3)]

    await asyncio.gather(*(collected(swept) for _ in range(3)))

    assert [await are_there(store, copy) for copy in copies] == [False] * 3
    leftovers = store.leftovers()
    assert leftovers is not None
    info = await store.stat(kept, sure=True)
    assert set(await leftovers.copies(0)) <= {info.generation}
    assert not info.damaged


async def test_a_run_that_is_killed_after_its_claim_is_finished_by_the_next(
    swept: Deployed,
) -> None:
    copy = await staged(swept.stores.blobs)
    leftovers = swept.stores.blobs.leftovers()
    assert leftovers is not None
    assert await leftovers.claim(copy, abandoned=lambda _: False) is not None

    assert (await collected(swept))["blobs"].orphans.copies == 1
    assert not await are_there(swept.stores.blobs, copy)


async def test_a_run_that_is_stopped_does_not_wait_for_a_store_that_is_away(
    swept: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = swept.stores.blobs
    await staged(store)
    leftovers = store.leftovers()
    assert leftovers is not None
    is_away = asyncio.Event()

    async def answers_nothing(*_: object) -> Any:
        is_away.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(sweep, "_RELEASE_SECONDS", 0.01)
    monkeypatch.setattr(type(leftovers), "release", answers_nothing)
    with closing(Spool()) as spool:
        run = sweep.Sweep(
            store,
            leftovers,
            spool,
            answers_nothing,
            Pace(1 << 40, monotonic=SOURCES.monotonic),
            listed_after=0,
            is_abandoned=lambda _: True,
        ).run(Orphans(), dry_run=False)
        running = asyncio.create_task(run)
        await is_away.wait()  # with claims
        running.cancel()

        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await running
