"""Lists of snapshots whose records are not all as they should be: one hides none of the others."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import pytest_asyncio
import structlog
from tests.handlers.snapshot_service import Shared, Site

from holdfast.protocol.snapshots import SnapshotPage
from holdfast.stores.record_ports import Put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with an app ``shop``."""
    site = Site(Shared(), tmp_path / "apps")
    site.write("shop/conf", b"name = shop\n")
    yield site
    await site.aclose()


async def rewrite(site: Site, key: str, value: bytes) -> None:
    """Put ``value`` where the record of ``key`` lies."""
    name = "s." + key.replace(":", ".")
    await site.shared.records.batch([Put(key=name, value=value, expected=None)])


async def changed(site: Site, key: str, **fields: Any) -> bytes:
    """The record of ``key`` with other fields."""
    record = await site.shared.records.get("s." + key.replace(":", "."))
    return msgspec.json.encode(msgspec.json.decode(record.value) | fields)


DAMAGES: dict[str, dict[str, Any]] = {
    "a size beyond 64 bits": {"totals": {"entries": 1, "size": 5 * 2**62}},
    "a negative size": {"totals": {"size": -1}},
    "a parent that is no key": {"parent": "nothing"},
    "another app": {"app": "bakery"},
    "an app that is no name": {"app": "../shop"},
    "a state that there is not": {"state": "fine"},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("limit", [1, 1000])
async def test_a_damaged_record_is_told_of_and_hides_no_other(
    site: Site, damage: dict[str, Any], limit: int
) -> None:
    keys = [(await site.create())["key"] for _ in range(3)]
    await rewrite(site, keys[1], await changed(site, keys[1], **damage))

    found: list[str] = []
    damaged: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        reply = await site.ask("snapshot.list", {"limit": limit} | cursor)
        page = msgspec.json.decode(reply.body, type=SnapshotPage)
        found += [record.key for record in page.snapshots]
        damaged += page.damaged
        if page.cursor is None:
            break
        cursor = {"cursor": page.cursor}

    assert found == [keys[2], keys[0]]
    assert damaged == [keys[1]]


async def test_bytes_that_are_no_record_are_told_of(site: Site) -> None:
    keys = [(await site.create())["key"] for _ in range(2)]
    await rewrite(site, keys[0], b"\xff")

    page = await site.ok("snapshot.list", app="shop")

    assert [record["key"] for record in page["snapshots"]] == [keys[1]]
    assert page["damaged"] == [keys[0]]


async def test_an_app_of_any_size_is_listed(site: Site) -> None:
    key = (await site.create())["key"]
    await rewrite(site, key, await changed(site, key, totals={"entries": 1, "size": 2**62}))

    reply = await site.ask("snapshot.list", {})

    page = msgspec.json.decode(reply.body, type=SnapshotPage)
    assert [record.size for record in page.snapshots] == [2**62]


async def test_a_label_without_its_record_or_not_of_its_record_finds_nothing(site: Site) -> None:
    labelled = await site.create(labels={"tier": "gold"})
    other = await site.create()
    gone = await site.create()
    await site.ok("snapshot.delete", key=gone["key"])
    for key in (other["key"], gone["key"]):  # as a server may bring it back
        label = "l.tier.gold." + key.replace(":", ".")
        await site.shared.records.batch([Put(key=label, value=b"1", expected=None)])

    page = await site.ok("snapshot.list", labels={"tier": "gold"})

    assert [record["key"] for record in page["snapshots"]] == [labelled["key"]]
    assert "damaged" not in page


async def test_a_key_that_is_no_snapshots_is_passed_over_and_the_list_goes_on(site: Site) -> None:
    key = (await site.create())["key"]
    for stray in ("s.shop.zzz", "s.shop.ffffffff-ffff-7fff-8fff-ffffffffffff.more", "s.=2E=2E.x"):
        await site.shared.records.batch([Put(key=stray, value=b"1", expected=None)])

    for fields in ({"limit": 1}, {"limit": 1, "app": "shop"}):
        page = await site.ok("snapshot.list", **fields)
        assert [record["key"] for record in page["snapshots"]] == [key]


@pytest.mark.parametrize("removed", [False, True], ids=["kept", "removed"])
async def test_the_newest_is_the_last_one_made_whichever_workers_clock_is_ahead(
    site: Site, *, removed: bool
) -> None:
    """So is the parent. What was removed counts, too: no id comes twice, none goes back."""
    last = None
    for hours in (0, 3, -5, 0, 1, -1):
        site.shared.skew = timedelta(hours=hours)
        record = await site.create()

        page = await site.ok("snapshot.list", app="shop", limit=1)
        assert [row["key"] for row in page["snapshots"]] == [record["key"]]
        assert record.get("parent") == (None if removed else last)
        assert last is None or record["key"] > last
        last = record["key"]
        if removed:
            await site.shared.records.batch(
                [Put(key=f"s.shop.{last[5:]}", value=b"", expected=None)]
            )


async def test_a_clock_that_is_behind_is_told_of(site: Site) -> None:
    await site.create()
    site.shared.skew = timedelta(minutes=-10)

    with structlog.testing.capture_logs() as logs:
        await site.create()

    told = [entry for entry in logs if entry["event"] == "clock_behind"]
    assert [round(entry["seconds"]) for entry in told] == [600]
