"""A scrub reads everything back, marks and tells what is damaged, and is carried on by others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.contracts.blob_store import some_bytes
from tests.contracts.states import worker_on
from tests.repository.care.scrubs import lap_of, scrub_of
from tests.repository.collector.test_collector import (
    collected,
    content,
    put,
    put_name,
    remaining,
)

from holdfast.errors import CorruptError, NotFoundError, UnavailableError
from holdfast.repository.care import lap as lap_module
from holdfast.repository.care.scrub import LEASE_SECONDS, LOOK_SECONDS
from holdfast.repository.names.record import NameRecord
from holdfast.stores.disk.store import DiskBlobStore
from holdfast.stores.jetstream.blobs.meta import chunk_subject
from holdfast.stores.jetstream.blobs.objects import ObjectBlobStore
from holdfast.stores.memory import MemoryBlobStore
from holdfast.stores.wrappers.forwarding import ForwardingBlobStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.repository.collector.conftest import Deployed

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobInfo, BlobStore, Spending
    from holdfast.stores.record_ports import RecordStore


async def spoil(store: BlobStore, digest: Digest) -> None:
    """Change stored bytes behind the store's back."""
    if isinstance(store, MemoryBlobStore):
        store._blobs[digest].data = b"other bytes"
    elif isinstance(store, DiskBlobStore):
        path = store._blobs._path(digest)
        data = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        assert isinstance(store, ObjectBlobStore)
        subject = chunk_subject(store.bucket, (await store.stat(digest)).generation)
        await store._js.purge(store.stream, subject)
        await store._js.publish(subject, b"other bytes", {"Blob-Part": "0"})


async def test_a_lap_reads_every_blob_and_pack_once(deployed: Deployed) -> None:
    for number in range(5):
        await put(deployed.stores.blobs, some_bytes(1000 + number, number), pinned=True)
        await put(deployed.stores.packs, some_bytes(2000 + number, number))
    scrub = scrub_of(deployed)

    lap = await lap_of(scrub)

    assert (lap.checked, lap.bytes) == (10, 5 * 3000 + 20)
    assert (lap.damaged, lap.unreadable, lap.told) == (0, 0, ())
    assert (scrub.totals.laps, scrub.totals.checked) == (1, 10)


@pytest.mark.fault("N12", "D02")
async def test_damage_is_found_told_and_marked_and_nothing_is_collected_for_it(
    deployed: Deployed,
) -> None:
    blobs, packs = deployed.stores.blobs, deployed.stores.packs
    named = await put(blobs, b"named")
    await put_name(deployed, NameRecord(name="n", state="ok", version=1, content=content(named)))
    pinned, intact = await put(blobs, b"pinned", pinned=True), await put(blobs, b"i", pinned=True)
    pack = await put(packs, b"pack")
    for store, digest in ((blobs, named), (blobs, pinned), (packs, pack)):
        await spoil(store, digest)

    lap = await lap_of(scrub_of(deployed))

    assert (lap.damaged, lap.healed) == (3, 0)
    assert {(one.space, one.name) for one in lap.told} == {
        ("blobs", named),
        ("blobs", pinned),
        ("packs", pack),
    }
    assert await blobs.missing([named, intact, pinned]) == [named, pinned]
    before = await remaining(blobs)
    assert (await collected(deployed))["blobs"].removed.blobs == 0
    assert await remaining(blobs) == before
    for digest in (named, pinned):
        with pytest.raises((CorruptError, NotFoundError)):
            await blobs.get(await blobs.stat(digest))


async def test_a_put_of_the_right_bytes_makes_the_next_lap_a_clean_one(deployed: Deployed) -> None:
    blobs = deployed.stores.blobs
    digest = await put(blobs, b"pinned", pinned=True)
    await spoil(blobs, digest)
    scrub = scrub_of(deployed)
    assert (await lap_of(scrub)).damaged == 1

    await put(blobs, b"pinned", pinned=True)

    assert (await lap_of(scrub)).damaged == 0


