"""Three servers for the tests of a module, and workers for each test."""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.cluster.servers import Cluster
from tests.cluster.workers import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The servers, started. A test leaves them running."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest_asyncio.fixture
async def pool(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Pool]:
    """Buckets with three replicas, and three workers that serve."""
    async with Pool(cluster, tmp_path / "apps") as pool:
        yield pool


@pytest.fixture
def unhurried() -> None:
    """For tests that take longer than pytest waits before it prints every stack."""
    faulthandler.cancel_dump_traceback_later()
