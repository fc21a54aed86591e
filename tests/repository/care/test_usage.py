"""The report of use: against sums made by hand, and a collection's dry run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from tests.archive.tars import CountingStore, file, snapshot_of
from tests.contracts.blob_store import some_bytes
from tests.repository.collector.test_collector import collected, put, put_name, put_snapshot

from holdfast.bootstrap.care import inventory_of
from holdfast.bootstrap.setup import Setup
from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.digest import Digest
from holdfast.domain.limits import MIB
from holdfast.repository.care.owners import BlobOwner, Grouping
from holdfast.repository.care.usage import Usage
from holdfast.repository.names.record import NamedContent, NameRecord
from holdfast.repository.snapshots.record import Totals

if TYPE_CHECKING:
    from tests.repository.collector.conftest import Deployed

    from holdfast.repository.care.inventory import Inventory
    from holdfast.repository.care.usage import UsageReport
    from holdfast.stores.ports import Survey


def inventory(deployed: Deployed) -> Inventory:
    """Of one worker."""
    setup = Setup(
        config=deployed.config,
        sources=SOURCES,
        worker="w",
        max_payload=MIB,
        grace=timedelta(seconds=-1),
    )
    return inventory_of(setup, deployed.stores, deployed.collector())


async def usage(deployed: Deployed, grouping: Grouping) -> UsageReport:
    """A worker's report."""
    usage = Usage(inventory(deployed), deployed.collector(), monotonic=SOURCES.monotonic)
    report = await usage.get(grouping, 60)
    assert report is not None
    await usage.aclose()
    return report


async def name(deployed: Deployed, named: str, data: bytes, **labels: str) -> Digest:
    """Put a name that has ``data``."""
    digest = await put(deployed.stores.blobs, data)
    content = NamedContent(digest=digest, size=len(data), type="a/b", labels=labels)
    await put_name(deployed, NameRecord(name=named, state="ok", version=1, content=content))
    return digest


async def snapshot(deployed: Deployed, number: int, app: str, *contents: bytes) -> set[Digest]:
    """Put a snapshot of files with these contents; the packs that it needs."""
    store = CountingStore()
    members = [file(f"f{n}", data) for n, data in enumerate(contents)]
    reader = await asyncio.to_thread(snapshot_of, members, store)
    for data in store.packs.values():
        await put(deployed.stores.packs, data)
    await put_snapshot(
        deployed,
        app=app,
        id=f"0198a000-0000-7000-8000-{number:012}",
        digest=reader.digest,
        labels={"size": "large"},
        totals=Totals(size=sum(map(len, contents))),
    )
    return set(store.packs)


async def test_by_prefix_names_count_what_they_share_once(deployed: Deployed) -> None:
    await name(deployed, "a/x", b"1" * 100)
    await name(deployed, "a/y", b"1" * 100)
    await name(deployed, "a/z/deep", b"2" * 10)
    await name(deployed, "b/x", b"2" * 10)
    await name(deployed, "top", b"3")

    found = (await usage(deployed, Grouping(by="prefix"))).inventory
    below = (await usage(deployed, Grouping(by="prefix", prefix="a/"))).inventory

    rows = {row.group: (row.items, row.logical, row.stored, row.shared) for row in found.rows}
    assert rows == {"a/": (3, 210, 110, 10), "b/": (1, 10, 10, 10), "top": (1, 1, 1, 0)}
    assert {row.group for row in below.rows} == {"a/x", "a/y", "a/z/"}
    assert found.groups == 3


async def test_by_label_names_and_snapshots_count_for_each_that_they_have(
    deployed: Deployed,
) -> None:
    await name(deployed, "x", b"1" * 100, kind="photo", size="large")
    packs = await snapshot(deployed, 1, "blog", some_bytes(50_000))
    stored = sum(one.size for one in (await deployed.stores.packs.survey(None, limit=99)).blobs)

    found = (await usage(deployed, Grouping(by="label"))).inventory

    rows = {row.group: (row.items, row.logical, row.stored) for row in found.rows}
    assert rows == {"kind=photo": (1, 100, 100), "size=large": (2, 50_100, 100 + stored)}
    assert packs


