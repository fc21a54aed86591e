"""What the disk store of logs does beyond the contract: damage, several processes, groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.contracts.journal import JournalStoreContract, new_id
from tests.stores.disk_tools import in_logs, journal_store

from holdfast.bootstrap.sources import SOURCES
from holdfast.stores.disk.journal import DiskJournalStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from holdfast.stores.journal_ports import JournalStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "states"


@pytest.fixture
async def store(root: Path) -> AsyncGenerator[DiskJournalStore]:
    async with journal_store(root) as store:
        yield store


class TestDiskJournalStore(JournalStoreContract):
    @pytest.fixture
    async def other(self, root: Path, store: DiskJournalStore) -> AsyncGenerator[DiskJournalStore]:
        async with journal_store(root) as other:
            yield other

    @pytest.fixture
    def unreachable_store(self, tmp_path: Path) -> DiskJournalStore:
        return DiskJournalStore(tmp_path / "not mounted", clock=SOURCES.clock)

    async def append_damaged(self, store: JournalStore, log: str, expected: int) -> int:
        assert isinstance(store, DiskJournalStore)
        sequence = await store.append(log, b"sound", expected=expected, message_id=new_id())
        in_logs(store._root, "UPDATE entries SET value = x'53' WHERE sequence = ?", sequence)
        return sequence
