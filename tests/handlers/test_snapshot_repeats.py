"""Requests that are repeated: after a lost answer, a client that went away, and a removal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest
import pytest_asyncio
from tests.handlers.snapshot_service import LEASE_SECONDS, Shared, Site

from holdfast.domain.digest import Digest
from holdfast.domain.names import SnapshotKey
from holdfast.errors import ConflictError
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.ledger.ops import Ops
from holdfast.repository.snapshots.record import (
    RESTORE,
    SNAPSHOT,
    StoredRestore,
    StoredSnapshot,
    snapshot_name,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.repository.snapshots.job import Job


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker with an app ``shop``."""
    site = Site(Shared(), tmp_path / "apps")
    site.write("shop/a", b"some content")
    yield site
    await site.aclose()


async def leave_snapshot(site: Site, op_id: str, owner: str) -> SnapshotKey:
    """Leave a snapshot as it is when the answer to its beginning was lost; its key."""
    key = SnapshotKey("shop", site.shared.new_uuid())
    await Ops(site.shared.ops).claim(op_id, str(key))
    record = StoredSnapshot(
        app="shop",
        id=key.id,
        state="pending",
        lease=Lease(owner=owner, seconds=LEASE_SECONDS),
        created_at=site.shared.time.clock().isoformat(),
        op_id=op_id,
    )
    await Ledger(site.shared.records).begin(SNAPSHOT, snapshot_name(key), record)
    return key


async def leave_restore(site: Site, op_id: str, owner: str, snapshot: str, root: str) -> str:
    """Leave a restore as it is when the answer to its beginning was lost; its id."""
    restore = site.shared.new_uuid()
    await Ops(site.shared.ops).claim(op_id, restore)
    record = StoredRestore(
        id=restore,
        snapshot=snapshot,
        app="copy",
        mode="new",
        state="pending",
        lease=Lease(owner=owner, seconds=LEASE_SECONDS),
        created_at=site.shared.time.clock().isoformat(),
        digest=Digest(root),
    )
    await Ledger(site.shared.records).begin(RESTORE, restore, record)
    return restore


@pytest.mark.fault("P05")
async def test_a_repeat_carries_on_a_snapshot_whose_beginning_was_never_answered(
    site: Site,
) -> None:
    key = await leave_snapshot(site, "op-1", "w-n1")

    replies = await asyncio.gather(
        *(site.ask("snapshot.create", {"app": "shop"}, op_id="op-1") for _ in range(3))
    )

    assert {reply.json["key"] for reply in replies} == {str(key)}
    await site.service.jobs.drain(10)
    assert (await site.ok("snapshot.get", key=str(key)))["state"] == "ok"
    assert site.service.jobs.active == 0


@pytest.mark.fault("P05")
async def test_what_another_worker_began_is_only_told(site: Site) -> None:
    key = await leave_snapshot(site, "op-1", "w-n2")
    created = await site.create()
    restore = await leave_restore(site, "r-1", "w-n2", created["key"], created["digest"])

    snapshot = await site.ask("snapshot.create", {"app": "shop"}, op_id="op-1")
    restored = await site.ask(
        "snapshot.restore", {"key": created["key"], "app": "copy"}, op_id="r-1"
    )

    assert (snapshot.json["key"], snapshot.json["state"]) == (str(key), "pending")
    assert (restored.json["restore"], restored.json["state"]) == (restore, "pending")
    assert site.service.jobs.active == 0


@pytest.mark.fault("P05")
async def test_a_repeat_carries_on_a_restore_whose_beginning_was_never_answered(
    site: Site, tmp_path: Path
) -> None:
    created = await site.create()
    restore = await leave_restore(site, "r-1", "w-n1", created["key"], created["digest"])

    reply = await site.ask("snapshot.restore", {"key": created["key"], "app": "copy"}, op_id="r-1")

    assert (reply.json["restore"], reply.json["state"]) == (restore, "ok")
    assert (tmp_path / "apps/copy/a").read_bytes() == b"some content"


