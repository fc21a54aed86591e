"""A worker that is killed while it archives or restores: S01 and S03, at random moments.

``make kill-snapshots KILLS=50 SEED=1`` for as many as one likes; the moments are drawn by the seed.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio
from nats.aio.client import Client
from tests.deployment import Deployment
from tests.e2e_snapshots.site import NODE, Record, Site
from tests.e2e_snapshots.trees import contents, difference, leftovers, look, plain_tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from holdfast.runtime.embedded import EmbeddedServer

_KILLS: Final = int(os.environ.get("KILLS", "2"))
_SEED: Final = int(os.environ.get("SEED", "1"))
_LEASE_SECONDS: Final = "4"
_FILES: Final = 250
_FILE_BYTES: Final = 40_000
_LAPSE_SECONDS: Final = 60.0
_STORED_SECONDS: Final = 60.0
_MOST_DELAY_SECONDS: Final = 0.6
_LARGE_RUN: Final = 50
_STORED_IN_LARGE_RUN: Final = 20

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180 + 20 * _KILLS)]


class Victim:
    """A worker that is killed again and again, and what must hold after each time."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self.site = site
        self.rng = rng
        self.moments: Counter[str] = Counter()
        self.tree = plain_tree(site.apps / "app", files=_FILES, size=_FILE_BYTES, seed=0)
        self.good: Record = {}
        self.good_contents: dict[bytes, str] = {}

    async def begin(self) -> None:
        """The snapshot that restores restore."""
        self.good = await self.site.create("app")
        self.good_contents = contents(self.tree)

    async def kill_in_create(self) -> None:
        """Kill while a snapshot of changed files is made; it is whole, or a failure, or absent."""
        plain_tree(self.tree, files=_FILES, size=_FILE_BYTES, seed=self.rng.getrandbits(32))
        before = await self._packs()
        record = await self.site.ask("snapshot.create", app="app", wait_seconds=0)
        stored = await self._moment(before)
        self.site.deployment.kill(NODE)

        await self._restart()
        ended = await self.site.ended(record, _LAPSE_SECONDS)
        if ended["state"] == "ok":
            self.moments["create, had ended"] += 1
        else:
            assert ended["state"] == "failure"
            assert ended["reason"] == "its worker stopped"
            self.moments["create, packs stored" if stored else "create, nothing stored"] += 1

    async def kill_in_restore(self) -> None:
        """Kill while the tree is replaced; it is the old one or the new one."""
        old = contents(self.tree)
        record = await self.site.ask(
            "snapshot.restore", key=self.good["key"], mode="replace", wait_seconds=0
        )
        if self.rng.random() < 0.6:
            async with asyncio.timeout(_STORED_SECONDS):
                while not leftovers(self.site.apps):  # noqa: ASYNC110  (no event tells)
                    await asyncio.sleep(0.002)
        await asyncio.sleep(self.rng.uniform(0, _MOST_DELAY_SECONDS))
        self.site.deployment.kill(NODE)
        now = contents(self.tree)
        assert now in (old, self.good_contents)
        self.moments["restore, new tree" if now == self.good_contents else "restore, old tree"] += 1

        await self._restart()
        ended = await self.site.ended(record, _LAPSE_SECONDS)
        assert ended["state"] in ("ok", "failure")
        if ended["state"] == "ok":
            assert contents(self.tree) == self.good_contents

    async def check(self) -> None:
        """Every snapshot that is ``ok`` is whole, none is pending, and none is lost."""
        records = await self.site.snapshots()
        assert {record["state"] for record in records} <= {"ok", "failure"}
        readable = [record for record in records if record["state"] == "ok"]
        assert self.good["key"] in {record["key"] for record in readable}
        for record in readable:
            assert (await self.site.verified(record["key"]))["damaged"] == []
        restored = await self.site.restore(self.good["key"], app="app-again")
        assert restored["state"] == "ok"
        assert contents(self.site.apps / "app-again") == self.good_contents
        after = await self.site.create("app")
        assert after["state"] == "ok", after["reason"]
        # A worker looks for stagings when it starts: those of restores that are over go.
        self.site.deployment.kill(NODE)
        await self._restart()
        await self._swept()

    async def _moment(self, before: int) -> bool:
        """Wait for the drawn moment: any, or one after a pack was stored. Whether one was."""
        if self.rng.random() < 0.4:
            await asyncio.sleep(self.rng.uniform(0, _MOST_DELAY_SECONDS))
        else:
            async with asyncio.timeout(_STORED_SECONDS):
                while await self._packs() == before:  # noqa: ASYNC110  (no event tells)
                    await asyncio.sleep(0.002)
            await asyncio.sleep(self.rng.uniform(0, _MOST_DELAY_SECONDS / 6))
        return await self._packs() > before

    async def _packs(self) -> int:
        """How many messages there are in the bucket of packs."""
        stream = f"OBJ_{self.site.deployment.prefix}_packs"
        return int((await self.site.client.jetstream().stream_info(stream)).state.messages)

    async def _restart(self) -> None:
        await asyncio.to_thread(start, self.site.deployment, self.site.apps)

    async def _swept(self) -> None:
        """The stagings of the worker that was killed are gone, its successor's doing."""
        async with asyncio.timeout(_LAPSE_SECONDS):
            while leftovers(self.site.apps):  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.05)


