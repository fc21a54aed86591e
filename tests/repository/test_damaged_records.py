"""A snapshot whose record the store itself cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.handlers.snapshot_service import DiskShared, Site
from tests.stores.disk_tools import damage_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(DiskShared(tmp_path / "store"), tmp_path / "apps")
    site.write("shop/a", b"x")
    yield site
    await site.aclose()


def damage(store: Path, key: str) -> None:
    """Alter the record of a snapshot."""
    app, _, snapshot = key.partition(":")
    damage_record(store / "snapshots", f"s.{app}.{snapshot}")


@pytest.mark.fault("D02")
@pytest.mark.parametrize("state", ["ok", "pending"])
async def test_a_damaged_record_keeps_nothing_from_going_on_and_is_removed_as_any_other(
    site: Site, tmp_path: Path, state: str
) -> None:
    kept = (await site.create())["key"]
    operation = "snapshot.create" if state == "ok" else "snapshot.begin"
    bad = (await site.ok(operation, app="shop"))["key"]
    damage(tmp_path / "store", bad)

    listed = await site.ok("snapshot.list", app="shop")
    assert [record["key"] for record in listed["snapshots"]] == [kept]
    assert await site.service.lapses.sweep() == 0
    newer = (await site.create())["key"]  # chooses a parent

    assert (await site.ask("snapshot.get", {"key": bad})).code == "corrupt"
    assert await site.ok("snapshot.delete", key=bad) == {"deleted": True}
    assert await site.ok("snapshot.delete", key=bad) == {"deleted": False}
    assert (await site.ask("snapshot.get", {"key": bad})).code == "not_found"
    listed = await site.ok("snapshot.list", app="shop")
    assert [record["key"] for record in listed["snapshots"]] == [newer, kept]
