"""A collection: what it removes, what it leaves, when it removes nothing, on each kind of store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.repository.collector.conftest import Deployed

from holdfast.bootstrap.admin import accept_loss
from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.blob_names import name_key, version_key
from holdfast.domain.collection import Reason
from holdfast.domain.digest import Digest, digest_of
from holdfast.repository.collector.removals import PREFIX, Removal
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.names.record import (
    NAME,
    VERSION,
    Announcement,
    NamedContent,
    NameRecord,
    VersionRecord,
)
from holdfast.repository.snapshots.record import SNAPSHOT, StoredSnapshot, snapshot_name
from holdfast.stores.deployment import OLD_FORMAT
from holdfast.stores.ports import Attributes
from holdfast.stores.record_ports import Delete

if TYPE_CHECKING:
    from holdfast.repository.collector.report import SpaceReport
    from holdfast.stores.ports import BlobStore

BEFORE = datetime(2026, 1, 1, tzinfo=UTC)


async def put(store: BlobStore, data: bytes, *, pinned: bool = False) -> Digest:
    """Store a blob."""
    attributes = Attributes(type="a/b", created_at=BEFORE, pinned=pinned)
    return (await store.put(digest_of(data), data, attributes)).info.digest


def content(digest: Digest) -> NamedContent:
    """The content of a name."""
    return NamedContent(digest=digest, size=1, type="a/b")


async def put_name(deployed: Deployed, record: NameRecord) -> None:
    """Write the record of a name."""
    key = NAME.key(name_key(record.name))
    await deployed.stores.names.put(key, msgspec.json.encode(record), expected=0)


async def put_snapshot(deployed: Deployed, **fields: object) -> str:
    """Write the record of a snapshot; its key."""
    record = msgspec.structs.replace(
        StoredSnapshot(
            app="app",
            id="0198a000-0000-7000-8000-000000000001",
            state="ok",
            lease=Lease(owner="w", seconds=60),
            created_at="",
        ),
        **fields,
    )
    key = SNAPSHOT.key(snapshot_name(record.key))
    await deployed.stores.snapshots.put(key, msgspec.json.encode(record), expected=0)
    return key


async def collected(deployed: Deployed, *, dry_run: bool = False) -> dict[str, SpaceReport]:
    """Collect once; the report of each space."""
    report = await deployed.collector().collect(dry_run=dry_run, seconds=60)
    assert report.is_done
    assert report.off is None
    return {space.space: space for space in report.spaces}


async def remaining(store: BlobStore) -> set[Digest]:
    """The blobs there are."""
    return {blob.digest for blob in (await store.survey(None, limit=1000)).blobs}


async def test_what_nothing_needs_goes_and_is_reported(deployed: Deployed) -> None:
    blobs, packs = deployed.stores.blobs, deployed.stores.packs
    pinned = await put(blobs, b"pinned", pinned=True)
    named = await put(blobs, b"named")
    await put_name(deployed, NameRecord(name="n", state="ok", version=1, content=content(named)))
    await put(blobs, b"unneeded")
    await put(packs, b"a pack of no snapshot")

    found = await collected(deployed)

    assert (found["blobs"].removed.blobs, found["blobs"].removed.bytes) == (1, len(b"unneeded"))
    assert found["blobs"].kept[Reason.PINNED].blobs == 1
    assert found["blobs"].kept[Reason.NEEDED].blobs == 1
    assert found["packs"].removed.blobs == 1
    assert await remaining(blobs) == {pinned, named}
    assert await remaining(packs) == set()
    assert await blobs.get(await blobs.stat(named, sure=True)) == b"named"


async def test_the_empty_blob_goes_if_nothing_needs_it(deployed: Deployed) -> None:
    await put(deployed.stores.blobs, b"")

    found = await collected(deployed)

    assert found["blobs"].removed.blobs == 1
    assert await remaining(deployed.stores.blobs) == set()


async def test_a_dry_run_says_the_same_and_removes_nothing(deployed: Deployed) -> None:
    kept = await put(deployed.stores.blobs, b"unneeded")

    found = await collected(deployed, dry_run=True)

    assert (found["blobs"].removed.blobs, found["blobs"].removed.bytes) == (1, len(b"unneeded"))
    assert await remaining(deployed.stores.blobs) == {kept}


async def test_what_is_announced_and_what_a_version_has_is_needed(deployed: Deployed) -> None:
    blobs = deployed.stores.blobs
    announced, former = await put(blobs, b"announced"), await put(blobs, b"former")
    one = Announcement(op="op", verb="create", at="", digest=announced, size=1)
    await put_name(deployed, NameRecord(name="n", state="pending", pending=(one,)))
    version = VersionRecord(name="m", version=1, content=content(former))
    key = VERSION.key(version_key("m", 1))
    await deployed.stores.names.put(key, msgspec.json.encode(version), expected=0)

    await collected(deployed)

    assert await remaining(blobs) == {announced, former}


async def test_once_a_name_is_deleted_its_blob_goes(deployed: Deployed) -> None:
    await put(deployed.stores.blobs, b"named")
    await put_name(deployed, NameRecord(name="n", state="deleted", version=1))

    await collected(deployed)

    assert await remaining(deployed.stores.blobs) == set()


async def test_what_was_seen_within_the_grace_time_stays(deployed: Deployed) -> None:
    await deployed.change(grace_seconds=3600)
    young = await put(deployed.stores.blobs, b"young")

    found = await collected(deployed)

    assert found["blobs"].kept[Reason.YOUNG].blobs == 1
    assert await remaining(deployed.stores.blobs) == {young}


async def test_a_record_that_cannot_be_read_stops_the_run(deployed: Deployed) -> None:
    kept = await put(deployed.stores.blobs, b"unneeded")
    await deployed.stores.names.put("n.broken", b"{", expected=0)

    found = await collected(deployed)

    assert "n.broken" in (found["blobs"].failure or "")
    assert await remaining(deployed.stores.blobs) == {kept}


@pytest.mark.parametrize("state", ["ok", "pending"])
async def test_a_root_that_is_not_there_stops_the_run(deployed: Deployed, state: str) -> None:
    kept = await put(deployed.stores.packs, b"a pack")
    await put_snapshot(deployed, state=state, digest=digest_of(b"a root"))

    found = await collected(deployed)

    assert "root" in (found["packs"].failure or "")
    assert await remaining(deployed.stores.packs) == {kept}


async def test_a_parents_root_that_is_not_there_stops_the_run(deployed: Deployed) -> None:
    """Its child may count on packs that are known by that root alone."""
    kept = await put(deployed.stores.packs, b"a pack")
    await put_snapshot(deployed, state="pending", parent_digest=digest_of(b"a root"))

    found = await collected(deployed)

    assert "root" in (found["packs"].failure or "")
    assert await remaining(deployed.stores.packs) == {kept}


async def test_a_failed_snapshot_keeps_nothing(deployed: Deployed) -> None:
    root = await put(deployed.stores.packs, b"a root")
    await put_snapshot(deployed, state="failure", digest=root, parent_digest=root)

    found = await collected(deployed)

    assert found["packs"].failure is None
    assert await remaining(deployed.stores.packs) == set()


async def test_records_that_were_lost_stop_every_run_until_that_is_accepted(
    deployed: Deployed,
) -> None:
    blobs = deployed.stores.blobs
    named = await put(blobs, b"named")
    record = NameRecord(name="n", state="ok", version=1, content=content(named))
    await put_name(deployed, record)
    await collected(deployed)
    noted = (await deployed.record()).roots["names"]
    await deployed.change(roots={"names": msgspec.structs.replace(noted, keys=noted.keys + 1)})

    first, second = await collected(deployed), await collected(deployed)

    for found in first, second:
        assert "records were lost" in (found["blobs"].failure or "")
        assert "`holdfast admin accept-loss`" in (found["blobs"].failure or "")
    if deployed.stores.is_new:
        return
    assert sorted(await accept_loss(deployed.config)) == ["names", "snapshots"]
    assert (await collected(deployed))["blobs"].failure is None


@pytest.mark.parametrize("change", [{"created": "another"}, {"last": 2**40}])
async def test_a_bucket_of_roots_that_is_another_or_has_lost_its_end_stops_the_run(
    deployed: Deployed, change: dict[str, object]
) -> None:
    kept = await put(deployed.stores.blobs, b"unneeded", pinned=True)
    await collected(deployed)
    noted = (await deployed.record()).roots["names"]
    await deployed.change(roots={"names": msgspec.structs.replace(noted, **change)})
    unneeded = await put(deployed.stores.blobs, b"another")

    found = await collected(deployed)

    assert "records were lost" in (found["blobs"].failure or "")
    assert await remaining(deployed.stores.blobs) == {kept, unneeded}


async def test_removed_snapshots_are_counted_on(deployed: Deployed) -> None:
    """What is removed leaves a note for good: there are never fewer."""
    key = await put_snapshot(deployed, state="failure")
    await collected(deployed)
    await deployed.stores.snapshots.batch([Delete(key=key, for_good=True)])

    found = await collected(deployed)

    assert found["packs"].failure is None
    assert (await deployed.record()).roots["snapshots"].keys == 1


async def test_where_older_workers_may_be_at_work_nothing_is_collected(
    deployed: Deployed,
) -> None:
    kept = await put(deployed.stores.blobs, b"unneeded")
    await deployed.change(format=OLD_FORMAT)

    report = await deployed.collector().collect(dry_run=False, seconds=60)

    assert "`holdfast admin upgrade`" in (report.off or "")
    assert await remaining(deployed.stores.blobs) == {kept}


async def test_before_collection_begins_nothing_is_collected(deployed: Deployed) -> None:
    kept = await put(deployed.stores.blobs, b"unneeded")
    soon = await deployed.stores.blobs.now() + timedelta(hours=1)
    await deployed.change(collects_from=soon)

    report = await deployed.collector().collect(dry_run=False, seconds=60)

    assert "begins at" in (report.off or "")
    assert await remaining(deployed.stores.blobs) == {kept}


async def test_many_collectors_at_once_remove_each_blob_once(deployed: Deployed) -> None:
    for number in range(40):
        await put(deployed.stores.blobs, b"unneeded %d" % number)
    kept = await put(deployed.stores.blobs, b"pinned", pinned=True)

    reports = await asyncio.gather(*(collected(deployed) for _ in range(4)))

    assert [found["blobs"].failure for found in reports] == [None] * 4
    assert sum(found["blobs"].removed.blobs for found in reports) == 40
    assert await remaining(deployed.stores.blobs) == {kept}


async def test_a_request_that_comes_meanwhile_joins_the_run(deployed: Deployed) -> None:
    await put(deployed.stores.blobs, b"unneeded")
    collector = deployed.collector()

    first, second = await asyncio.gather(
        collector.collect(dry_run=False, seconds=60), collector.collect(dry_run=False, seconds=60)
    )

    assert first is second
    assert first.is_done


async def test_a_name_that_has_expired_lets_go_of_its_blob(deployed: Deployed) -> None:
    blobs = deployed.stores.blobs
    gone, kept = await put(blobs, b"gone"), await put(blobs, b"kept")
    now = await blobs.now()
    for name, digest, seconds in ("gone", gone, -10), ("kept", kept, 3600):
        at = (now + timedelta(seconds=seconds)).isoformat()
        of_name = msgspec.structs.replace(content(digest), expires_at=at)
        await put_name(deployed, NameRecord(name=name, state="ok", version=1, content=of_name))

    first = await collected(deployed, dry_run=True)
    found = await collected(deployed)

    assert first["blobs"].removed.blobs == 0
    assert found["blobs"].removed.blobs == 1
    assert await remaining(blobs) == {kept}
    record = await deployed.stores.names.get(NAME.key(name_key("gone")))
    assert msgspec.json.decode(record.value, type=NameRecord).state == "deleted"


@pytest.mark.parametrize("days", [-366, 366])
async def test_a_worker_whose_clock_is_wrong_takes_nothing_for_old(
    deployed: Deployed, days: int
) -> None:
    await deployed.change(grace_seconds=3600)
    young = await put(deployed.stores.packs, b"young")

    report = await deployed.collector(skew=timedelta(days=days)).collect(dry_run=False, seconds=60)

    assert report.spaces[0].failure is None
    assert await remaining(deployed.stores.packs) == {young}


@pytest.mark.parametrize("days", [-366, 366])
async def test_a_worker_whose_clock_is_wrong_ends_nothing_and_says_so(
    deployed: Deployed, days: int
) -> None:
    blobs = deployed.stores.blobs
    named = await put(blobs, b"named")
    at = (await blobs.now() + timedelta(hours=24)).isoformat()
    of_name = msgspec.structs.replace(content(named), expires_at=at)
    await put_name(deployed, NameRecord(name="n", state="ok", version=1, content=of_name))

    report = await deployed.collector(skew=timedelta(days=days)).collect(dry_run=False, seconds=60)

    assert "clock" in (report.spaces[1].failure or "")
    assert await remaining(blobs) == {named}


async def test_versions_that_count_no_more_go_and_one_that_is_being_lost_stays(
    deployed: Deployed,
) -> None:
    blobs = deployed.stores.blobs
    digests = [await put(blobs, b"version %d" % number) for number in range(4)]
    record = NameRecord(name="n", state="ok", version=3, oldest=2, content=content(digests[3]))
    await put_name(deployed, record)
    for version in 1, 2, 3:  # the last is written down by a write that is not done yet
        former = VersionRecord(name="n", version=version, content=content(digests[version]))
        key = VERSION.key(version_key("n", version))
        await deployed.stores.names.put(key, msgspec.json.encode(former), expected=0)

    await collected(deployed)

    assert await remaining(blobs) == {digests[2], digests[3]}
    keys = [VERSION.key(version_key("n", version)) for version in (1, 2, 3)]
    left = await deployed.stores.names.get_many(keys)
    assert [one.key for one in left] == keys[1:]


async def test_a_collector_counts_what_it_removed_and_what_it_could_not_read(
    deployed: Deployed,
) -> None:
    await put(deployed.stores.blobs, b"unneeded")
    collector = deployed.collector()
    await collector.collect(dry_run=True, seconds=60)
    await collector.run()
    await deployed.stores.names.put("n.broken", b"{", expected=0)
    await collector.run()

    totals = collector.totals
    assert (totals.runs, totals.failed) == (2, 1)
    assert (totals.removed.blobs, totals.removed.bytes) == (1, len(b"unneeded"))


async def leave(deployed: Deployed, data: bytes, generation: str, *, minutes: int) -> str:
    """A note of a removal from so many minutes ago, and bytes of the copy; the key of the note."""
    store = deployed.stores.blobs
    await store.stage(generation, max(len(data), 1)).write(0, data)
    note = Removal(
        space="blobs",
        at=await store.now() - timedelta(minutes=minutes),
        copies=((digest_of(data), generation),),
    )
    key = f"{PREFIX}.{SOURCES.new_id()}"
    await deployed.stores.records.put(key, msgspec.json.encode(note), expected=0)
    return key


async def parts(store: BlobStore, generation: str) -> list[bytes]:
    """The chunks under a generation."""
    return [bytes(part) async for part in store.staged_parts(generation)]


@pytest.mark.parametrize("minutes", [0, 60])
async def test_bytes_that_a_dead_collector_left_are_removed_by_the_next(
    deployed: Deployed, minutes: int
) -> None:
    store, generation = deployed.stores.blobs, SOURCES.new_id()
    key = await leave(deployed, b"left", generation, minutes=minutes)

    found = await collected(deployed)

    assert found["blobs"].failure is None
    assert await parts(store, generation) == []
    left = await deployed.stores.records.get_many([key])
    assert [one.key for one in left] == ([key] if minutes == 0 else [])


async def test_a_blob_that_was_to_be_removed_and_is_there_again_stays(deployed: Deployed) -> None:
    store = deployed.stores.blobs
    again = await put(store, b"again", pinned=True)
    await leave(deployed, b"again", SOURCES.new_id(), minutes=60)

    await collected(deployed)

    assert await store.get(await store.stat(again, sure=True)) == b"again"


async def test_a_copy_that_was_to_be_removed_and_is_needed_stays(deployed: Deployed) -> None:
    store = deployed.stores.blobs
    kept = await put(store, b"kept", pinned=True)
    info = await store.stat(kept, sure=True)
    note = Removal(
        space="blobs",
        at=await store.now() - timedelta(hours=1),
        copies=((kept, info.generation),),
    )
    await deployed.stores.records.put(f"{PREFIX}.x", msgspec.json.encode(note), expected=0)

    await collected(deployed)

    assert await store.get(info) == b"kept"


async def test_a_collection_leaves_no_notes(deployed: Deployed) -> None:
    for number in range(40):
        await put(deployed.stores.blobs, b"unneeded %d" % number)

    await collected(deployed)

    assert [one async for one in deployed.stores.records.list_records(PREFIX)] == []
