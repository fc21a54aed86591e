"""A directory comes back as it was, by a worker and by the client."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e_snapshots.trees import (
    call,
    contents,
    difference,
    look,
    nasty_tree,
    needs_root,
    plain_tree,
    wreck,
)
from tests.programs import needs_zstd

if TYPE_CHECKING:
    from tests.e2e_snapshots.site import Site

pytestmark = pytest.mark.nats

_REAL = Path("/usr/share/doc")
_REAL_PACKAGES = 150


def copy_packages(target: Path) -> Path:
    """The documents of some packages of this machine."""
    target.mkdir()
    for package in sorted(_REAL.iterdir())[:_REAL_PACKAGES]:
        if package.is_dir() and not package.is_symlink():
            shutil.copytree(package, target / package.name, symlinks=True)
    return target


@needs_root
async def test_a_worker_restores_a_nasty_tree_as_it_was(site: Site) -> None:
    tree = nasty_tree(site.apps / "nasty")
    before = look(tree)

    record = await site.create("nasty")
    restored = await site.restore(record["key"], app="nasty-again")

    assert (record["state"], record.get("warning_count", 0)) == ("ok", 0), record
    assert restored["state"] == "ok", restored
    assert difference(before, look(site.apps / "nasty-again")) == []
    assert record["entries"] == len(before)
    assert (await site.verified(record["key"]))["damaged"] == []


@needs_root
async def test_the_client_restores_a_nasty_tree_as_it_was(site: Site, tmp_path: Path) -> None:
    before = look(nasty_tree(tmp_path / "nasty"))

    site.run("snapshot", "create", tmp_path / "nasty", "--app", "by-client")
    record = (await site.snapshots(app="by-client"))[0]
    site.run("snapshot", "restore", record["key"], "--to", tmp_path / "again")

    assert difference(before, look(tmp_path / "again")) == []


@needs_root
async def test_what_a_worker_archived_the_client_restores_and_the_other_way_round(
    site: Site, tmp_path: Path
) -> None:
    tree = nasty_tree(site.apps / "crossed")
    before = look(tree)
    by_worker = await site.create("crossed")

    site.run("snapshot", "restore", by_worker["key"], "--to", tmp_path / "here")
    site.run("snapshot", "create", tmp_path / "here", "--app", "crossed")
    by_client = (await site.snapshots(app="crossed"))[0]
    await site.restore(by_client["key"], app="crossed-back", privileged=True)

    assert by_client["key"] != by_worker["key"]
    assert difference(before, look(tmp_path / "here")) == []
    assert difference(before, look(site.apps / "crossed-back")) == []


@pytest.mark.parametrize("how", [{"mode": "replace"}, {"mode": "merge", "delete": True}])
@needs_root
async def test_a_wrecked_tree_becomes_that_of_the_snapshot_again(
    site: Site, how: dict[str, object]
) -> None:
    app = f"wrecked-{how['mode']}"
    tree = nasty_tree(site.apps / app)
    before = look(tree)
    record = await site.create(app)
    wreck(tree)

    restored = await site.restore(record["key"], **how)

    assert restored["state"] == "ok", restored
    assert difference(before, look(tree)) == []


@needs_root
@needs_zstd
async def test_an_export_is_unpacked_by_tar(site: Site, tmp_path: Path) -> None:
    before = contents(nasty_tree(site.apps / "exported"))
    record = await site.create("exported")

    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    site.pipe(
        ["snapshot", "export", record["key"], "-"],
        ["tar", "--zstd", "-x", "--xattrs", "-f", "-"],
        unpacked,
    )

    assert contents(unpacked) == before


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("a.tar", ""),
        ("a.tar.gz", "--gzip"),
        pytest.param("a.tar.zst", "--zstd", marks=needs_zstd),
    ],
)
@needs_root
async def test_a_tar_file_becomes_a_snapshot(
    site: Site, tmp_path: Path, name: str, flag: str
) -> None:
    tree = nasty_tree(tmp_path / "tree")
    archive = tmp_path / name
    flags = ["--format=pax", "--sparse", "--xattrs", *([flag] if flag else [])]
    call("tar", *flags, "-cf", archive, "-C", tree, ".")
    app = f"imported-{name.replace('.', '-')}"

    site.run("snapshot", "create", archive, "--app", app)
    record = (await site.snapshots(app=app))[0]
    await site.restore(record["key"])

    assert contents(site.apps / app) == contents(tree)


@pytest.mark.skipif(not _REAL.is_dir(), reason=f"there is no {_REAL}")
async def test_a_part_of_a_real_tree_comes_back(site: Site) -> None:
    tree = copy_packages(site.apps / "real")
    before = look(tree)

    record = await site.create("real")
    restored = await site.restore(record["key"], app="real-again")

    assert restored["files"] == record["files"] > _REAL_PACKAGES
    assert difference(before, look(site.apps / "real-again")) == []


async def test_every_file_can_be_read_alone(site: Site) -> None:
    tree = plain_tree(site.apps / "alone", files=30, size=300_000, seed=7)
    record = await site.create("alone")

    page = await site.ask("snapshot.files", key=record["key"])
    read = {
        entry["path"]: await site.content("snapshot.read", key=record["key"], path=entry["path"])
        for entry in page["entries"]
        if entry["kind"] == "file"
    }

    assert len(read) == 30
    assert all((tree / path).read_bytes() == data for path, data in read.items())


async def test_a_second_app_with_the_same_files_adds_next_to_nothing(site: Site) -> None:
    plain_tree(site.apps / "original", files=400, size=20_000, seed=11)
    shutil.copytree(site.apps / "original", site.apps / "twin", copy_function=shutil.copy2)
    empty = await site.stored_bytes()
    await site.create("original")
    first = await site.stored_bytes() - empty

    record = await site.create("twin")

    second = await site.stored_bytes() - empty - first
    assert second < first * 0.03
    assert record["added"] < first * 0.03


async def test_an_unchanged_app_adds_next_to_nothing_and_a_small_change_little(site: Site) -> None:
    tree = plain_tree(site.apps / "again", files=400, size=20_000, seed=12)
    empty = await site.stored_bytes()
    await site.create("again")
    first = await site.stored_bytes() - empty

    unchanged = await site.create("again")
    file = next(path for path in sorted(tree.rglob("f*")) if path.is_file())
    file.write_bytes(os.urandom(100))
    changed = await site.create("again")

    assert unchanged.get("added", 0) < first * 0.03
    assert unchanged["parent"] is not None
    assert changed["added"] < first * 0.05
