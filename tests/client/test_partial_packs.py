"""Snapshots whose packs were repacked: read in every way, built upon, and put again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.client.test_snapshots import look
from tests.contracts.blob_store import some_bytes
from tests.deployment import Deployment
from tests.repository.collector.conftest import Deployed, opened

from holdfast.archive.bridge import checked
from holdfast.client import Client
from holdfast.client.snapshots.packs import PackTransport
from holdfast.domain.kept import PartialBytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.protocol.blobs import CollectedSpace
    from holdfast.protocol.snapshots import SnapshotRecord
    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

FILES = 300


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """Where the worker's apps are."""
    path = tmp_path / "apps"
    path.mkdir()
    return path


@pytest.fixture
def deployment(nats_server: EmbeddedServer, apps: Path) -> Iterator[Deployment]:
    """A worker whose grace time is over before it begins."""
    with Deployment(nats_server.url) as deployment:
        asyncio.run(end_grace(deployment))
        deployment.start("one", apps=str(apps))
        yield deployment


async def end_grace(deployment: Deployment) -> None:
    """Whatever is stored counts as old."""
    async with opened(deployment.config) as stores:
        await Deployed(deployment.config, stores).change(grace_seconds=-1)


def write_tree(root: Path, *, version: int = 0, step: int = 1) -> None:
    """Small files and large ones; of the former each ``step``-th gets the content of a version."""
    (root / "small").mkdir(parents=True, exist_ok=True)
    for number in range(0, FILES, step):
        path = root / "small" / f"{number:04}"
        path.write_bytes(some_bytes(4000 + number, seed=1000 * version + number))
    if step == 1:
        for number in range(3):
            (root / f"large{number}").write_bytes(some_bytes(700_000, seed=number))


async def make(holdfast: Client, root: Path, maker: str) -> SnapshotRecord:
    """A snapshot of the app at ``root``, made by its worker or by the client."""
    if maker == "worker":
        return await holdfast.snapshots.create(root.name)
    return await holdfast.snapshots.create_from(root, app=root.name)


async def collected(holdfast: Client) -> CollectedSpace:
    """Collect once; the collection's work on the packs."""
    report = await holdfast.collect()
    packs = next(space for space in report.spaces if space.space == "packs")
    assert (report.off, packs.failure) == (None, None)
    return packs


async def exported(holdfast: Client, key: str) -> bytes:
    """The snapshot as a file, which the client puts together."""
    return b"".join([bytes(piece) async for piece in holdfast.snapshots.export(key)])


async def check_told(deployment: Deployment, holdfast: Client) -> None:
    """What is kept of a pack is told alike as of a while ago and as of now."""
    transport = PackTransport(holdfast.requester)
    async with opened(deployment.config) as stores:
        page = await stores.packs.survey(None, limit=1000)
    for one in page.blobs:
        if one.kept is not None:
            for came in (await transport.get(one.digest), await transport.get_latest(one.digest)):
                pack = checked(came)
                assert isinstance(pack, PartialBytes)
                assert len(pack) == one.size


@pytest.mark.parametrize("maker", ["worker", "client"])
async def test_a_repacked_snapshot_is_read_built_upon_and_made_whole(
    deployment: Deployment, holdfast: Client, apps: Path, tmp_path: Path, maker: str
) -> None:
    root = apps / "shop"
    write_tree(root)
    first = await make(holdfast, root, maker)
    write_tree(root, version=1, step=2)
    second = await make(holdfast, root, maker)
    before = await exported(holdfast, second.key)
    await holdfast.snapshots.delete(first.key)

    packs = await collected(holdfast)

    assert packs.repacked > 0
    assert packs.repacked_bytes > 400_000
    await check_told(deployment, holdfast)
    assert await exported(holdfast, second.key) == before
    assert not any([one.damaged async for one in holdfast.snapshots.verify(second.key)])
    await holdfast.snapshots.restore_to(second.key, tmp_path / "here")
    await holdfast.snapshots.restore(second.key, app="shop-there")
    assert look(tmp_path / "here") == look(root) == look(apps / "shop-there")
    small = await holdfast.snapshots.read(second.key, "small/0001")
    assert bytes(small) == some_bytes(4001, seed=1)

    (root / "small/0001").write_bytes(b"changed")
    third = await make(holdfast, root, maker)
    assert third.added < 150_000, "the parent's frames are taken over"
    assert (await collected(holdfast)).repacked_bytes < 100_000
    await holdfast.snapshots.delete(second.key)
    await collected(holdfast)
    await holdfast.snapshots.restore_to(third.key, tmp_path / "third")
    assert look(tmp_path / "third") == look(root)

    write_tree(root)  # the content of the first, whose frames were dropped
    fourth = await make(holdfast, root, maker)
    await collected(holdfast)
    await holdfast.snapshots.restore_to(fourth.key, tmp_path / "fourth")
    await holdfast.snapshots.restore_to(third.key, tmp_path / "again")
    assert look(tmp_path / "fourth") == look(root)
    assert look(tmp_path / "again") == look(tmp_path / "third")


async def test_a_dry_run_says_what_a_collection_would_give_back(
    holdfast: Client, apps: Path
) -> None:
    root = apps / "shop"
    write_tree(root)
    first = await make(holdfast, root, "worker")
    write_tree(root, version=1, step=2)
    await make(holdfast, root, "worker")
    await holdfast.snapshots.delete(first.key)

    dry = (await holdfast.collect(dry_run=True)).spaces[0]
    done = await collected(holdfast)
    again = await collected(holdfast)

    assert (dry.repacked, dry.repacked_bytes) == (done.repacked, done.repacked_bytes)
    assert (dry.removed, dry.removed_bytes) == (done.removed, done.removed_bytes)
    assert (again.repacked, again.removed) == (0, 0)
    assert again.needed == done.needed + done.repacked
