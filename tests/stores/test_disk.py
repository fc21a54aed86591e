"""The disk stores keep the contract."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from tests.contracts.blob_changes import BlobChangesContract
from tests.contracts.blob_collecting import BlobCollectingContract
from tests.contracts.blob_model import BlobStoreModel, run_model
from tests.contracts.blob_repacking import BlobRepackingContract
from tests.contracts.blob_store import BlobStoreContract, SpoiltRecordContract, lose_everything
from tests.contracts.record_store import RecordStoreContract
from tests.examples import at_length
from tests.stores.disk_tools import (
    FakeClock,
    alter_blob,
    blob_path,
    blob_store,
    leftover_files,
    record_store,
)

from holdfast.bootstrap.sources import SOURCES
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.disk.store import DiskBlobStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobStore


class TestDiskBlobStore(
    BlobRepackingContract,
    BlobCollectingContract,
    BlobChangesContract,
    SpoiltRecordContract,
    BlobStoreContract,
):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest_asyncio.fixture
    async def store(self, root: Path) -> AsyncGenerator[DiskBlobStore]:
        async with aclosing(blob_store(root)) as store:
            yield store

    @pytest.fixture
    def unreachable_store(self, tmp_path: Path) -> DiskBlobStore:
        empty_mount_point = tmp_path / "not-mounted"
        empty_mount_point.mkdir()
        return DiskBlobStore(empty_mount_point, sources=SOURCES)

    @pytest.fixture(autouse=True)
    def _root_for_the_hooks(self, root: Path) -> None:
        self.store_root = root

    async def alter(
        self, store: BlobStore, digest: Digest, mutate: Callable[[bytes], bytes]
    ) -> None:
        alter_blob(self.store_root, digest, mutate)

    async def lose(self, store: BlobStore, digest: Digest) -> None:
        alter_blob(self.store_root, digest, lose_everything)

    async def spoil_record(self, store: BlobStore, digest: Digest) -> None:
        path = blob_path(self.store_root, digest)
        path.write_bytes(b"no header\n" + path.read_bytes())

    async def leftovers(self, store: BlobStore) -> int:
        return len(leftover_files(self.store_root))


class TestDiskRecordStore(RecordStoreContract):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    async def store(self, tmp_path: Path, clock: FakeClock) -> AsyncGenerator[DiskRecordStore]:
        async with record_store(tmp_path / "store", clock=clock) as store:
            yield store

    @pytest.fixture
    def unreachable_store(self, tmp_path: Path, clock: FakeClock) -> DiskRecordStore:
        return DiskRecordStore(tmp_path / "not-mounted", clock=clock)

    @pytest.fixture
    def pass_time(self, clock: FakeClock) -> Callable[[timedelta], Awaitable[None]]:
        async def pass_time(duration: timedelta) -> None:
            clock.pass_time(duration)

        return pass_time

    @pytest.fixture
    def clean_up(self, store: DiskRecordStore, clock: FakeClock) -> Callable[[], Awaitable[None]]:
        async def clean_up() -> None:
            clock.pass_time(timedelta(days=1))
            await store.sweep(clock.now, timedelta(hours=1))

        return clean_up

    @pytest.fixture
    def made_anew(
        self, store: DiskRecordStore, tmp_path: Path
    ) -> Callable[[], Awaitable[DiskRecordStore]]:
        async def made_anew() -> DiskRecordStore:
            shutil.rmtree(tmp_path / "store")
            create_record_store(tmp_path / "store")
            return store

        return made_anew


class DiskModel(BlobStoreModel):
    async def open_store(self) -> BlobStore:
        self.root = Path(tempfile.mkdtemp())
        return blob_store(self.root)

    async def close_store(self, store: BlobStore) -> None:
        await store.aclose()
        shutil.rmtree(self.root)

    async def lose(self, digest: Digest) -> None:
        alter_blob(self.root, digest, lose_everything)


@pytest.mark.parametrize("histories", at_length(10, 30))
def test_any_sequence_of_operations_leaves_the_disk_store_looking_like_a_dict(
    histories: int,
) -> None:
    run_model(DiskModel, max_examples=histories)
