"""Names of blobs on stores in memory: workers that share them, and time that a test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.repository.pool import PART_BYTES, Time

from holdfast.domain.blob_names import Conditions, Said
from holdfast.repository.blobs import BLOBS, BlobRepository
from holdfast.repository.names.bytes import NamedBytes
from holdfast.repository.names.names import NameRepository
from holdfast.repository.names.past import PastWrites
from holdfast.repository.names.rules import NameRules
from holdfast.repository.names.targets import NameTargets
from holdfast.repository.names.writes import NameWrites
from holdfast.repository.uploads.owned import UploadLimits
from holdfast.repository.uploads.uploads import UploadService
from holdfast.stores.memory import MemoryBlobStore, MemoryRecordStore

if TYPE_CHECKING:
    from holdfast.repository.names.record import VersionRecord
    from holdfast.repository.targets import Named
    from holdfast.stores.ports import BlobStore
    from holdfast.stores.record_ports import RecordStore

MAX_INLINE_BYTES = 64 * 1024


class NamesWorker:
    """One worker's names and uploads."""

    def __init__(
        self,
        worker: str,
        blobs: BlobStore,
        names: RecordStore,
        records: RecordStore,
        time: Time,
    ) -> None:
        sources = time.sources
        rules = NameRules(names, monotonic=time.monotonic)
        past = PastWrites(records, sources.clock)
        self.writes = NameWrites(names, rules, past, worker=worker, sources=sources)
        stored = NamedBytes(blobs, sources)
        self.uploads = UploadService(
            blobs,
            records,
            owner=worker,
            part_size=PART_BYTES,
            sources=sources,
            limits=UploadLimits(),
            targets=NameTargets(self.writes, stored, sources),
        )
        self.names = NameRepository(
            BlobRepository({BLOBS: blobs}, max_inline_bytes=MAX_INLINE_BYTES),
            stored,
            self.writes,
            rules,
            sources=sources,
        )

    async def create(
        self, name: str, data: bytes, *, op_id: str | None = None, said: Said | None = None
    ) -> Named:
        """See `NameRepository.create`."""
        return await self.names.put(
            "create", name, data, said or Said(), expected=None, op_id=op_id
        )

    async def replace(
        self, name: str, data: bytes, *, op_id: str | None = None, said: Said | None = None
    ) -> Named:
        """See `NameRepository.replace`."""
        return await self.names.put(
            "replace", name, data, said or Said(), expected=None, op_id=op_id
        )

    async def copy(
        self, name: str, source: str, *, version: int | None = None, op_id: str | None = None
    ) -> Named:
        """A copy of one name onto another, whatever that has."""
        return await self.names.copy(
            name, source=source, version=version, digest=None, conditions=Conditions(), op_id=op_id
        )

    async def rename(self, name: str, source: str, *, op_id: str | None = None) -> Named:
        """See `NameRepository.rename`."""
        return await self.names.rename(name, source, conditions=Conditions(), op_id=op_id)

    async def delete(
        self, name: str, *, if_version: int | None = None, op_id: str | None = None
    ) -> bool:
        """See `NameRepository.delete`."""
        conditions = Conditions(if_version=if_version)
        return await self.names.delete(name, conditions=conditions, op_id=op_id)

    async def read(self, name: str, *, version: int | None = None) -> bytes:
        """All bytes that a name has."""
        *_, content = await self.names.read(name, version=version)
        return bytes(content.data)

    async def find(self, name: str, *, version: int | None = None) -> VersionRecord:
        """See `NameRepository.find`."""
        return await self.names.find(name, version=version)


class NamesPool:
    """Stores in memory, and the workers on them."""

    def __init__(self) -> None:
        self.time = Time()
        self.blobs = MemoryBlobStore()
        self.names = MemoryRecordStore(self.time.monotonic)
        self.records = MemoryRecordStore(self.time.monotonic)

    def worker(self, name: str = "a") -> NamesWorker:
        """A worker that sees the stores as they are."""
        return NamesWorker(name, self.blobs, self.names, self.records, self.time)