def start(deployment: Deployment, apps: Path) -> None:
    deployment.start(NODE, apps=str(apps), snapshot_lease_seconds=_LEASE_SECONDS)


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """Apps of this test alone."""
    apps = tmp_path / "apps"
    apps.mkdir()
    return apps


@pytest.fixture
def deployment(server: EmbeddedServer, apps: Path) -> Iterator[Deployment]:
    """A worker that is to be ended."""
    with Deployment(server.url) as deployment:
        start(deployment, apps)
        yield deployment


@pytest_asyncio.fixture
async def site(deployment: Deployment, apps: Path) -> AsyncIterator[Site]:
    """The same, and a connection."""
    client = Client()
    await client.connect(deployment.url)
    yield Site(deployment, apps, client)
    await client.close()


@pytest.mark.long
@pytest.mark.fault("S01")
@pytest.mark.fault("S03")
async def test_a_worker_killed_at_any_moment_leaves_nothing_half_done(site: Site) -> None:
    victim = Victim(site, random.Random(_SEED))  # noqa: S311
    await victim.begin()

    for number in range(_KILLS):
        # Two of three in a create: most can go wrong there.
        if number % 3 == 2:
            await victim.kill_in_restore()
        else:
            await victim.kill_in_create()

    await victim.check()
    print(f"seed {_SEED}:", dict(victim.moments))  # noqa: T201  (what a long run is for)
    if _KILLS >= _LARGE_RUN:
        assert victim.moments["create, packs stored"] >= _STORED_IN_LARGE_RUN


@pytest.mark.fault("S03")
async def test_a_worker_that_drains_ends_its_snapshot_or_says_that_it_did_not(site: Site) -> None:
    before = look(plain_tree(site.apps / "app", files=_FILES, size=_FILE_BYTES, seed=1))
    record = await site.ask("snapshot.create", app="app", wait_seconds=0)

    await asyncio.to_thread(site.deployment.stop, NODE)
    await asyncio.to_thread(start, site.deployment, site.apps)

    ended = await site.ended(record, _LAPSE_SECONDS)
    if ended["state"] == "ok":
        restored = await site.restore(ended["key"], app="again")
        assert restored["state"] == "ok"
        assert difference(before, look(site.apps / "again")) == []
    else:
        assert ended["code"] in ("unavailable", "outcome_unknown")


@pytest.mark.fault("S01")
async def test_a_client_killed_while_it_archives_leaves_a_failure_that_says_so(
    site: Site, tmp_path: Path
) -> None:
    tree = plain_tree(tmp_path / "tree", files=_FILES, size=_FILE_BYTES, seed=2)
    command = site.command("snapshot", "create", tree, "--app", "here")

    process = await asyncio.create_subprocess_exec(*command, env=site.environment())
    try:
        async with asyncio.timeout(_STORED_SECONDS):
            while not (begun := await site.snapshots(app="here")):  # noqa: ASYNC110  (no event tells)
                await asyncio.sleep(0.002)
    finally:
        process.kill()
        await process.wait()

    ended = await site.ended(begun[0], _LAPSE_SECONDS)
    if ended["state"] == "failure":  # else it was quicker than we
        assert ended["reason"] == "the client stopped"
    await asyncio.to_thread(site.run, "snapshot", "create", tree, "--app", "here")
    newest = (await site.snapshots(app="here"))[0]
    assert (newest["state"], newest["files"]) == ("ok", _FILES)
    assert (await site.verified(newest["key"]))["damaged"] == []
