"""What a snapshot counts on is kept from a collector, and is put again where it was lost.

Whether something was seen lately is told by the times of the store that has it, and by no others.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.handlers.snapshot_service import GRACE, Shared, Site

from holdfast.domain.names import SnapshotKey
from holdfast.repository.snapshots.record import SNAPSHOT, snapshot_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.domain.digest import Digest

A_QUARTER = GRACE.total_seconds() / 4
A_CENTURY = 100 * 365 * 86_400
CONTENT = {f"f{number}": os.urandom(700_000) for number in range(3)}


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with an app of a few packs, all of whose files have long been as they are."""
    site = Site(Shared(), tmp_path / "apps")
    site.shared.time.advance(A_CENTURY)
    for name, data in CONTENT.items():
        site.write(f"shop/{name}", data)
    yield site
    await site.aclose()


async def needed(site: Site) -> list[Digest]:
    """All packs there are."""
    return await site.shared.stored_packs()


async def test_what_was_put_a_moment_before_the_announcement_is_not_touched(site: Site) -> None:
    await site.create()

    assert site.shared.packs.touched == []


async def test_what_was_put_long_before_the_announcement_is_touched_after_it(site: Site) -> None:
    """A collector may have listed it by then, and have read the roots before there was one."""
    gate = site.shared.when_announced()
    creating = asyncio.create_task(site.create())
    await gate.wait()
    site.shared.time.advance(A_QUARTER + 1)

    gate.go_on()
    await creating

    assert sorted(site.shared.packs.touched) == sorted(await needed(site))


@pytest.mark.parametrize("skew_hours", [-30, -19, 0, 30])
async def test_the_workers_clock_says_nothing_about_when_a_pack_was_seen(
    site: Site, skew_hours: int
) -> None:
    first = await site.create()
    await site.ok("snapshot.delete", key=first["key"])
    packs, time = site.shared.packs, site.shared.time
    time.advance(A_QUARTER + 1)
    packs.clock = lambda: time.clock() - timedelta(hours=skew_hours)
    for digest in packs.seen:
        packs.seen[digest] -= timedelta(hours=skew_hours)

    await site.create()  # without a parent: everything is found there

    assert sorted(set(packs.touched)) == sorted(await needed(site))


async def test_an_unchanged_snapshot_puts_and_touches_nothing_and_looks_once(site: Site) -> None:
    """All packs lie in one batch, asked for in one go. Of the manifest the root alone is read."""
    first = await site.create()
    packs = site.shared.packs
    packs.gets = packs.puts = packs.looks = 0
    site.shared.time.advance(A_QUARTER + 1)

    second = await site.create()

    assert second["digest"] == first["digest"]
    assert len(await needed(site)) > 2
    assert (packs.gets, packs.puts, packs.looks, packs.touched) == (1, 0, 1, [])


async def test_what_the_parent_needs_is_not_touched_but_what_a_put_finds_is(site: Site) -> None:
    """The parent vouches for the frames it needs itself, and a pack may hold more than these."""
    site.write("shop/new", b"more")
    first = await site.create(exclude=["new"])
    second = await site.create()
    site.shared.time.advance(A_QUARTER + 1)
    packs = site.shared.packs

    third = await site.create(exclude=["new"])  # the first one's root is found

    assert third["digest"] == first["digest"] != second["digest"]
    assert third["digest"] in packs.touched
    assert [one for one in packs.touched if packs._blobs[one].info.size > 100_000] == []


@pytest.mark.parametrize("by_client", [False, True])
async def test_a_parent_that_is_gone_vouches_for_nothing_whatever_a_deposed_server_says(
    site: Site, *, by_client: bool
) -> None:
    """It says so by one read that no compare-and-set follows."""
    first, packs, records = await site.create(), site.shared.packs, site.shared.records
    begun = await site.ok("snapshot.begin", app="shop")
    site.shared.time.advance(A_QUARTER + 1)
    gate = site.shared.when_announced()
    making = asyncio.create_task(
        site.ok("snapshot.commit", key=begun["key"], digest=first["digest"])
        if by_client
        else site.create()
    )
    await gate.wait()
    parent = SNAPSHOT.key(snapshot_name(SnapshotKey.parse(first["key"])))
    told = await records.get(parent)
    await site.ok("snapshot.delete", key=first["key"])
    records.deposed[parent] = told

    gate.go_on()
    await making

    assert sorted(set(packs.touched)) == sorted(await needed(site))


@pytest.mark.parametrize("change", [False, True], ids=["as it was", "with another file"])
async def test_a_new_snapshot_of_the_same_files_brings_lost_packs_back(
    site: Site, *, change: bool
) -> None:
    first = await site.create()
    packs = site.shared.packs
    large = [digest for digest in await needed(site) if packs._blobs[digest].info.size > 100_000]
    packs.lost.update(large)
    if change:
        site.write("shop/new", b"more")

    second = await site.create()

    # Of other files other packs are made, in part.
    for key in [second["key"]] if change else [first["key"], second["key"]]:
        assert "damaged" not in await site.ok("snapshot.verify", key=key)
        assert await site.content("snapshot.read", key=key, path="f1") == CONTENT["f1"]


async def test_a_snapshot_that_reads_all_replaces_what_is_not_as_it_was(site: Site) -> None:
    first = await site.create()
    packs = site.shared.packs
    large = [digest for digest in await needed(site) if packs._blobs[digest].info.size > 100_000]
    for digest in large:
        packs._blobs[digest].data = b"\xff" + packs._blobs[digest].data[1:]

    second = await site.create(read_all=True)

    assert "parent" not in second
    for key in (first["key"], second["key"]):
        assert "damaged" not in await site.ok("snapshot.verify", key=key)


async def test_a_commit_names_what_is_there_and_cannot_be_read(site: Site) -> None:
    record = await site.create()
    key = (await site.ok("snapshot.begin", app="mine"))["key"]
    packs = site.shared.packs
    packs.lost.update(await needed(site))

    answer = await site.ok("snapshot.commit", key=key, digest=record["digest"])
    while answer["state"] == "pending":
        assert answer["missing"]
        packs.lost.difference_update(answer["missing"])  # the client puts them
        answer = await site.ok("snapshot.commit", key=key, digest=record["digest"])

    assert answer["state"] == "ok"
    assert packs.lost == set()
