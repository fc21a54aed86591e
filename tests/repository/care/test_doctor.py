"""The faults that a worker finds with a deployment, on each kind of store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from tests.contracts.blob_store import some_bytes
from tests.repository.care.scrubs import lap_of, scrub_of
from tests.repository.care.test_scrub import spoil
from tests.repository.care.test_usage import inventory, name, snapshot
from tests.repository.collector.test_collector import put, put_name, put_snapshot

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.store_state import BucketState, Peer, StoreState
from holdfast.repository.care.doctor import Doctor, Surroundings
from holdfast.repository.care.scrub_record import ONE_PLACE
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.names.record import Announcement, NameRecord
from holdfast.stores.deployment import OLD_FORMAT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.repository.collector.conftest import Deployed

    from holdfast.domain.findings import Finding, StreamCount
    from holdfast.repository.care.scrub import Scrub

FINE = StoreState(durability="synced")


def doctor_of(
    deployed: Deployed,
    scrub: Scrub | None = None,
    *,
    state: StoreState = FINE,
    troubles: dict[str, str] | None = None,
    skew: timedelta = timedelta(0),
    monotonic: Callable[[], float] = SOURCES.monotonic,
) -> Doctor:
    """That of a worker whose clock is ahead by ``skew``."""

    async def store() -> StoreState:
        return state

    async def counts() -> Sequence[StreamCount]:
        return ()

    return Doctor(
        inventory(deployed),
        deployed.collector(),
        deployed.stores.records,
        scrub or scrub_of(deployed),
        Surroundings(
            store=store,
            counts=counts,
            clocks=lambda off: {"here": off},
            troubles=lambda: troubles or {},
        ),
        sources=replace(SOURCES, clock=lambda: SOURCES.clock() + skew, monotonic=monotonic),
    )


async def found(deployed: Deployed, doctor: Doctor | None = None) -> dict[str, Finding]:
    """The findings, by kind."""
    doctor = doctor or doctor_of(deployed)
    findings = await doctor.get(None, 60)
    assert findings is not None
    await doctor.aclose()
    return {one.kind: one for one in findings}


async def test_of_a_deployment_that_is_well_nothing_is_told(deployed: Deployed) -> None:
    await name(deployed, "n", b"named")
    scrub = scrub_of(deployed, every=timedelta(days=1))
    await lap_of(scrub)

    assert await found(deployed, doctor_of(deployed, scrub)) == {}


async def test_damage_that_the_scrub_met_and_what_needs_it_are_told(deployed: Deployed) -> None:
    digest = await name(deployed, "n", b"named")
    await spoil(deployed.stores.blobs, digest)
    scrub = scrub_of(deployed)
    await lap_of(scrub)

    told = await found(deployed, doctor_of(deployed, scrub))

    assert told["damage"].severity == "error"
    assert told["lost_reference"].text.startswith(f"n needs {digest} of blobs")


async def test_what_needs_a_blob_that_a_reader_found_damaged_is_told_until_it_is_put_again(
    deployed: Deployed,
) -> None:
    blobs = deployed.stores.blobs
    digest = await name(deployed, "n", b"named")
    info = await blobs.stat(digest)
    await spoil(blobs, digest)
    await blobs.report_damage(info)

    told = await found(deployed)
    await put(blobs, b"named")

    assert told["lost_reference"].text.startswith(f"n needs {digest} of blobs")
    assert "lost_reference" not in await found(deployed)


async def test_a_name_whose_blob_is_not_there_is_told_with_it(deployed: Deployed) -> None:
    digest = await name(deployed, "n", b"named")
    await deployed.stores.blobs.delete(digest)

    told = await found(deployed)

    assert told["lost_reference"].severity == "error"
    assert told["lost_reference"].text.startswith(f"n needs {digest} of blobs")


async def test_a_partial_pack_without_all_that_a_snapshot_needs_is_told_with_it(
    deployed: Deployed,
) -> None:
    packs = deployed.stores.packs
    await snapshot(deployed, 1, "blog", *(some_bytes(40_000, seed) for seed in range(20)))
    [largest] = sorted((await packs.survey(None, limit=99)).blobs, key=lambda one: one.size)[-1:]
    await packs.repack(largest, ((0, 1000),))

    told = await found(deployed)

    assert "lost_reference" in told
    assert told["lost_reference"].text == (
        f"blog:0198a000-0000-7000-8000-000000000001 needs {largest.digest} of packs,"
        " which lacks a part of what is needed"
    )


async def test_of_a_partial_pack_that_has_what_is_needed_nothing_is_told(
    deployed: Deployed,
) -> None:
    packs = deployed.stores.packs
    await snapshot(deployed, 1, "blog", *(some_bytes(40_000, seed) for seed in range(20)))
    [largest] = sorted((await packs.survey(None, limit=99)).blobs, key=lambda one: one.size)[-1:]
    await packs.repack(largest, ((0, largest.size),))

    assert "lost_reference" not in await found(deployed)


async def test_collection_that_is_off_and_why_is_told(deployed: Deployed) -> None:
    await deployed.change(format=OLD_FORMAT)

    assert "admin upgrade" in (await found(deployed))["collection_off"].text


async def test_records_that_were_lost_are_told_with_what_to_do(deployed: Deployed) -> None:
    await put_name(deployed, NameRecord(name="n", state="deleted", version=1))
    await deployed.collector().run()
    noted = (await deployed.record()).roots
    more = msgspec.structs.replace(noted["names"], keys=noted["names"].keys + 1)
    await deployed.change(roots={**noted, "names": more})

    assert "accept-loss" in (await found(deployed))["records_lost"].advice


async def test_a_record_that_cannot_be_read_is_told(deployed: Deployed) -> None:
    await deployed.stores.names.put("n.broken", b"{", expected=0)

    assert "n.broken" in (await found(deployed))["unreadable_record"].text


async def test_writes_that_nobody_ends_are_told(deployed: Deployed) -> None:
    """As if none had been ended for as long as a lease that is over before it begins."""
    lease = Lease(owner="w", seconds=-1e6)
    await put_snapshot(deployed, state="pending", lease=lease)
    one = Announcement(op="op", verb="create", at="")
    await put_name(deployed, NameRecord(name="n", state="pending", pending=(one,)))

    assert (await found(deployed))["stale"].text.startswith("1 of snapshots")


async def test_a_policy_that_failed_is_told(deployed: Deployed) -> None:
    doctor = doctor_of(deployed, troubles={"blog": "no such time zone"})

    assert "no such time zone" in (await found(deployed, doctor))["policy"].text


async def test_a_clock_that_is_off_is_told(deployed: Deployed) -> None:
    doctor = doctor_of(deployed, skew=timedelta(days=365))

    assert (await found(deployed, doctor))["clock"].severity == "error"


async def test_a_scrub_that_is_behind_and_servers_that_it_does_not_reach_are_told(
    deployed: Deployed,
) -> None:
    scrub = scrub_of(deployed, every=timedelta(microseconds=1))
    await lap_of(scrub)
    peers = (Peer(name="here", current=True), Peer(name="there", current=True))
    bucket = BucketState(bucket="b", stream="OBJ_b", kind="objects", leader="here", peers=peers)
    state = StoreState(durability="synced", buckets=(bucket,))

    doctor = doctor_of(deployed, scrub, state=state)
    findings = await doctor.get(None, 60)
    await doctor.aclose()

    behind = [one for one in findings or () if one.kind == "scrub_behind"]
    assert [one.severity for one in behind] == ["warning", "note"]
    assert behind[1].text == "nothing was read back from there yet"


async def test_what_was_read_from_the_only_server_is_told_though_that_has_no_name_of_its_own(
    deployed: Deployed,
) -> None:
    await spoil(deployed.stores.blobs, await name(deployed, "n", b"named"))
    scrub = scrub_of(deployed, place=ONE_PLACE, every=timedelta(days=1))
    await lap_of(scrub)
    peers = (Peer(name="NCTFKGWW", current=True),)  # made up when it was started
    bucket = BucketState(bucket="b", stream="OBJ_b", kind="objects", leader="NCTFKGWW", peers=peers)
    state = StoreState(durability="synced", buckets=(bucket,))

    told = await found(deployed, doctor_of(deployed, scrub, state=state))

    assert set(told) == {"damage", "lost_reference"}


async def test_it_looks_once_a_minute_however_often_it_is_asked(deployed: Deployed) -> None:
    now = 0.0
    doctor = doctor_of(deployed, monotonic=lambda: now)
    first = await doctor.get(None, 60)
    await put(deployed.stores.blobs, b"x", pinned=True)

    again = await doctor.get(None, 60)
    now = 61.0
    later = await doctor.get(None, 60)
    await doctor.aclose()

    assert again is first
    assert later is not first
