"""Everything that workers and clients do is allowed to them: the server refuses nothing."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio
from tests.deploy.shipped import INBOXES, PASSWORDS, options, shipped_server
from tests.deployment import START_SECONDS, STOP_SECONDS
from tests.forked import Forked
from tests.nats.tools import connected

from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import open_stores
from holdfast.cli import main
from holdfast.client import Client, connect
from holdfast.client.puts.opened_upload import OpenedUpload, look
from holdfast.errors import NotFoundError
from holdfast.protocol.blobs import OPEN_UPLOAD, OpenUpload
from holdfast.protocol.names import NameEntry, NameRule
from holdfast.protocol.retention import KeepSnapshots
from holdfast.stores.record_ports import Delete
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from tests.deploy.shipped import ShippedServer

    from holdfast.client import WorkerInfo

pytestmark = [pytest.mark.nats, pytest.mark.slow]

NODES: Final = ("east", "west")
LARGE: Final = os.urandom(20_000_000)


class Pool:
    """Worker processes as docker-compose.yml starts them, each with a directory of apps."""

    def __init__(self, server: ShippedServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.workers: dict[str, Forked] = {}

    def apps(self, node: str) -> Path:
        """The apps of a node."""
        return self.directory / node

    def start(self, node: str) -> None:
        """Start a worker."""
        self.apps(node).mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "NATS_URL": self.server.url,
            "NATS_USER": "worker",
            "NATS_PASSWORD": PASSWORDS["WORKER_PASSWORD"],
            "HOLDFAST_APPS": str(self.apps(node)),
            "HOLDFAST_REQUIRE_SYNC": "true",
            "HOLDFAST_MONITOR_URL": self.server.monitor_url,
            "HOLDFAST_LOG_LEVEL": "warning",
            "HOLDFAST_LINK_KEYS": str(self.directory / "link-keys.json"),
            "HOLDFAST_PUBLIC_URL": "https://files.example",
        }
        command = ["worker", "--node", node, "--inbox-prefix", INBOXES["worker"]]
        self.workers[node] = Forked(command, environment)

    def kill(self, node: str) -> None:
        """End a worker as the kernel would."""
        worker = self.workers.pop(node)
        worker.kill()
        worker.wait()

    def stop(self) -> None:
        """Drain them all."""
        for worker in self.workers.values():
            worker.terminate()
        for worker in self.workers.values():
            worker.wait(STOP_SECONDS)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One node as shipped, and two workers."""
    with shipped_server(tmp_path_factory.mktemp("shipped")) as server:
        asyncio.run(init_store(server.config("admin")))
        pool = Pool(server, tmp_path_factory.mktemp("apps"))
        assert main(["link-key", "create", "--file", str(pool.directory / "link-keys.json")]) == 0
        for node in NODES:
            pool.start(node)
        try:
            yield pool
        finally:
            pool.stop()


async def all_workers(client: Client) -> Sequence[WorkerInfo]:
    """The workers, once all have answered: one that is busy may miss a question."""
    async with asyncio.timeout(START_SECONDS):
        while len(found := await client.workers()) < len(NODES):
            pass
    return found


@pytest_asyncio.fixture
async def holdfast(pool: Pool) -> AsyncIterator[Client]:
    """A client as shipped. After the test nothing may have been refused to anybody."""
    async with await connect(options(pool.server.url, "client")) as client:
        await all_workers(client)
        yield client
    assert pool.server.violations() == []


async def test_blobs_small_and_large(holdfast: Client) -> None:
    stored = [await holdfast.put(data) for data in (b"small", LARGE)]

    assert await holdfast.get(stored[0].digest) == b"small"
    assert await holdfast.get(stored[1].digest) == LARGE
    assert await holdfast.has([stored[0].digest, "0" * 64]) == ["0" * 64]
    assert (await holdfast.stat(stored[1].digest)).size == len(LARGE)
    assert {blob.digest async for blob in holdfast.list()} >= {one.digest for one in stored}
    assert all([report.damaged == [] async for report in holdfast.verify()])
    for one in stored:
        assert await holdfast.delete(one.digest)
        with pytest.raises(NotFoundError):
            await holdfast.get(one.digest)