async def test_records_that_cannot_be_read_are_told_one_by_one(deployed: Deployed) -> None:
    await deployed.stores.names.put("n.broken", b"{", expected=0)
    await deployed.stores.names.put("v.broken", b"{", expected=0)
    await deployed.stores.snapshots.put("s.broken.x", b"[]", expected=0)

    lap = await lap_of(scrub_of(deployed))

    assert lap.unreadable == 3
    assert {(one.space, one.name) for one in lap.told} == {
        ("names", "n.broken"),
        ("names", "v.broken"),
        ("snapshots", "s.broken.x"),
    }


async def test_records_that_were_lost_since_they_were_counted_are_told(deployed: Deployed) -> None:
    await put_name(deployed, NameRecord(name="n", state="deleted", version=1))
    await collected(deployed)
    noted = (await deployed.record()).roots
    more = msgspec.structs.replace(noted["names"], keys=noted["names"].keys + 1)
    await deployed.change(roots={**noted, "names": more})

    lap = await lap_of(scrub_of(deployed))

    [told] = lap.told
    assert (lap.unreadable, told.space) == (1, "names")
    assert "lost" in told.detail


async def test_a_collection_beside_a_lap_has_it_tell_of_no_loss(deployed: Deployed) -> None:
    """It notes more than there was when the lap began to read."""
    worker = worker_on(deployed.stores)
    made: list[str] = []

    async def meanwhile(_: float) -> None:
        if len(made) < 3:
            made.append(f"n{len(made)}")
            await worker.append(made[-1], b"a state")
            await put_name(deployed, NameRecord(name=made[-1], state="deleted", version=1))
            await collected(deployed)

    lap = await lap_of(scrub_of(deployed, sleep=meanwhile))

    assert len(made) == 3
    assert lap.told == ()


async def test_a_lap_begins_when_it_is_due_or_asked_for(deployed: Deployed) -> None:
    scrub = scrub_of(deployed, every=timedelta(days=7))
    first = await lap_of(scrub)

    again = await lap_of(scrub)
    await scrub.begin()
    await lap_of(scrub)
    asked = await lap_of(scrub)
    await scrub.aclose()

    assert again == first
    assert asked.began_at > first.began_at


async def test_each_place_has_laps_of_its_own(deployed: Deployed) -> None:
    await put(deployed.stores.blobs, b"x", pinned=True)
    here, there = scrub_of(deployed), scrub_of(deployed, "v", place="nats 2.example")

    await lap_of(here)
    await lap_of(there)

    places = await here.places()
    assert {one.place for one in places} == {"here", "nats 2.example"}
    assert [one.last.checked for one in places if one.last is not None] == [1, 1]


