"""States keep their contract in memory and on disk."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.states import (
    StatesContract,
    check_that_the_end_is_lost,
    fill,
    worker_on,
)

from holdfast.bootstrap.sources import SOURCES
from holdfast.bootstrap.stores import create_on_disk, open_on_disk, open_stores
from holdfast.runtime.config import Config
from holdfast.stores.disk.journal import LOGS_FORM, DiskJournalStore
from holdfast.stores.memory_journal import MemoryJournalStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.contracts.states import MakeWorker

    from holdfast.bootstrap.stores import Stores


@pytest.fixture
def workers(stores: Stores) -> MakeWorker:
    return partial(worker_on, stores)


class StatesOfOneMachine(StatesContract):
    """Those whose stores a test can cut."""

    def lose_two_entries(self, stores: Stores) -> None:
        """Of the end of the log ``s``, the only one."""
        raise NotImplementedError

    async def test_a_log_that_has_lost_its_end_is_damaged_until_it_is_repaired(
        self, workers: MakeWorker, stores: Stores
    ) -> None:
        await fill(workers())

        self.lose_two_entries(stores)

        await check_that_the_end_is_lost(workers)


class TestStatesInMemory(StatesOfOneMachine):
    """In memory."""

    def lose_two_entries(self, stores: Stores) -> None:
        """See above."""
        assert isinstance(stores.states, MemoryJournalStore)
        del stores.states._logs["s"][-2:]

    @pytest.fixture
    def stores(self) -> Stores:
        return open_stores(Config(store="memory://"), None, SOURCES)  # type: ignore[arg-type]


class TestStatesOnDisk(StatesOfOneMachine):
    """On disk."""

    def lose_two_entries(self, stores: Stores) -> None:
        """See above."""
        assert isinstance(stores.states, DiskJournalStore)
        last = "SELECT sequence FROM entries ORDER BY sequence DESC LIMIT 2"
        with closing(sqlite3.connect(stores.states._root / LOGS_FORM.file)) as database, database:
            database.execute(f"DELETE FROM entries WHERE sequence IN ({last})")  # noqa: S608  (a constant)

    @pytest_asyncio.fixture
    async def stores(self, tmp_path: Path) -> AsyncIterator[Stores]:
        create_on_disk(tmp_path)
        stores = open_on_disk(tmp_path, SOURCES)
        yield stores
        await stores.aclose()
