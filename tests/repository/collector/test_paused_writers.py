"""A writer stops between any two of its messages to a nats-server while two collections run.

No time protects anything. When it goes on, what it made is whole, or it is told that it is not; and
the next collection leaves no chunk that no record names.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.contracts.blob_store import put_staged, some_bytes
from tests.handlers.snapshot_service import Shared, Site
from tests.repository.collector.conftest import Deployed, opened
from tests.repository.collector.test_collector import collected
from tests.repository.names.pool import NamesWorker
from tests.repository.pool import PART_BYTES, Time, parts_of
from tests.runtime.test_start_refusals import config_of

from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import open_stores
from holdfast.domain.digest import digest_of
from holdfast.errors import HoldfastError, NotFoundError
from holdfast.repository.blobs import BLOBS, BlobRepository
from holdfast.repository.uploads.owned import Opened
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
    from pathlib import Path

    from holdfast.bootstrap.stores import Stores
    from holdfast.transport.jetstream_messages import BatchMessage
    from holdfast.transport.message import Message

pytestmark = pytest.mark.nats

_EVERY: Final = int(os.environ.get("EVERY", "5"))
"""A snapshot is stopped before each message of so many: it has some sixty."""


class GatedJetStream(JetStream):
    """Stops before one of its requests, counted from 0; a batch counts as one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.left = -1
        self.reached, self.gate = asyncio.Event(), asyncio.Event()

    def stop_before(self, number: int) -> None:
        """From now on."""
        self.left = number
        self.reached.clear()
        self.gate.clear()

    def go_on_to_the_next(self) -> None:
        """It sends the request before which it stands, and stops before the one after that."""
        standing, self.gate = self.gate, asyncio.Event()
        self.stop_before(0)
        standing.set()

    async def _request(
        self, subject: str, data: bytes | memoryview, headers: Mapping[str, str] | None
    ) -> Message:
        await self._pass()
        return await super()._request(subject, data, headers)

    async def _send_batch(self, messages: Sequence[BatchMessage], batch: str) -> Message:
        await self._pass()
        return await super()._send_batch(messages, batch)

    async def _pass(self) -> None:
        self.left -= 1
        if self.left == -1:
            self.reached.set()
            await self.gate.wait()


class Paused:
    """A deployment, and the stores of a writer that can be stopped."""

    def __init__(self, deployed: Deployed, stores: Stores, js: GatedJetStream) -> None:
        self.deployed, self.stores, self.js = deployed, stores, js
        self.time = Time()

    async def run(self, number: int, writing: Awaitable[object]) -> tuple[bool, bool]:
        """Whether it was stopped before request ``number``, and whether it said that all is well.

        While it stands two collections run, and one when it has ended.
        """
        self.js.stop_before(number)
        task = asyncio.ensure_future(writing)
        was_stopped = await self.stands(task)
        if was_stopped:
            for _ in range(2):
                await self.collect()
        self.js.gate.set()
        try:
            await task
        except HoldfastError:
            is_well = False
        else:
            is_well = True
        await self.collect()
        return was_stopped, is_well

    async def stands(self, task: asyncio.Future[Any]) -> bool:
        """Whether ``task`` was stopped, and did not end before."""
        reached = asyncio.ensure_future(self.js.reached.wait())
        await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        return self.js.reached.is_set()

    async def collect(self) -> int:
        """One collection; how many orphans it removed."""
        found = await collected(self.deployed)
        assert [space.failure for space in found.values()] == [None, None]
        return sum(space.orphans.copies for space in found.values())

    def names(self) -> NamesWorker:
        """The names and uploads of the writer."""
        return NamesWorker(
            "w", self.stores.blobs, self.stores.names, self.stores.records, self.time
        )


@pytest.fixture
async def paused(nats_url: str) -> AsyncIterator[Paused]:
    """A fresh deployment, whose grace time is over before it begins."""
    config = config_of(nats_url, prefix=f"p{SOURCES.new_id()}")
    await init_store(config)
    connection = await connect(config.nats)
    js = GatedJetStream(connection, Inbox(connection))
    async with opened(config) as stores:
        deployed = Deployed(config, stores)
        await deployed.change(grace_seconds=-1)
        yield Paused(deployed, open_stores(config, js, SOURCES), js)
    await connection.close()


