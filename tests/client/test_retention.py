"""Policies and holds through the client, on workers that apply them by themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.deployment import Deployment

from holdfast.client import Client, connect_sync
from holdfast.errors import ConflictError, NotFoundError
from holdfast.protocol.retention import KeepSnapshots, KeptSnapshots

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

pytestmark = pytest.mark.nats

LAST = KeepSnapshots(last=1, within="1h", labels=[{"keep": "yes"}], time_zone="Europe/Berlin")


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """Two workers that look at policies all the time."""
    with Deployment(nats_server.url) as deployment:
        for node in ("one", "two"):
            deployment.start(node, prune_seconds="0.2")
        yield deployment


async def snapshots_of(holdfast: Client, app: str, tmp_path: Path, count: int) -> list[str]:
    """Snapshots of an app, the oldest first: their keys."""
    (tmp_path / "file").write_text(app)
    made = [await holdfast.snapshots.create_from(tmp_path, app=app) for _ in range(count)]
    return [record.key for record in made]


async def keys(holdfast: Client, app: str) -> list[str]:
    return [record.key async for record in holdfast.snapshots.list(app=app)][::-1]


async def test_a_snapshot_is_pruned_unless_it_is_held(holdfast: Client, tmp_path: Path) -> None:
    made = await snapshots_of(holdfast, "pruned", tmp_path, 4)
    held = await holdfast.retention.hold(made[0], "audit")

    dry = await holdfast.retention.prune("pruned", KeepSnapshots(last=1), dry_run=True)
    report = await holdfast.retention.prune("pruned", KeepSnapshots(last=1))

    assert (held.held, held.hold_reason) == (True, "audit")
    assert (dry.superfluous, dry.removed) == (2, 0)
    assert (report.kept, report.superfluous, report.removed) == (2, 2, 2)
    assert await keys(holdfast, "pruned") == [made[0], made[3]]
    assert not (await holdfast.retention.release(made[0])).held
    with pytest.raises(NotFoundError):
        await holdfast.retention.hold(made[1])


async def test_a_policy_is_set_at_its_revision_and_told(holdfast: Client) -> None:
    first = await holdfast.retention.set_policy(LAST, app="told", if_revision=0)

    assert await holdfast.retention.policy("told") == first
    assert first.keep == KeptSnapshots(
        last=1, within="1h", labels=[{"keep": "yes"}], time_zone="Europe/Berlin"
    )
    with pytest.raises(ConflictError):
        await holdfast.retention.set_policy(KeepSnapshots(last=2), app="told", if_revision=0)
    assert (await holdfast.retention.set_policy(None, app="told")).keep is None


async def test_workers_apply_a_policy_by_themselves(holdfast: Client, tmp_path: Path) -> None:
    made = await snapshots_of(holdfast, "alone", tmp_path, 4)

    await holdfast.retention.set_policy(KeepSnapshots(last=2), app="alone")

    async with asyncio.timeout(30):
        while await keys(holdfast, "alone") != made[2:]:
            pass


async def test_all_apps_are_pruned_together(holdfast: Client, tmp_path: Path) -> None:
    for app in ("first", "second"):
        await snapshots_of(holdfast, app, tmp_path, 2)

    reports = [one async for one in holdfast.retention.prune_all(KeepSnapshots(last=1))]

    assert sum(report.removed for report in reports) >= 2
    assert [len(await keys(holdfast, app)) for app in ("first", "second")] == [1, 1]


def test_it_is_all_there_without_await(deployment: Deployment) -> None:
    with connect_sync(servers=deployment.url, prefix=deployment.prefix) as client:
        reports = list(client.retention.prune_all(KeepSnapshots(last=1), dry_run=True))

        assert reports[-1].cursor is None
        assert client.retention.policy("nobody").keep is None
