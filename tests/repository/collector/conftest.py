"""Deployments of each kind whose grace time is over before it begins: time protects nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
import pytest_asyncio
from tests.runtime.test_start_refusals import config_of

from holdfast.bootstrap.admin import init_store
from holdfast.bootstrap.collector import assemble_collector
from holdfast.bootstrap.names import NameParts
from holdfast.bootstrap.setup import Setup
from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import open_stores
from holdfast.bootstrap.worker import PATIENCE_SECONDS
from holdfast.domain.limits import MIB
from holdfast.stores.deployment import KEY, Deployment
from holdfast.transport.connection import connect
from holdfast.transport.inbox import Inbox
from holdfast.transport.jetstream import JetStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.bootstrap.stores import Stores
    from holdfast.repository.collector.collector import Collector
    from holdfast.runtime.config import Config


class Deployed:
    """The stores of a deployment, and collectors of its workers."""

    def __init__(self, config: Config, stores: Stores) -> None:
        self.config = config
        self.stores = stores

    def collector(self, *, skew: timedelta = timedelta(0)) -> Collector:
        """That of one more worker, whose clock is ahead by ``skew``."""
        setup = Setup(
            config=self.config,
            sources=replace(SOURCES, clock=lambda: SOURCES.clock() + skew),
            worker="w",
            max_payload=MIB,
            grace=timedelta(seconds=-1),
        )
        return assemble_collector(setup, self.stores, NameParts(setup, self.stores))

    async def record(self) -> Deployment:
        """The deployment's record."""
        return msgspec.json.decode((await self.stores.records.get(KEY)).value, type=Deployment)

    async def change(self, **fields: object) -> None:
        """Change what is recorded."""
        found = await self.stores.records.get(KEY)
        record = msgspec.json.decode(found.value, type=Deployment)
        changed = msgspec.structs.replace(record, **fields)
        await self.stores.records.put(KEY, msgspec.json.encode(changed), expected=found.revision)


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[Stores]:
    """The stores as a worker has them."""
    if not config.store.startswith("nats:"):
        stores = open_stores(config, None, SOURCES)  # type: ignore[arg-type]
        try:
            yield stores
        finally:
            await stores.aclose()
        return
    connection = await connect(config.nats)
    try:
        inbox = Inbox(connection)
        jetstream = JetStream(connection, inbox, patience_seconds=PATIENCE_SECONDS)
        stores = open_stores(config, jetstream, SOURCES)
        try:
            yield stores
        finally:
            await stores.aclose()
    finally:
        await connection.close()


@asynccontextmanager
async def without_grace(config: Config) -> AsyncIterator[Deployed]:
    """A fresh deployment, in which a collection may take everything that nothing needs."""
    await init_store(config)
    async with opened(config) as stores:
        await stores.check()
        deployed = Deployed(config, stores)
        await deployed.change(grace_seconds=-1)
        yield deployed


@pytest_asyncio.fixture(params=["memory", "disk", pytest.param("nats", marks=pytest.mark.nats)])
async def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployed]:
    """A fresh deployment."""
    kind = request.param
    url = request.getfixturevalue("nats_url") if kind == "nats" else "nats://127.0.0.1:1"
    stores = {"memory": "memory://", "disk": f"disk://{tmp_path}/store", "nats": "nats://blobs"}
    config = config_of(url, store=stores[kind], prefix=f"c{SOURCES.new_id()}")
    async with without_grace(config) as deployed:
        yield deployed
