"""States keep their contract in memory and on disk."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.states import StatesContract, worker_on

from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import create_on_disk, open_on_disk, open_stores
from holdfast.runtime.config import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.contracts.states import MakeWorker

    from holdfast.bootstrap.stores import Stores


@pytest.fixture
def workers(stores: Stores) -> MakeWorker:
    return partial(worker_on, stores)


class TestStatesInMemory(StatesContract):
    """In memory."""

    @pytest.fixture
    def stores(self) -> Stores:
        return open_stores(Config(store="memory://"), None, SOURCES)  # type: ignore[arg-type]


class TestStatesOnDisk(StatesContract):
    """On disk."""

    @pytest_asyncio.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        create_on_disk(tmp_path)
        stores = open_on_disk(tmp_path, SOURCES)
        yield stores
        await stores.aclose()