async def test_names_small_and_large_with_all_that_is_asked_of_them(holdfast: Client) -> None:
    names = holdfast.names
    rules = await names.rules()
    await names.set_rules([NameRule(prefix="", keep_versions=3)], if_revision=rules.revision)
    await names.create("docs/a", b"one", labels={"k": "v"})
    await names.replace("docs/a", b"two")
    await names.create("docs/large", LARGE)
    await names.copy("docs/b", source="docs/a")
    await names.rename("docs/c", source="docs/b")
    await names.restore("docs/a", 1)

    assert await names.get("docs/a") == b"one"
    assert await names.get("docs/large") == LARGE
    assert [entry.name async for entry in names.list("docs/") if isinstance(entry, NameEntry)] == [
        "docs/a",
        "docs/c",
        "docs/large",
    ]
    assert (await names.stat("docs/a")).version == 3
    assert [one.version async for one in names.versions("docs/a")] == [3, 2, 1]
    assert (await names.history("docs/c")).state == "ok"
    for name in ("docs/a", "docs/c", "docs/large"):
        assert await names.delete(name)
    assert [entry async for entry in names.list("docs/")] == []


async def test_links_and_uploads_in_stretches(holdfast: Client) -> None:
    await holdfast.names.put("linked", b"linked")
    link = await holdfast.names.link("linked", 60, single_use=True)
    await holdfast.use_link(parse_qs(urlsplit(link.url).query)["link-once"][0])

    async def some(data: bytes) -> AsyncIterator[bytes]:
        yield data

    opened = await holdfast.requester.ask(OPEN_UPLOAD, OpenUpload())
    await OpenedUpload(holdfast.requester, opened).send(some(LARGE[:700_001]))
    state = await look(holdfast.requester, opened.upload or "")
    upload = await OpenedUpload.find(holdfast.requester, state)
    assert isinstance(upload, OpenedUpload)
    assert upload.offset == 700_001
    await upload.send(some(LARGE[700_001:]))

    assert (await upload.end()).size == len(LARGE)


async def test_states_with_all_that_is_asked_of_them(holdfast: Client) -> None:
    states = holdfast.states
    large = {"text": "x" * 3_000_000}
    for number in range(1, 41):
        assert (await states.append("orders", {"n": number})).index == number
    await states.append("orders", b"bytes")
    async with aclosing(states.follow("orders", 41)) as commands:
        assert (await anext(commands)).command == b"bytes"
        await states.append("orders", "heard", expected_index=41)
        assert (await anext(commands)).command == "heard"

    await states.save("orders", {"n": 10}, last_applied_index=10)
    await states.save("orders", large, last_applied_index=20)
    await states.set_policy("orders", keep=3)
    assert (await states.trim("orders", 10)).first_index == 11
    assert [one.index async for one in states.replay("orders", 11)] == [*range(11, 43)]
    newest = await states.latest("orders")
    assert newest is not None
    assert newest.state == large
    assert (await states.at("orders", index=15)).state == {"n": 10}
    assert [one.number async for one in states.saves("orders")] == [2, 1]
    assert (await states.verify("orders")).damaged == []
    assert (await states.repair("orders", 42)).last_index == 41
    assert [one.name async for one in states.list()] == ["orders"]
    assert await states.remove("orders")


async def test_changes_are_watched(holdfast: Client) -> None:
    async with aclosing(holdfast.watch("names", prefix="seen/")) as events:
        seen = asyncio.ensure_future(anext(events))
        while not seen.done():
            await holdfast.names.put("seen/a", b"one")
            await asyncio.wait([seen], timeout=1)
        assert seen.result().subject == "seen/a"
    async with aclosing(holdfast.watch("blobs", since=0)) as events:
        assert (await anext(events)).type.startswith("holdfast.blob.")


async def test_an_upload_that_another_worker_takes_over(pool: Pool, holdfast: Client) -> None:
    halted, proceed = asyncio.Event(), asyncio.Event()

    async def halting() -> AsyncIterator[bytes]:
        for position in range(0, len(LARGE), 500_000):
            if position == 10_000_000:
                halted.set()
                await proceed.wait()
            yield LARGE[position : position + 500_000]

    putting = asyncio.create_task(holdfast.put(halting()))
    await halted.wait()
    owner = max(await all_workers(holdfast), key=_parts_taken).metadata["node"]
    pool.kill(owner)
    proceed.set()

    stored = await putting

    assert await holdfast.get(stored.digest) == LARGE
    pool.start(owner)


def _parts_taken(worker: WorkerInfo) -> int:
    return sum(e.num_requests for e in worker.endpoints if e.subject.startswith("blob.part."))


