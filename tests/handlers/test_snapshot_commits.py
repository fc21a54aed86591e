"""Snapshots whose data a client puts itself: begun, renewed, committed, or given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from tests.archive.memory import MemoryPackStore
from tests.handlers.snapshot_service import LEASE_SECONDS, Shared, Site

from holdfast.archive.create.create import create_archive
from holdfast.archive.create.source import DirectorySource
from holdfast.domain.digest import digest_of
from holdfast.domain.names import SnapshotKey
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.snapshots import securing
from holdfast.repository.snapshots.record import SNAPSHOT, snapshot_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.domain.digest import Digest


class Archive:
    """A client's snapshot before it puts anything."""

    def __init__(self, directory: Path, root: Digest, packs: dict[Digest, bytes]) -> None:
        self.directory = directory
        self.root = root
        self.packs = packs

    @classmethod
    def of(cls, directory: Path) -> Archive:
        """The archive of ``directory``."""
        store = MemoryPackStore()
        source = DirectorySource(directory)
        archived = create_archive(source, store, parent=None, started_at_ns=0)
        source.close()
        return cls(directory, archived.root, store.packs)


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker without apps."""
    del tmp_path
    site = Site(Shared(), None)
    yield site
    await site.aclose()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A client's directory, archived."""
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "a").write_bytes(b"some content")
    (directory / "b").write_bytes(bytes(range(256)) * 4096)
    return Archive.of(directory)


async def begin(site: Site, **fields: Any) -> dict[str, Any]:
    """A pending snapshot of the client's own."""
    record = await site.ok("snapshot.begin", app="shop", **fields)
    assert record["state"] == "pending"
    assert record["lease_seconds"] == LEASE_SECONDS
    return record


async def put_all(site: Site, archive: Archive) -> None:
    """Put everything that the archive needs."""
    for data in archive.packs.values():
        await site.shared.put_pack(data)


async def test_what_was_put_is_committed_and_read_like_any_other(
    site: Site, archive: Archive
) -> None:
    key = (await begin(site, labels={"from": "laptop"}))["key"]
    await put_all(site, archive)
    warning = {"kind": "vanished", "path": "c", "detail": "gone"}

    record = await site.ok(
        "snapshot.commit",
        key=key,
        digest=archive.root,
        added=7,
        warnings=[warning],
        warning_count=3,
    )

    assert (record["state"], record["digest"], record["added"]) == ("ok", archive.root, 7)
    assert (record["files"], record["size"], record["warning_count"]) == (2, 1048588, 3)
    assert record["warnings"] == [warning]
    assert "lease_seconds" not in record
    assert await site.content("snapshot.read", key=key, path="a") == b"some content"
    exported = await site.content("snapshot.export", key=key)
    assert len(exported) == record["archive_size"]
    again = await site.ok("snapshot.commit", key=key, digest=archive.root)
    assert again["key"] == key


async def test_what_is_missing_is_named_until_it_is_there(site: Site, archive: Archive) -> None:
    key = (await begin(site))["key"]

    put: set[str] = set()
    while (record := await site.ok("snapshot.commit", key=key, digest=archive.root))[
        "state"
    ] == "pending":
        assert record["missing"]
        assert not put & set(record["missing"])
        for digest in record["missing"]:
            put.add(await site.shared.put_pack(archive.packs[digest]))

    assert put == set(archive.packs)


async def test_a_root_that_went_away_since_it_was_looked_through_is_named(
    site: Site, archive: Archive
) -> None:
    first, key = (await begin(site))["key"], (await begin(site))["key"]
    await put_all(site, archive)
    await site.ok("snapshot.commit", key=first, digest=archive.root)
    await site.shared.forget_packs([archive.root])

    for _ in range(2):  # known as sound, and looked through anew
        record = await site.ok("snapshot.commit", key=key, digest=archive.root)
        assert (record["state"], record["missing"]) == ("pending", [archive.root])

    await site.shared.put_pack(archive.packs[archive.root])
    assert (await site.ok("snapshot.commit", key=key, digest=archive.root))["state"] == "ok"


@pytest.mark.fault("T07")
@pytest.mark.parametrize("data", [b"", b"no root", b"holdfast-root 1\n", b"\x28\xb5\x2f\xfd" * 9])
async def test_what_is_no_root_is_refused_and_the_snapshot_stays_pending(
    site: Site, data: bytes
) -> None:
    key = (await begin(site))["key"]
    await site.shared.put_pack(data)

    reply = await site.ask("snapshot.commit", {"key": key, "digest": digest_of(data)})

    assert reply.code == "corrupt"
    assert (await site.ok("snapshot.get", key=key))["state"] == "pending"


async def test_the_parent_is_what_can_be_built_on(site: Site, archive: Archive) -> None:
    await put_all(site, archive)
    first = await begin(site)
    assert "parent_digest" not in first
    await site.ok("snapshot.commit", key=first["key"], digest=archive.root)

    second = await begin(site)

    assert (second["parent"], second["parent_digest"]) == (first["key"], archive.root)


async def test_what_was_committed_cannot_be_made_something_else(
    site: Site, archive: Archive
) -> None:
    key = (await begin(site))["key"]
    await put_all(site, archive)
    await site.ok("snapshot.commit", key=key, digest=archive.root)

    other = await site.ask("snapshot.commit", {"key": key, "digest": "0" * 64})
    renewed = await site.ask("snapshot.begin", {"key": key})

    assert (other.code, renewed.code) == ("conflict", "conflict")


