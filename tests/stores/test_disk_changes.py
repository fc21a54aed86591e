"""Following a disk store: its log is made by whoever asks, of what the directories show."""

from __future__ import annotations

import shutil
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_changes import follow, for_watchers
from tests.contracts.blob_store import put
from tests.stores.disk_tools import BEFORE_ANY_FILE, FakeClock, blob_path, blob_store

from holdfast.domain.digest import digest_of
from holdfast.errors import CorruptError
from holdfast.stores.disk.blobs import BlobFiles

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobInfo

LONG_AFTER = FakeClock().now
"""By this clock no directory has changed of late."""


async def test_every_process_has_the_same_log_and_it_outlasts_them(tmp_path: Path) -> None:
    async with aclosing(blob_store(tmp_path)) as writer:
        infos = [await put(writer, b"%d" % number) for number in range(8)]
        async with aclosing(blob_store(tmp_path)) as follower:
            told, seen = await follow(follower)
        await writer.delete(infos[0].digest)
        same, _ = await follow(writer)

    async with aclosing(blob_store(tmp_path)) as another:
        since, _ = await follow(another, seen)
        extent = await another.extent()

    assert sorted(one.digest for one in told) == sorted(info.digest for info in infos)
    assert same[:-1] == [one for one in told if one.digest != infos[0].digest]
    assert since == same[-1:]
    assert for_watchers(since) == [("deleted", infos[0].digest)]
    assert extent.keys == len(infos)


async def test_a_log_that_was_removed_is_made_anew_and_is_another(tmp_path: Path) -> None:
    async with aclosing(blob_store(tmp_path)) as store:
        info = await put(store, b"x")
        await follow(store)
        before = await store.extent()

    shutil.rmtree(tmp_path / "changes")
    async with aclosing(blob_store(tmp_path)) as store:
        assert (await store.extent()).created != before.created
        assert for_watchers((await follow(store))[0]) == [("put", info.digest)]


async def test_a_blob_that_was_moved_aside_is_told_as_deleted(tmp_path: Path) -> None:
    async with aclosing(blob_store(tmp_path)) as store:
        info = await put(store, b"x")
        _, seen = await follow(store)
        blob_path(tmp_path, info.digest).write_bytes(b"spoilt")

        with pytest.raises(CorruptError):
            await store.stat(info.digest)
        told, seen = await follow(store, seen)
        assert for_watchers(told) == [("deleted", info.digest)]
        await put(store, b"x")
        assert for_watchers((await follow(store, seen))[0]) == [("put", info.digest)]


@pytest.mark.parametrize("is_fresh", [True, False])
async def test_a_directory_is_looked_at_again_if_it_changed_or_may_have_within_a_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_fresh: bool
) -> None:
    looked: list[str] = []
    keys_in = BlobFiles.keys_in

    def counting(self: BlobFiles, shard: str) -> set[str]:
        looked.append(shard)
        return keys_in(self, shard)

    monkeypatch.setattr(BlobFiles, "keys_in", counting)
    now = BEFORE_ANY_FILE if is_fresh else LONG_AFTER
    async with aclosing(blob_store(tmp_path, now=now)) as store:
        await put(store, b"x")
        await follow(store)
        looked.clear()
        await follow(store)
        assert bool(looked) is is_fresh

        looked.clear()
        info = await put(store, b"y")
        assert info.digest in {one.digest for one in (await follow(store))[0]}
        assert info.digest[:2] in looked


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_blob_that_goes_before_it_is_told_is_told_as_it_is_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    async with aclosing(blob_store(tmp_path)) as store:
        info = await put(store, b"x")
        stat, bytes_of_file = BlobFiles.stat, blob_path(tmp_path, info.digest).read_bytes()
        asked = 0

        def gone_when_first_asked(
            self: BlobFiles, digest: Digest, *, partial: bool = False
        ) -> BlobInfo:
            assert partial
            nonlocal asked
            asked += 1
            if asked > 1:
                return stat(self, digest, partial=True)
            blob_path(tmp_path, digest).unlink()
            try:
                return stat(self, digest, partial=True)
            finally:
                if comes_back:
                    blob_path(tmp_path, digest).write_bytes(bytes_of_file)

        monkeypatch.setattr(BlobFiles, "stat", gone_when_first_asked)
        told, _ = await follow(store)

        assert for_watchers(told) == [("put" if comes_back else "deleted", info.digest)]


async def test_what_lies_there_and_is_no_blob_is_not_told(tmp_path: Path) -> None:
    async with aclosing(blob_store(tmp_path)) as store:
        info = await put(store, b"x")
        digest = digest_of(b"elsewhere")
        (tmp_path / "blobs" / info.digest[:2] / "notes.txt").write_text("not ours")
        (tmp_path / "blobs" / info.digest[:2] / digest).write_text("in another's directory")

        assert for_watchers((await follow(store))[0]) == [("put", info.digest)]
