"""Snapshots through worker processes on a real server: forwarding, windows, a worker that dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from nats.aio.client import Client
from tests.deployment import Asker, Deployment, code_of

from holdfast.bootstrap.sources import new_uuid
from holdfast.cli.base import exit_codes
from holdfast.domain.names import check_id, created_at_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from nats.aio.msg import Msg

    from holdfast.runtime.embedded import EmbeddedServer

BIG = bytes(range(256)) * 4 * 1024 * 9  # 9 MiB
LEASE_SECONDS = 60.0
SHORT_LEASE_SECONDS = 1.5


class Nodes:
    """Two nodes with apps of their own, and one without."""

    def __init__(self, deployment: Deployment, directory: Path) -> None:
        self.deployment = deployment
        self.apps = {node: directory / node for node in ("east", "west")}
        for node, app in (("east", "shop"), ("west", "blog")):
            (self.apps[node] / app).mkdir(parents=True)
            (self.apps[node] / app / "node").write_text(node)
            (self.apps[node] / app / "big").write_bytes(BIG)

    def start(self, lease_seconds: float) -> None:
        """Start the workers."""
        lease = str(lease_seconds)
        for node, apps in self.apps.items():
            self.deployment.spawn(node, apps=str(apps), snapshot_lease_seconds=lease)
        self.deployment.start("bare", snapshot_lease_seconds=lease)
        asyncio.run(self.deployment.wait_serving({*self.apps}))


@pytest.fixture
def nodes(
    nats_server: EmbeddedServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Nodes]:
    """Three workers that serve. Its parameter is the lease of snapshots: a minute by default."""
    with Deployment(nats_server.url) as deployment:
        nodes = Nodes(deployment, tmp_path)
        nodes.start(getattr(request, "param", LEASE_SECONDS))
        yield nodes


@asynccontextmanager
async def asking(nodes: Nodes) -> AsyncIterator[Asker]:
    """Raw requests to the pool."""
    client = Client()
    await client.connect(nodes.deployment.url)
    try:
        yield Asker(nodes.deployment, client)
    finally:
        await client.close()


async def answer_of(ask: Asker, operation: str, body: dict[str, Any]) -> Msg:
    """The answer of the node that it is for, which on a busy machine may be missed for a while."""
    async with asyncio.timeout(60):
        while code_of(message := await ask(operation, body)) == "unavailable":
            pass
    return message


async def read_all(ask: Asker, operation: str, **fields: Any) -> bytes:
    """All bytes of a file or an export, window by window."""
    data, cursor = b"", None
    while True:
        inbox = ask.client.new_inbox()
        subscription = await ask.client.subscribe(inbox)
        body = json.dumps(fields | ({} if cursor is None else {"cursor": cursor})).encode()
        await ask.client.publish(ask.deployment.subject(operation), body, reply=inbox)
        head = await subscription.next_msg(30)
        assert head.headers is not None
        assert code_of(head) == "ok", head.data
        found = [head.data]
        for number in range(int(head.headers.get("Blob-Parts", 0))):
            piece = await subscription.next_msg(30)
            assert piece.headers == {"Blob-Part": str(number)}
            found.append(piece.data)
        await subscription.unsubscribe()
        window = b"".join(found)
        assert len(window) == int(head.headers["Blob-Length"])
        data += window
        cursor = head.headers.get("Blob-Cursor")
        if cursor is None:
            return data


@pytest.mark.nats
@pytest.mark.slow
async def test_an_app_is_archived_and_restored_where_it_is_whoever_takes_the_request(
    nodes: Nodes,
) -> None:
    async with asking(nodes) as ask:
        heard = await ask.client.subscribe(ask.deployment.subject("snapshot.progress.>"))
        for app, node in (("shop", "east"), ("blog", "west")) * 6:  # whichever worker gets it
            created = json.loads((await answer_of(ask, "snapshot.create", {"app": app})).data)
            assert (created["state"], created["node"]) == ("ok", node)
        [record] = (await ask.json("snapshot.list", {"app": "blog", "limit": 1}))["snapshots"]
        first = json.loads((await heard.next_msg(30)).data)
        assert first["key"].startswith("shop:")

        data = await read_all(ask, "snapshot.read", key=record["key"], path="big")
        exported = await read_all(ask, "snapshot.export", key=record["key"])
        assert data == BIG
        assert len(exported) == record["archive_size"]

        target = {"key": record["key"], "app": "copy", "node": "east"}
        restored = json.loads((await answer_of(ask, "snapshot.restore", target)).data)
        assert (restored["state"], restored["node"]) == ("ok", "east")
        assert (nodes.apps["east"] / "copy/node").read_text() == "west"
        for nowhere in ({"app": "other"}, {"app": "shop", "node": "west"}):
            assert code_of(await answer_of(ask, "snapshot.create", nowhere)) == "not_found"
        bare = {"app": "shop", "node": "bare"}
        assert code_of(await ask("snapshot.create", bare)) == "unavailable"


async def begun_and_paused(nodes: Nodes, ask: Asker) -> dict[str, Any]:
    """A snapshot that its worker was making when it was stopped in its tracks."""
    request = {"app": "shop", "wait_seconds": 0}
    while True:
        making = json.loads((await answer_of(ask, "snapshot.create", request)).data)
        nodes.deployment.pause("east")
        if (await record_of(ask, making["key"]))["state"] != "ok":
            return dict(making)
        nodes.deployment.signal("east", signal.SIGCONT)


async def record_of(ask: Asker, key: str) -> dict[str, Any]:
    """The record of a snapshot, by a worker that answers: one that cannot may be asked before."""
    while True:
        with suppress(TimeoutError):
            return await ask.json("snapshot.get", {"key": key})


@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.fault("S01")
@pytest.mark.parametrize("nodes", [SHORT_LEASE_SECONDS], indirect=True)
async def test_what_a_killed_worker_was_making_is_given_up_by_the_others(nodes: Nodes) -> None:
    async with asking(nodes) as ask:
        ask.seconds = 5
        record = await ask.json("snapshot.begin", {"app": "shop"})
        for number in range(3000):
            (nodes.apps["east"] / "shop" / f"f{number}").write_bytes(b"%d" % number)
        making = await begun_and_paused(nodes, ask)
        nodes.deployment.kill("east")

        async with asyncio.timeout(60):
            states: dict[str, str | None] = {}
            while not states or not all(states.values()):
                for key in (record["key"], making["key"]):
                    states[key] = (await record_of(ask, key)).get("reason")
                await asyncio.sleep(0.1)

        assert states == {
            record["key"]: "the client stopped",
            making["key"]: "its worker stopped",
        }


@pytest.mark.nats
@pytest.mark.slow
@pytest.mark.fault("R04")
async def test_a_worker_that_is_told_to_stop_leaves_nothing_pending(nodes: Nodes) -> None:
    async with asking(nodes) as ask:
        request = {"app": "shop", "wait_seconds": 0}
        making = json.loads((await answer_of(ask, "snapshot.create", request)).data)

        status = await asyncio.to_thread(nodes.deployment.stop, "east")

        record = await ask.json("snapshot.get", {"key": making["key"]})
        assert status == 0
        assert record["state"] == "ok"


def test_an_id_is_a_uuid_of_version_7_that_tells_the_time() -> None:
    ids = [new_uuid() for _ in range(100)]

    assert [check_id(text) for text in ids] == ids
    assert len(set(ids)) == 100
    spread = created_at_of(ids[-1]) - created_at_of(ids[0])
    assert 0 <= spread.total_seconds() < 60


@pytest.mark.nats
@pytest.mark.fault("N18")
def test_a_worker_whose_apps_are_not_there_says_so_and_ends(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    with Deployment(nats_server.url) as deployment:
        ended = subprocess.run(
            [sys.executable, "-m", "holdfast", "worker", "--apps", str(tmp_path / "none")],
            env=os.environ | {"NATS_URL": deployment.url, "HOLDFAST_PREFIX": deployment.prefix},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert ended.returncode == exit_codes.UNAVAILABLE
    assert "the directory of apps" in ended.stdout + ended.stderr