class Halting(ForwardingBlobStore):
    """Fails when the ``left``-th blob is read back."""

    def __init__(self, inner: BlobStore, left: int) -> None:
        super().__init__(inner)
        self.left = left
        self.met: list[Digest] = []

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`."""
        if self.left == 0:
            raise UnavailableError
        self.left -= 1
        self.met.append(info.digest)
        await super().read_back(info, spend)


async def test_another_worker_carries_on_where_one_stopped_once_its_lease_has_passed(
    deployed: Deployed,
) -> None:
    stored = [await put(deployed.stores.blobs, b"%d" % n, pinned=True) for n in range(300)]
    packs, blobs = deployed.collector().spaces
    first, second = Halting(blobs.store, 260), Halting(blobs.store, 1000)
    monotonic = 0.0
    dying = scrub_of(deployed, "dying", spaces=(packs, replace(blobs, store=first)))
    heir = scrub_of(
        deployed,
        "heir",
        spaces=(packs, replace(blobs, store=second)),
        monotonic=lambda: monotonic,
    )
    with pytest.raises(UnavailableError):
        await dying.run()

    while not second.met:
        await heir.run()
        monotonic += LOOK_SECONDS

    assert monotonic >= LEASE_SECONDS
    assert {*first.met, *second.met} == set(stored)
    assert len(second.met) < len(stored)
    [record] = await heir.places()
    assert record.last is not None
    assert record.last.checked == len(stored)


class Spoiling(ForwardingBlobStore):
    """Has the record of the scrub damaged when a blob is read back."""

    def __init__(self, inner: BlobStore, records: RecordStore) -> None:
        super().__init__(inner)
        self.records = records

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`."""
        [key] = await self.records.list_keys("scrub")
        found = await self.records.get(key)
        await self.records.put(key, b"{", expected=found.revision)
        await super().read_back(info, spend)


async def test_damage_to_the_record_of_the_scrub_itself_is_not_told_of_a_blob(
    deployed: Deployed,
) -> None:
    digest = await put(deployed.stores.blobs, b"sound", pinned=True)
    packs, blobs = deployed.collector().spaces
    spoiling = Spoiling(blobs.store, deployed.stores.records)
    time = count(step=LEASE_SECONDS)  # so that the lease is renewed with each piece
    scrub = scrub_of(
        deployed,
        spaces=(packs, replace(blobs, store=spoiling)),
        monotonic=lambda: next(time),
    )

    with pytest.raises(UnavailableError, match="record"):
        await scrub.run()

    assert scrub.totals.damaged == 0
    assert await deployed.stores.blobs.missing([digest]) == []


async def test_of_two_workers_at_one_place_one_reads(deployed: Deployed) -> None:
    for number in range(20):
        await put(deployed.stores.blobs, b"%d" % number, pinned=True)
    scrubs = [scrub_of(deployed, f"w{n}", every=timedelta(days=1)) for n in range(2)]

    await asyncio.gather(*(scrub.run() for scrub in scrubs))

    assert sorted(scrub.totals.checked for scrub in scrubs) == [0, 20]


async def test_what_was_deleted_is_not_read(deployed: Deployed) -> None:
    digest = await put(deployed.stores.blobs, b"deleted", pinned=True)
    await deployed.stores.blobs.delete(digest)

    assert (await lap_of(scrub_of(deployed))).checked == 0


class Busy(ForwardingBlobStore):
    """Of which two blobs change for each that is read back: one is touched, one is put."""

    def __init__(self, inner: BlobStore, stored: Sequence[Digest]) -> None:
        super().__init__(inner)
        self.stored = stored
        self.met: list[Digest] = []

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`."""
        await super().read_back(info, spend)
        self.met.append(info.digest)
        number = len(self.met)
        digest = self.stored[-number % len(self.stored)]
        await self.touch(digest, unless_seen_since=datetime.max.replace(tzinfo=UTC))
        await put(self, b"%d more" % number)


async def test_a_lap_ends_and_has_met_all_though_blobs_are_put_and_touched_as_fast_as_it_reads(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a lap begins with is read, also what is touched once before it is reached."""
    monkeypatch.setattr(lap_module, "_PAGE", 8)
    stored = [await put(deployed.stores.blobs, b"%d" % number) for number in range(20)]
    packs, blobs = deployed.collector().spaces
    busy = Busy(blobs.store, stored)

    lap = await lap_of(scrub_of(deployed, spaces=(packs, replace(blobs, store=busy))))

    assert set(stored) <= set(busy.met)
    assert lap.checked == len(busy.met)
    assert lap.damaged == 0


async def test_records_are_read_before_blobs(deployed: Deployed) -> None:
    await put(deployed.stores.blobs, b"x", pinned=True)
    await deployed.stores.names.put("n.broken", b"{", expected=0)
    packs, blobs = deployed.collector().spaces
    halting = Halting(blobs.store, 0)
    scrub = scrub_of(deployed, spaces=(packs, replace(blobs, store=halting)))

    with pytest.raises(UnavailableError):
        await scrub.run()

    [record] = await scrub.places()
    assert record.lap is not None
    assert record.lap.unreadable == 1
