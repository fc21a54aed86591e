"""One worker for the whole of a module, and plain requests to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from nats.aio.client import Client
from tests.deployment import Asker, Deployment, deployed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from holdfast.runtime.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def deployment(nats_server: EmbeddedServer) -> Iterator[Deployment]:
    """A prefix with one worker, which serves for as long as the module's tests run."""
    with deployed(nats_server.url, "one") as deployment:
        yield deployment


@pytest_asyncio.fixture
async def client(deployment: Deployment) -> AsyncIterator[Client]:
    """nats-py's own client, with no holdfast around it."""
    client = Client()
    await client.connect(deployment.url)
    yield client
    await client.close()


@pytest.fixture
def ask(deployment: Deployment, client: Client) -> Asker:
    """Sends raw requests to the worker."""
    return Asker(deployment, client)
