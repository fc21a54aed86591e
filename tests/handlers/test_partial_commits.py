"""Clients' snapshots that need packs of which bytes were dropped meanwhile."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.archive.memory import MemoryPackStore
from tests.contracts.blob_collecting import survey
from tests.handlers.snapshot_service import Shared, Site
from tests.handlers.test_snapshot_commits import Archive, begin, put_all

from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.domain.kept import joined
from holdfast.domain.limits import MIB

if TYPE_CHECKING:
    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Ranges
    from holdfast.form.frame_table import FrameRef


def archived(directory: Path, size: int) -> Archive:
    """A directory with one small file and one of ``size`` bytes."""
    directory.mkdir()
    (directory / "a").write_bytes(b"some content")
    (directory / "b").write_bytes(random.Random(1).randbytes(size))  # noqa: S311
    return Archive.of(directory)


def first_frame(archive: Archive) -> FrameRef:
    """Of the first page."""
    store = MemoryPackStore()
    store.packs.update(archive.packs)
    return SnapshotReader(store, archive.root).page(0).frame(0)


async def repack(site: Site, pack: Digest, ranges: Ranges) -> None:
    """Keep but these bytes of a pack."""
    packs = site.shared.stores.packs
    assert await packs.repack((await survey(packs))[pack], ranges) is not None


@pytest.mark.parametrize("size", [1000, 2 * MIB])
async def test_a_commit_that_needs_bytes_that_were_dropped_is_told_to_put_the_pack(
    tmp_path: Path, size: int
) -> None:
    """A small snapshot is read whole before it is announced, of a large one each pack touched."""
    site, archive = Site(Shared(), None), archived(tmp_path / "mine", size)
    key = (await begin(site))["key"]
    await put_all(site, archive)
    frame = first_frame(archive)
    await repack(site, frame.address, ((frame.offset, frame.offset + 1),))

    record = await site.ok("snapshot.commit", key=key, digest=archive.root)

    assert (record["state"], record["missing"]) == ("pending", [frame.address])
    await site.shared.put_pack(archive.packs[frame.address])
    assert (await site.ok("snapshot.commit", key=key, digest=archive.root))["state"] == "ok"
    assert await site.content("snapshot.read", key=key, path="a") == b"some content"
    await site.aclose()


async def test_a_commit_of_what_is_kept_of_packs_is_ok(tmp_path: Path) -> None:
    site, archive = Site(Shared(), None), archived(tmp_path / "mine", 2 * MIB)
    first = (await begin(site))["key"]
    await put_all(site, archive)
    await site.ok("snapshot.commit", key=first, digest=archive.root)
    before = await site.content("snapshot.export", key=first)
    for ref, pack in needed_of(archive).items():
        await repack(site, ref, pack)

    second = (await begin(site))["key"]
    record = await site.ok("snapshot.commit", key=second, digest=archive.root)

    assert record["state"] == "ok"
    assert record["parent"] == first
    assert (await site.ok("snapshot.verify", key=second)).get("damaged", []) == []
    assert await site.content("snapshot.export", key=second) == before
    assert len((await site.ok("snapshot.files", key=second))["entries"]) == 3
    await site.aclose()


def needed_of(archive: Archive) -> dict[Digest, Ranges]:
    """The bytes of its packs of data that the snapshot needs."""
    store = MemoryPackStore()
    store.packs.update(archive.packs)
    reader = SnapshotReader(store, archive.root)
    page = reader.page(0)
    found: dict[Digest, list[tuple[int, int]]] = {}
    for number in range(page.frame_count):
        ref = page.frame(number)
        found.setdefault(ref.address, []).append((ref.offset, ref.offset + ref.stored_size))
    return {pack: joined(ranges) for pack, ranges in found.items()}