async def test_snapshots_by_workers(pool: Pool, holdfast: Client) -> None:
    site = pool.apps("east") / "site"
    site.mkdir()
    (site / "page").write_bytes(b"first")
    (site / "large").write_bytes(LARGE[:3_000_000])
    snapshots = holdfast.snapshots
    told: list[object] = []

    # Whichever worker takes these, the one that has the app does them.
    first = await snapshots.create("site", labels={"why": "test"}, on_progress=told.append)
    (site / "page").write_bytes(b"second")
    second = await snapshots.create("site")
    restored = await snapshots.restore(first.key, app="copy", node="west")
    await snapshots.restore(first.key, mode="replace", on_progress=told.append)

    assert {first.state, second.state, restored.state} == {"ok"}
    assert (pool.apps("west") / "copy" / "page").read_bytes() == b"first"
    assert (site / "page").read_bytes() == b"first"
    assert [change.path async for change in snapshots.diff(first.key, second.key)] == ["page"]
    assert len([entry async for entry in snapshots.files(first.key)]) == 3
    assert await snapshots.read(first.key, "large") == LARGE[:3_000_000]
    assert {one.key async for one in snapshots.list(labels={"why": "test"})} == {first.key}
    assert all([report.damaged == [] async for report in snapshots.verify(first.key)])
    async with aclosing(holdfast.watch("snapshots", prefix=first.key, since=0)) as events:
        assert (await anext(events)).type == "holdfast.snapshot.ok"
    retention = holdfast.retention
    await retention.set_policy(KeepSnapshots(last=1), app="site")
    assert (await retention.policy("site")).keep is not None
    await retention.hold(first.key)
    assert (await retention.prune("site")).superfluous == 0
    await retention.release(first.key)
    assert (await retention.prune("site")).removed == 1
    assert not await snapshots.delete(first.key)
    assert await snapshots.purge("site") == 1


async def test_snapshots_by_the_client(tmp_path: Path, holdfast: Client) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(LARGE[:5_000_000])
    archive = io.BytesIO()

    record = await holdfast.snapshots.create_from(tree, app="mine")
    await holdfast.snapshots.restore_to(record.key, tmp_path / "copy")
    async for piece in holdfast.snapshots.export(record.key):
        archive.write(piece)

    assert (tmp_path / "copy" / "file").read_bytes() == LARGE[:5_000_000]
    assert archive.getbuffer().nbytes > 4_000_000


async def test_what_is_stored_is_looked_after(holdfast: Client) -> None:
    await holdfast.put(b"to be read back")

    begun = await holdfast.care.scrub(start=True)

    assert begun.here in {place.place for place in begun.places}
    assert (await holdfast.care.doctor()).done
    assert (await holdfast.care.usage("label")).done
    async with asyncio.timeout(60):
        while not await ended(holdfast):  # noqa: ASYNC110  (no event tells)
            await asyncio.sleep(0.2)


async def ended(holdfast: Client) -> bool:
    """Whether some lap has been all the way."""
    laps = [place.last for place in (await holdfast.care.scrub()).places]
    return any(lap is not None and lap.checked and not lap.damaged for lap in laps)


async def test_status_is_told_to_a_client(pool: Pool, holdfast: Client) -> None:
    environment = {
        **os.environ,
        "NATS_URL": pool.server.url,
        "NATS_USER": "client",
        "NATS_PASSWORD": PASSWORDS["CLIENT_PASSWORD"],
    }

    told = ""
    while not all(node in told for node in NODES):  # one that is busy may miss a question
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdfast", "status"),
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )
        told = (await asked.communicate())[0].decode()
        assert asked.returncode == 0


async def test_records_are_changed_and_followed(pool: Pool) -> None:
    config = pool.server.config("worker")
    async with connected(config.nats) as connection:
        inbox = Inbox(connection, config.nats.inbox_prefix)
        stores = open_stores(config, JetStream(connection, inbox), SOURCES)
        for store in (stores.names, stores.snapshots):
            before = await store.extent()

            revision = await store.put("n.x", b"value", expected=0)
            await store.put("n.x", b"grave", expected=revision, grave=True)
            page = await store.changes(before.last)
            end = await store.changes(page.position)

            assert [(change.key, change.value) for change in page.changes] == [("n.x", b"grave")]
            assert end.position == (await store.extent()).last
            await store.batch([Delete(key="n.x")])
    assert pool.server.violations() == []


async def test_the_administrator_looks_after_the_buckets(pool: Pool) -> None:
    found = await init_store(pool.server.config("admin"))

    assert len(found) == 7
    assert pool.server.violations() == []