async def test_by_app_snapshots_share_their_packs(deployed: Deployed) -> None:
    common = some_bytes(300_000, 7)
    first = await snapshot(deployed, 1, "blog", common)
    await snapshot(deployed, 2, "blog", common)
    other = await snapshot(deployed, 3, "shop", common, some_bytes(100_000, 8))
    await snapshot(deployed, 4, "shop", some_bytes(50_000, 9))
    sizes = {one.digest: one.size for one in (await _packs(deployed)).blobs}

    found = (await usage(deployed, Grouping(by="app"))).inventory

    rows = {row.group: row for row in found.rows}
    assert rows["blog"].items == rows["shop"].items == 2
    assert rows["blog"].logical == 600_000
    assert rows["blog"].stored == sum(sizes[one] for one in first)
    assert rows["blog"].shared == sum(sizes[one] for one in first & other)
    assert rows["shop"].shared == rows["blog"].shared


async def _packs(deployed: Deployed) -> Survey:
    return await deployed.stores.packs.survey(None, limit=1000)


async def test_what_is_reclaimable_is_what_a_dry_run_says(deployed: Deployed) -> None:
    await name(deployed, "kept", b"kept")
    await put(deployed.stores.blobs, b"unneeded")
    await put(deployed.stores.packs, b"a pack of nobody")

    report = await usage(deployed, Grouping(by="app"))
    dry = await collected(deployed, dry_run=True)

    told = {one.space: one.removed.bytes for one in report.collection.spaces}
    assert told == {space: one.removed.bytes for space, one in dry.items()}
    assert told == {"blobs": len(b"unneeded"), "packs": len(b"a pack of nobody")}
    assert {one.space: (one.blobs, one.bytes) for one in report.inventory.spaces} == {
        "blobs": (2, len(b"kept") + len(b"unneeded")),
        "packs": (1, len(b"a pack of nobody")),
    }


async def test_a_census_tells_what_is_needed_and_not_there(deployed: Deployed) -> None:
    lost = await name(deployed, "lost", b"lost")
    await name(deployed, "there", b"there")
    packs = await snapshot(deployed, 1, "blog", some_bytes(100_000))
    [pack] = [one for one in (await _packs(deployed)).blobs if one.digest == max(packs)]
    await deployed.stores.blobs.delete(lost)
    await deployed.stores.packs.collect(pack)

    found = await inventory(deployed).take(None)

    assert {(one.space, one.digest) for one in found.lost} == {
        ("blobs", lost),
        ("packs", pack.digest),
    }
    assert "lost" in {one.user for one in found.lost}


async def test_notes_of_what_was_removed_are_counted(deployed: Deployed) -> None:
    await name(deployed, "there", b"there")
    await put_name(deployed, NameRecord(name="gone", state="deleted", version=1))
    await deployed.stores.blobs.delete(await put(deployed.stores.blobs, b"gone"))

    found = await inventory(deployed).take(None)

    tombstones = {one.store: one.tombstones for one in found.records}
    assert tombstones == {"names": 1, "snapshots": 0, "states": 0}
    assert {one.tombstones for one in found.spaces} <= {0, 1, None}


@pytest.mark.parametrize(
    ("prefix", "depth", "expected"),
    [
        ("", 1, "a/"),
        ("", 2, "a/b/"),
        ("", 3, "a/b/c"),
        ("", 9, "a/b/c"),
        ("a/", 1, "a/b/"),
        ("a/b/c", 1, "a/b/c"),
        ("x", 1, None),
    ],
)
def test_a_name_is_in_the_group_of_its_first_pieces(
    prefix: str, depth: int, expected: str | None
) -> None:
    owner = BlobOwner(kind="name", name="a/b/c", root=Digest("0" * 64), size=1)

    groups = Grouping(by="prefix", prefix=prefix, depth=depth).groups(owner)

    assert list(groups) == ([] if expected is None else [expected])