async def test_a_put_is_whole_or_its_writer_was_told(paused: Paused) -> None:
    blobs = BlobRepository({BLOBS: paused.stores.blobs}, max_inline_bytes=100_000)
    reader = paused.deployed.stores.blobs
    told: list[bool] = []
    was_stopped = True

    while was_stopped:
        data = b"%d" % len(told)
        put = blobs.put(
            data, expected=None, type="a/b", space=BLOBS, now=SOURCES.clock(), op_id=None
        )
        was_stopped, is_well = await paused.run(len(told), put)

        if is_well:
            assert await reader.get(await reader.stat(digest_of(data))) == data
        assert await paused.collect() == 0
        told.append(is_well)

    assert len(told) > 2
    assert False in told
    assert told[-1]


async def test_a_name_is_whole_or_its_writer_was_told(paused: Paused) -> None:
    told: list[bool] = []
    was_stopped = True

    while was_stopped:
        name, data = f"n{len(told)}", b"%d" % len(told)
        was_stopped, is_well = await paused.run(len(told), paused.names().create(name, data))

        found: bytes | None = None
        with suppress(NotFoundError):
            found = await paused.names().read(name)
        assert found in ({data} if is_well else {data, None})
        assert await paused.collect() == 0
        told.append(is_well)

    assert len(told) > 3
    assert told[-1]


async def test_an_upload_is_whole_or_its_sender_was_told(paused: Paused) -> None:
    reader = paused.deployed.stores.blobs

    async def send(data: bytes) -> str:
        uploads = paused.names().uploads
        opened = await uploads.open(size=None, digest=None, type="a/b", op_id=None)
        assert isinstance(opened, Opened)
        try:
            parts = parts_of(data)
            for number, part in enumerate(parts):
                await uploads.part(opened.upload, number, part)
            return (await uploads.final(opened.upload, len(parts), None)).digest
        except HoldfastError:
            with suppress(HoldfastError):
                await uploads.abort(opened.upload)
            raise

    told: list[bool] = []
    was_stopped = True
    while was_stopped:
        data = some_bytes(2 * PART_BYTES + 7, seed=len(told))
        was_stopped, is_well = await paused.run(len(told), send(data))

        if is_well:
            assert await reader.get(await reader.stat(digest_of(data))) == data
        assert await paused.collect() == 0
        told.append(is_well)

    assert len(told) > 5
    assert told[-1]


@pytest.mark.parametrize("is_killed", [True, False])
async def test_a_blob_that_is_healed_slowly_is_whole(paused: Paused, is_killed: bool) -> None:
    """Who heals stops before each of its messages, and again before the one after that."""
    reader = paused.deployed.stores.blobs
    ends: list[object] = []
    was_stopped = True
    while was_stopped:
        data = some_bytes(2 * PART_BYTES + 7, seed=len(ends))
        info = (await put_staged(reader, data)).info
        paused.js.stop_before(len(ends))
        healing = asyncio.ensure_future(paused.stores.blobs.report_damage(info))
        was_stopped = await paused.stands(healing)
        if was_stopped:
            await paused.collect()
            paused.js.go_on_to_the_next()
            await paused.stands(healing)
        if is_killed:
            healing.cancel()
        await paused.collect()
        paused.js.gate.set()
        ends += await asyncio.gather(healing, return_exceptions=True)
        await paused.collect()

        assert await reader.get(await reader.stat(info.digest, sure=True)) == data
        assert await paused.collect() == 0

    assert len(ends) > 8
    assert ends[-1] is True


@pytest.mark.long
async def test_a_snapshot_is_whole_or_its_writer_was_told(paused: Paused, tmp_path: Path) -> None:
    shared = Shared()
    shared.grace = timedelta(seconds=-1)
    shared.stores = paused.stores
    site = Site(shared, tmp_path)
    states: list[str] = []
    was_stopped = True

    async def create() -> None:
        site.write("shop/a", b"%d" % len(states) * 2000)
        states.append((await site.ok("snapshot.create", app="shop", wait_seconds=60))["state"])

    while was_stopped:
        was_stopped, _ = await paused.run(len(states) * _EVERY, create())

        for record in (await site.ok("snapshot.list", app="shop"))["snapshots"]:
            if record["state"] == "ok":
                verified = await site.ok("snapshot.verify", key=record["key"])
                assert verified.get("damaged", []) == [], record
        assert await paused.collect() == 0

    assert len(states) > 30 / _EVERY
    assert states[-1] == "ok"
    await site.service.aclose()
    site.apps.close()
