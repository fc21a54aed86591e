"""The memory stores keep the contract, so that other tests may stand on them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.contracts.blob_changes import BlobChangesContract
from tests.contracts.blob_collecting import BlobCollectingContract
from tests.contracts.blob_model import BlobStoreModel, run_model
from tests.contracts.blob_repacking import BlobRepackingContract
from tests.contracts.blob_store import BlobStoreContract, lose_everything
from tests.contracts.journal import JournalStoreContract, new_id
from tests.contracts.record_store import RecordStoreContract
from tests.examples import at_length

from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore
from holdfast.stores.memory_journal import MemoryJournalStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from holdfast.domain.digest import Digest
    from holdfast.stores.journal_ports import JournalStore
    from holdfast.stores.ports import BlobStore


class FakeMonotonic:
    """Seconds that rise when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestMemoryBlobStore(
    BlobRepackingContract, BlobCollectingContract, BlobChangesContract, BlobStoreContract
):
    @pytest.fixture
    def store(self) -> MemoryBlobStore:
        return MemoryBlobStore()

    @pytest.fixture
    def unreachable_store(self) -> MemoryBlobStore:
        store = MemoryBlobStore()
        store.reachable = False
        return store

    async def alter(
        self, store: BlobStore, digest: Digest, mutate: Callable[[bytes], bytes]
    ) -> None:
        assert isinstance(store, MemoryBlobStore)
        store._blobs[digest].data = mutate(store._blobs[digest].data)

    async def lose(self, store: BlobStore, digest: Digest) -> None:
        await self.alter(store, digest, lose_everything)

    async def leftovers(self, store: BlobStore) -> int:
        assert isinstance(store, MemoryBlobStore)
        return sum(len(parts) for parts in store._staged.values())


class TestMemoryJournalStore(JournalStoreContract):
    @pytest.fixture
    def store(self) -> MemoryJournalStore:
        return MemoryJournalStore()

    @pytest.fixture
    def other(self, store: MemoryJournalStore) -> MemoryJournalStore:
        return store

    @pytest.fixture
    def unreachable_store(self) -> MemoryJournalStore:
        store = MemoryJournalStore()
        store.reachable = False
        return store

    async def append_damaged(self, store: JournalStore, log: str, expected: int) -> int:
        assert isinstance(store, MemoryJournalStore)
        sequence = await store.append(log, b"sound", expected=expected, message_id=new_id())
        row = store._logs[log][-1]
        row.entry = replace(row.entry, value=b"Sound")
        return sequence


class TestMemoryRecordStore(RecordStoreContract):
    @pytest.fixture
    def monotonic(self) -> FakeMonotonic:
        return FakeMonotonic()

    @pytest.fixture
    def store(self, monotonic: FakeMonotonic) -> MemoryRecordStore:
        return MemoryRecordStore(monotonic)

    @pytest.fixture
    def unreachable_store(self, monotonic: FakeMonotonic) -> MemoryRecordStore:
        store = MemoryRecordStore(monotonic)
        store.reachable = False
        return store

    @pytest.fixture
    def pass_time(self, monotonic: FakeMonotonic) -> Callable[[timedelta], Awaitable[None]]:
        async def pass_time(duration: timedelta) -> None:
            monotonic.now += duration.total_seconds()

        return pass_time

    @pytest.fixture
    def clean_up(self) -> Callable[[], Awaitable[None]]:
        async def clean_up() -> None:
            """It forgets at once."""

        return clean_up

    @pytest.fixture
    def made_anew(self, monotonic: FakeMonotonic) -> Callable[[], Awaitable[MemoryRecordStore]]:
        async def made_anew() -> MemoryRecordStore:
            return MemoryRecordStore(monotonic)

        return made_anew


class MemoryModel(BlobStoreModel):
    async def open_store(self) -> BlobStore:
        return MemoryBlobStore()

    async def lose(self, digest: Digest) -> None:
        assert isinstance(self.store, MemoryBlobStore)
        self.store._blobs[digest].data = b""


@pytest.mark.parametrize("histories", at_length(20, 120))
def test_any_sequence_of_operations_leaves_the_memory_store_looking_like_a_dict(
    histories: int,
) -> None:
    run_model(MemoryModel, max_examples=histories)
