"""A pool of two workers for the whole of a module, clients of it, and names for its tests."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient
from tests.deployment import Asker, Deployment, deployed

from holdfast.client import Client, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from holdfast.runtime.embedded import EmbeddedServer

SECONDS: Final = 60.0


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """A prefix with two workers, which serve for as long as the module's tests run."""
    with deployed(nats_server.url, "one", "two") as deployment:
        yield deployment


@pytest.fixture
def pool(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """Two workers, which a test may kill."""
    with deployed(nats_server.url, "one", "two") as deployment:
        yield deployment


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name of this test alone: the tests of a module share a deployment."""
    return f"{request.node.name}/é"


@asynccontextmanager
async def another(deployment: Deployment) -> AsyncIterator[Client]:
    """A client of another program, which waits no longer than ``SECONDS``."""
    async with (
        asyncio.timeout(SECONDS),
        await connect(servers=deployment.url, prefix=deployment.prefix) as client,
    ):
        yield client


@pytest_asyncio.fixture
async def holdfast(deployment: Deployment) -> AsyncIterator[Client]:
    """The client under test."""
    async with await connect(servers=deployment.url, prefix=deployment.prefix) as client:
        yield client


@pytest_asyncio.fixture
async def ask(deployment: Deployment) -> AsyncIterator[Asker]:
    """Plain requests, to look at the pool from beside the client."""
    client = NatsClient()
    await client.connect(deployment.url)
    yield Asker(deployment, client)
    await client.close()
