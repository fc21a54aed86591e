"""Snapshots put back: into the same app or another, as a whole or in part, or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.handlers.snapshot_service import Shared, Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with an app ``shop``."""
    site = Site(Shared(), tmp_path / "apps")
    site.write("shop/etc/shop.conf", b"name = shop\n")
    site.write("shop/data/one", b"1" * 100_000)
    yield site
    await site.aclose()


def tree(directory: Path) -> dict[str, bytes]:
    """The files below ``directory``."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


async def test_a_snapshot_is_restored_into_another_app(site: Site, tmp_path: Path) -> None:
    key = (await site.create())["key"]

    record = await site.ok("snapshot.restore", key=key, app="copy")

    assert (record["state"], record["key"], record["app"]) == ("ok", key, "copy")
    assert (record["files"], record["size"]) == (2, 100_012)
    assert tree(tmp_path / "apps/copy") == tree(tmp_path / "apps/shop")
    assert await site.ok("snapshot.restored", restore=record["restore"]) == record


async def test_only_a_whole_restore_leaves_the_marker_of_owners_out(
    site: Site, tmp_path: Path
) -> None:
    site.write("shop/.chowned", b"")
    key = (await site.create())["key"]

    await site.ok("snapshot.restore", key=key, app="copy")
    await site.ok("snapshot.restore", key=key, app="part", paths=["etc", ".chowned"])
    await site.ok("snapshot.restore", key=key, mode="merge", paths=["etc"])
    kept = set(tree(tmp_path / "apps/shop"))
    await site.ok("snapshot.restore", key=key, mode="merge")

    assert ".chowned" not in tree(tmp_path / "apps/copy")
    assert set(tree(tmp_path / "apps/part")) == {"etc/shop.conf", ".chowned"}
    assert ".chowned" in kept
    assert ".chowned" not in tree(tmp_path / "apps/shop")


async def test_paths_do_not_replace_an_app_and_a_plan_says_how_long_it_is(
    site: Site, tmp_path: Path
) -> None:
    key = (await site.create())["key"]
    before = tree(tmp_path / "apps/shop")

    refused = await site.ask(
        "snapshot.restore", {"key": key, "mode": "replace", "paths": ["etc"], "dry_run": True}
    )
    planned = await site.ok("snapshot.restore", key=key, app="copy", dry_run=True)

    assert refused.code == "invalid"
    assert planned["plan_count"] == len(planned["plan"]) == planned["entries"]
    assert tree(tmp_path / "apps/shop") == before


@pytest.mark.fault("S04")
async def test_an_app_that_is_there_is_not_overwritten_unless_that_is_asked_for(
    site: Site, tmp_path: Path
) -> None:
    key = (await site.create())["key"]
    before = tree(tmp_path / "apps/shop")
    site.write("shop/etc/shop.conf", b"changed\n")
    site.write("shop/new", b"new")

    refused = await site.ask("snapshot.restore", {"key": key})
    kept = tree(tmp_path / "apps/shop")
    replaced = await site.ok("snapshot.restore", key=key, mode="replace")

    assert refused.code == "conflict"
    assert kept["etc/shop.conf"] == b"changed\n"
    assert replaced["removed"] > 0
    assert tree(tmp_path / "apps/shop") == before


async def test_parts_are_merged_and_a_dry_run_only_tells(site: Site, tmp_path: Path) -> None:
    key = (await site.create())["key"]
    site.write("shop/etc/shop.conf", b"changed\n")
    site.write("shop/data/one", b"changed\n")
    merge = {"key": key, "mode": "merge", "paths": ["etc/*.conf"]}

    told = await site.ok("snapshot.restore", dry_run=True, **merge)
    unchanged = tree(tmp_path / "apps/shop")
    await site.ok("snapshot.restore", **merge)

    assert [line["path"] for line in told["plan"] if line["change"] == "modified"] == [
        "etc/shop.conf"
    ]
    assert told["dry_run"]
    assert unchanged["etc/shop.conf"] == b"changed\n"
    assert tree(tmp_path / "apps/shop") == {
        "etc/shop.conf": b"name = shop\n",
        "data/one": b"changed\n",
    }


async def test_a_repeated_restore_gets_the_first_answer(site: Site) -> None:
    key = (await site.create())["key"]

    first = await site.ask("snapshot.restore", {"key": key, "app": "copy"}, op_id="r-1")
    again = await site.ask("snapshot.restore", {"key": key, "app": "copy"}, op_id="r-1")

    assert first.json == again.json
    assert first.json["state"] == "ok"


@pytest.mark.fault("S05")
async def test_a_snapshot_that_is_removed_while_it_is_restored_leaves_no_half_of_it(
    site: Site, tmp_path: Path
) -> None:
    record = await site.create()
    packs = await site.shared.stored_packs()
    restoring = asyncio.create_task(site.ok("snapshot.restore", key=record["key"], app="copy"))
    while not site.service.jobs.active:  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0)
    assert await site.ok("snapshot.delete", key=record["key"]) == {"deleted": True}
    await site.shared.forget_packs(packs)

    restored = await restoring

    if restored["state"] == "failure":
        assert restored["code"] == "conflict"
        assert not (tmp_path / "apps/copy").exists()
    else:
        assert tree(tmp_path / "apps/copy") == tree(tmp_path / "apps/shop")


@pytest.mark.fault("D02")
async def test_a_damaged_pack_makes_a_restore_a_failure_and_leaves_the_old_tree(
    site: Site, tmp_path: Path
) -> None:
    key = (await site.create())["key"]
    before = tree(tmp_path / "apps/shop")
    for digest in await site.shared.stored_packs():
        site.shared.packs._blobs[digest].data = b"altered"

    record = await site.ok("snapshot.restore", key=key, mode="replace")

    assert (record["state"], record["code"]) == ("failure", "corrupt")
    assert tree(tmp_path / "apps/shop") == before


@pytest.mark.fault("S03")
async def test_what_a_crash_left_beside_the_apps_goes_when_its_restore_is_over(
    site: Site, tmp_path: Path
) -> None:
    # Given what four restores left: one over, one pending, one of a client, one of long ago.
    key = (await site.create())["key"]
    over = (await site.ok("snapshot.restore", key=key, app="copy"))["restore"]
    pending = (await site.ok("snapshot.restore", key=key, app="more", wait_seconds=0))["restore"]
    clients = site.shared.new_uuid()
    ancient = "00000000-0000-7000-8000-000000000001"
    apps = tmp_path / "apps"
    for restore in (over, clients, ancient):
        (apps / f".holdfast-{restore}" / "half").mkdir(parents=True)
    (apps / ".holdfast-not-one-of-ours-x").mkdir()

    # When a worker looks after them,
    removed = await site.service.restores.sweep()

    # then those go of which it is known that nobody is at work on them.
    left = {path.name for path in apps.iterdir() if path.name.startswith(".holdfast-")}
    assert removed == 2
    assert f".holdfast-{clients}" in left
    assert ".holdfast-not-one-of-ours-x" in left
    assert not {f".holdfast-{over}", f".holdfast-{ancient}"} & left
    await site.service.jobs.drain(10)
    assert (await site.ok("snapshot.restored", restore=pending))["state"] == "ok"


@pytest.mark.parametrize(
    "fields",
    [
        {"owner": "root"},
        {"owner": "99999999999:0"},
        {"mode": "overwrite"},
        {"paths": [""]},
        {"paths": ["../x"]},
        {"app": "../x"},
        {"key": "shop"},
    ],
)
async def test_a_restore_that_makes_no_sense_is_refused(
    site: Site, fields: dict[str, object], tmp_path: Path
) -> None:
    key = (await site.create())["key"]

    reply = await site.ask("snapshot.restore", {"key": key, "app": "copy", **fields})

    assert reply.code == "invalid" or reply.json.get("code") == "invalid"
    assert not (tmp_path / "apps/copy").exists()