@pytest.mark.fault("P05")
@pytest.mark.parametrize("subject", ["snapshot.create", "snapshot.restore"])
async def test_what_was_begun_goes_on_when_its_request_ran_out_of_time(
    site: Site, subject: str
) -> None:
    created = await site.create()
    fields = {"app": "shop"}
    if subject == "snapshot.restore":
        fields = {"key": created["key"], "app": "copy"}
    gate = site.shared.when_begun()
    asking = asyncio.create_task(site.ask(subject, fields, op_id="op-1"))
    await gate.wait()

    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    gate.go_on()
    async with asyncio.timeout(30):
        while not site.service.jobs.active:  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0)
    await site.service.jobs.drain(10)

    again = await site.ask(subject, fields, op_id="op-1")
    assert again.json["state"] == "ok"


async def test_a_repeat_does_not_bring_back_what_was_removed(site: Site) -> None:
    first = await site.ask("snapshot.create", {"app": "shop"}, op_id="op-1")
    begun = await site.ask("snapshot.begin", {"app": "shop"}, op_id="op-2")
    for reply in (first, begun):
        assert await site.ok("snapshot.delete", key=reply.json["key"]) == {"deleted": True}

    again = await site.ask("snapshot.create", {"app": "shop"}, op_id="op-1")
    begun_again = await site.ask("snapshot.begin", {"app": "shop"}, op_id="op-2")

    assert (again.code, begun_again.code) == ("conflict", "conflict")
    assert b"removed" in again.body
    assert (await site.ok("snapshot.list"))["snapshots"] == []


async def test_a_repeat_is_told_what_it_made_while_the_packs_are_away(site: Site) -> None:
    """Nothing else in the answer to a first request needs them but the choice of a parent."""
    await site.create()
    first = await site.ask("snapshot.begin", {"app": "shop"}, op_id="op-1")
    site.shared.packs.away = True

    again = await site.ask("snapshot.begin", {"app": "shop"}, op_id="op-1")
    other = await site.ask("snapshot.begin", {"app": "shop"}, op_id="op-2")

    assert (again.code, again.json) == ("ok", first.json)
    assert other.code == "unavailable"


async def test_a_repeat_of_what_did_not_even_begin_begins_it(site: Site) -> None:
    key = SnapshotKey("shop", site.shared.new_uuid())
    await Ops(site.shared.ops).claim("op-1", str(key))

    reply = await site.ask("snapshot.create", {"app": "shop"}, op_id="op-1")

    assert (reply.json["key"], reply.json["state"]) == (str(key), "ok")


# --- restores that were given up ---


async def give_up(site: Site) -> None:
    """End the one restore that is pending, as another worker would."""
    ledger = Ledger(site.shared.records)
    [held] = [held async for held in ledger.live(RESTORE)]
    await ledger.take(held, lambda record: msgspec.structs.replace(record, state="failure"))


@pytest.mark.fault("S03")
async def test_a_sweep_leaves_alone_what_a_job_of_this_worker_is_at_work_in(
    site: Site, tmp_path: Path
) -> None:
    created = await site.create()
    restore = await leave_restore(site, "r-1", "w-n1", created["key"], created["digest"])
    ledger = Ledger(site.shared.records)
    may_end = asyncio.Event()

    async def work(job: Job[StoredRestore]) -> StoredRestore:
        await may_end.wait()
        return job.record

    job = site.service.jobs.start(await ledger.get(RESTORE, restore), work)
    await give_up(site)
    (tmp_path / f"apps/.holdfast-{restore}" / "half").mkdir(parents=True)

    assert await site.service.restores.sweep() == 0
    may_end.set()
    with pytest.raises(ConflictError):
        await site.service.jobs.wait(job, 10)
    assert await site.service.restores.sweep() == 1


@pytest.mark.fault("S03")
async def test_a_restore_that_others_gave_up_does_not_touch_the_app(
    site: Site, tmp_path: Path
) -> None:
    key = (await site.create())["key"]
    site.write("shop/a", b"changed")
    other = Site(site.shared, tmp_path / "apps", node="n2")
    gate = site.shared.when_read()
    asking = asyncio.create_task(site.ask("snapshot.restore", {"key": key, "mode": "replace"}))
    await gate.wait()

    await give_up(site)
    await other.service.restores.sweep()
    gate.go_on()

    assert (await asking).code == "conflict"
    assert [path.name for path in (tmp_path / "apps").iterdir()] == ["shop"]
    assert (tmp_path / "apps/shop/a").read_bytes() == b"changed"
    await other.aclose()
