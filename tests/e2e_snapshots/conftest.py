"""A real server, worker processes with a directory of apps, and requests to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from nats.aio.client import Client
from tests.deployment import deployed
from tests.e2e_snapshots.site import NODE, Site

from holdfast.runtime.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A server that does not wait for the disk: what is tested here is not power cuts.

    Every deployment has a prefix of its own on it.
    """
    directory = tmp_path_factory.mktemp("nats")
    with EmbeddedServer.start(directory, sync_interval="2m") as server:
        yield server


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of apps of the worker."""
    return tmp_path_factory.mktemp("apps")


@pytest.fixture(scope="module")
def running(server: EmbeddedServer, apps: Path) -> Iterator[Site]:
    """One worker for all tests of a module."""
    with deployed(server.url, NODE, apps=str(apps)) as deployment:
        yield Site(deployment, apps)


@pytest_asyncio.fixture
async def site(running: Site) -> AsyncIterator[Site]:
    """The same, with a connection of this test's own."""
    client = Client()
    await client.connect(running.deployment.url)
    yield running.over(client)
    await client.close()
