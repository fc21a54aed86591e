"""States keep their contract in JetStream, also where it does not say what it has done."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.states import (
    StatesContract,
    check_that_the_end_is_lost,
    fill,
    marked,
    worker_on,
)
from tests.nats.tools import FlakyJetStream, Times, connected, damage_block
from tests.repository.states.pool import StatesWorker, code_of

from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import open_stores
from holdfast.errors import QuotaExceededError
from holdfast.runtime.config import Config
from holdfast.transport.inbox import Inbox
from holdfast.transport.options import NatsOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.conftest import StartServer
    from tests.contracts.states import MakeWorker

    from holdfast.bootstrap.stores import Stores

pytestmark = pytest.mark.nats


@pytest_asyncio.fixture
async def jetstream(nats_url: str) -> AsyncIterator[FlakyJetStream]:
    async with connected(NatsOptions(servers=(nats_url,))) as connection:
        yield FlakyJetStream(connection, Inbox(connection))


@pytest_asyncio.fixture
async def stores(nats_url: str, jetstream: FlakyJetStream) -> Stores:
    prefix = f"s{secrets.token_hex(4)}"
    config = Config(nats=NatsOptions(servers=(nats_url,)), prefix=prefix)
    await init_store(config)
    return open_stores(config, jetstream, SOURCES)


@pytest.fixture
def workers(stores: Stores) -> MakeWorker:
    return partial(worker_on, stores)


class TestStatesInStreams(StatesContract):
    """In JetStream."""

    @pytest.mark.parametrize("count", [1, 2, 3])
    @pytest.mark.parametrize("lost", ["lose_request", "lose_answer"])
    async def test_what_nobody_heard_of_is_in_the_log_once(
        self, workers: MakeWorker, jetstream: FlakyJetStream, lost: str, count: int
    ) -> None:
        worker, other = workers(), workers()
        await worker.append("s", 0)
        setattr(jetstream, lost, Times(count, is_append))

        runs = await asyncio.gather(
            *(worker.append("s", n) for n in (1, 2)), *(other.append("s", n) for n in (3, 4))
        )

        assert sorted(run.index for run in runs) == [2, 3, 4, 5]
        log = await workers().replay("s")
        assert {run.index: n for n, run in enumerate(runs, start=1)} == {
            index: command for index, command in enumerate(log, start=1) if command
        }


@pytest.mark.fault("N13")
async def test_a_log_whose_block_a_server_has_cut_is_damaged_until_it_is_repaired(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(directory=tmp_path)
    config = Config(nats=NatsOptions(servers=(server.url,)))
    await init_store(config)
    async with connected(config.nats) as connection:
        stores = open_stores(config, FlakyJetStream(connection, Inbox(connection)), SOURCES)
        await fill(worker_on(stores))
    server.stop()
    damage_block(tmp_path, marked(5).encode(), index_is_lost=True)
    server = start_server(directory=tmp_path)

    config = Config(nats=NatsOptions(servers=(server.url,)))
    async with connected(config.nats) as connection:
        stores = open_stores(config, FlakyJetStream(connection, Inbox(connection)), SOURCES)
        assert await code_of(worker_on(stores).append("s", "x")) == "unavailable"
        stores.states.catch_up_seconds = 0.0
        await check_that_the_end_is_lost(partial(worker_on, stores))


async def test_a_full_stream_takes_no_commands_and_everything_else_goes_on(
    nats_url: str, jetstream: FlakyJetStream
) -> None:
    prefix = f"s{secrets.token_hex(4)}"
    store = "nats://blobs?states_max_bytes=200000"
    config = Config(nats=NatsOptions(servers=(nats_url,)), prefix=prefix, store=store)
    await init_store(config)
    stores = open_stores(config, jetstream, SOURCES)
    worker = worker_on(stores)
    count = await filled_with(worker, "x" * 10_000)

    assert len(await worker.replay("s")) == count
    for index in (count - 1, count):
        await worker.save("s", b"%d" % index, index)
    assert (await worker.latest("s")).data == b"%d" % count
    await worker.upkeep.trim("s", count - 1)
    assert (await worker.append("s", "x" * 10_000)).index == count + 1
    await filled_with(worker, "x" * 10_000)
    await filled_with(worker, "")
    assert await worker.upkeep.remove("s")
    assert (await worker_on(stores).append("s", "x" * 100_000)).index == 1


async def filled_with(worker: StatesWorker, command: str) -> int:
    """Append it until the stream takes no more; how often."""
    for count in itertools.count():
        try:
            await worker.append("s", command)
        except QuotaExceededError:
            return count
    raise AssertionError


def is_append(subject: str, _: Mapping[str, str]) -> bool:
    """Whether a request appends to a log."""
    return subject.startswith("$HF.")