@pytest.mark.fault("P17")
async def test_a_client_that_is_silent_for_its_lease_has_given_up(
    site: Site, archive: Archive
) -> None:
    key = (await begin(site))["key"]
    await put_all(site, archive)
    for _ in range(3):
        await site.service.lapses.sweep()
        site.shared.time.advance(LEASE_SECONDS / 2)

    late = await site.ask("snapshot.commit", {"key": key, "digest": archive.root})

    assert late.code == "conflict"
    record = await site.ok("snapshot.get", key=key)
    assert (record["state"], record["reason"]) == ("failure", "the client stopped")


@pytest.mark.fault("P19")
async def test_a_client_that_renews_may_take_its_time(site: Site, archive: Archive) -> None:
    key = (await begin(site))["key"]
    for _ in range(5):
        await site.service.lapses.sweep()
        site.shared.time.advance(LEASE_SECONDS - 1)
        assert (await site.ok("snapshot.begin", key=key))["key"] == key

    await put_all(site, archive)
    assert (await site.ok("snapshot.commit", key=key, digest=archive.root))["state"] == "ok"


async def test_a_renewal_names_nothing_but_the_key(site: Site) -> None:
    key = (await begin(site))["key"]

    for request in ({}, {"key": key, "app": "blog"}, {"key": key, "labels": {"a": "b"}}):
        assert (await site.ask("snapshot.begin", request)).code == "invalid"
    unknown = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert (await site.ask("snapshot.begin", {"key": unknown})).code == "not_found"


async def test_a_repeated_begin_is_the_same_snapshot(site: Site) -> None:
    first = await site.ask("snapshot.begin", {"app": "shop"}, op_id="b-1")
    again = await site.ask("snapshot.begin", {"app": "shop"}, op_id="b-1")

    assert first.json["key"] == again.json["key"]


async def test_a_repeated_delete_says_again_that_it_deleted(site: Site) -> None:
    key = (await begin(site))["key"]

    first = await site.ask("snapshot.delete", {"key": key}, op_id="d-1")
    again = await site.ask("snapshot.delete", {"key": key}, op_id="d-1")
    other = await site.ask("snapshot.delete", {"key": key}, op_id="d-2")
    other_again = await site.ask("snapshot.delete", {"key": key}, op_id="d-2")

    assert [reply.json["deleted"] for reply in (first, again, other, other_again)] == [
        True,
        True,
        False,
        False,
    ]


async def test_a_commit_of_what_a_worker_makes_is_a_conflict(
    tmp_path: Path, archive: Archive
) -> None:
    site = Site(Shared(), tmp_path / "apps")
    site.write("shop/a", b"x")
    announced = site.shared.when_announced()
    record = await site.ok("snapshot.create", app="shop", wait_seconds=0)
    await announced.wait()

    commit = await site.ask("snapshot.commit", {"key": record["key"], "digest": archive.root})
    renewal = await site.ask("snapshot.begin", {"key": record["key"]})

    assert (commit.code, renewal.code) == ("conflict", "conflict")
    announced.go_on()
    await site.aclose()


@pytest.mark.fault("P19")
async def test_a_commit_of_many_packs_shows_that_it_goes_on(
    site: Site, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(securing, "TOUCHES_PER_BEAT", 1)
    key = (await begin(site))["key"]
    await put_all(site, archive)

    record = await site.ok("snapshot.commit", key=key, digest=archive.root)

    assert record["state"] == "ok"
    held = await Ledger(site.shared.records).get(SNAPSHOT, snapshot_name(SnapshotKey.parse(key)))
    assert held.record.lease.beat > 1, "announced once, then renewed"


@pytest.mark.fault("P19")
async def test_a_commit_during_which_the_client_renews_is_not_begun_anew(
    site: Site, archive: Archive
) -> None:
    key = (await begin(site))["key"]
    await put_all(site, archive)
    announced = site.shared.when_announced()
    committing = asyncio.create_task(site.ok("snapshot.commit", key=key, digest=archive.root))
    await announced.wait()

    assert (await site.ok("snapshot.begin", key=key))["state"] == "pending"
    announced.go_on()

    assert (await committing)["state"] == "ok"
    held = await Ledger(site.shared.records).get(SNAPSHOT, snapshot_name(SnapshotKey.parse(key)))
    assert held.record.lease.beat == 2, "announced once, renewed once"


@pytest.mark.fault("S05")
async def test_a_commit_whose_snapshot_is_removed_meanwhile_is_a_failure(
    site: Site, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(securing, "TOUCHES_PER_BEAT", 1)
    key = (await begin(site))["key"]
    await put_all(site, archive)
    announced = site.shared.when_announced()
    committing = asyncio.create_task(
        site.ask("snapshot.commit", {"key": key, "digest": archive.root})
    )
    await announced.wait()

    await site.ok("snapshot.delete", key=key)
    announced.go_on()

    assert (await committing).code == "not_found"


async def test_a_worker_builds_upon_nothing_that_a_client_made(
    tmp_path: Path, archive: Archive
) -> None:
    # Given an app of a worker's, and a client's snapshot of the very same files, times and all:
    apps = tmp_path / "apps"
    apps.mkdir()
    archive.directory.rename(apps / "shop")
    site = Site(Shared(), apps)
    try:
        await put_all(site, archive)
        first = await begin(site)
        await site.ok("snapshot.commit", key=first["key"], digest=archive.root)

        # when the worker archives the app,
        own = await site.create("shop")

        # then it has read the files itself; the next one may build upon that.
        assert "parent" not in own
        assert (await site.create("shop"))["parent"] == own["key"]
    finally:
        await site.aclose()
