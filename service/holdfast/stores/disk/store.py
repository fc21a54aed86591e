"""A blob store in a directory of one machine.

The same bytes have the same address as in every other store. This module only takes the blocking
work off the event loop; what is done to files, and why it survives a crash, is in ``blobs`` and
``staging``. No file stays open between two calls, so a reader may pause or go away.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from contextlib import aclosing, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Concatenate, Final

from holdfast.domain.op_id import is_repeat
from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.stores.disk.blob_changes import BlobLog
from holdfast.stores.disk.blob_file import READ_BYTES
from holdfast.stores.disk.blobs import BlobFiles
from holdfast.stores.disk.files import FailStop, Files, check_disk_store, confirm_disk_store
from holdfast.stores.disk.format import header_of
from holdfast.stores.disk.staging import DiskLeftovers, StagingFiles
from holdfast.stores.ports import Fetched, info_of, part_ranges
from holdfast.stores.record_ports import CHANGES_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Buffer, Callable, Coroutine, Iterator
    from datetime import datetime, timedelta
    from pathlib import Path

    from holdfast.domain.digest import Digest
    from holdfast.sources import Sources
    from holdfast.stores.disk.blob_file import FileIdentity
    from holdfast.stores.disk.format import BlobHeader
    from holdfast.stores.ports import (
        Attributes,
        BlobChanges,
        BlobInfo,
        Claiming,
        Keeping,
        Spending,
        Stored,
    )
    from holdfast.stores.record_ports import Extent

_DELETE_ATTEMPTS: Final = 16


def _in_thread[**P, T](
    method: Callable[Concatenate[BlobFiles, P], T],
) -> Callable[Concatenate[DiskBlobStore, P], Coroutine[Any, Any, T]]:
    """``method``, which blocks, off the event loop."""

    @functools.wraps(method)
    async def call(self: DiskBlobStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(method, self._blobs, *args, **kwargs)

    return call


class DiskBlobStore:
    """A `BlobStore` under ``root``, which ``create_disk_store`` has made.

    Several processes may use one root.
    """

    stat = _in_thread(BlobFiles.stat)
    missing = _in_thread(BlobFiles.missing)
    touch = _in_thread(BlobFiles.touch)
    now = _in_thread(BlobFiles.now)
    list_blobs = _in_thread(BlobFiles.list_blobs)
    survey = _in_thread(BlobFiles.survey)
    collect = _in_thread(BlobFiles.collect)
    repack = _in_thread(BlobFiles.repack)

    def __init__(self, root: Path, *, sources: Sources, files: Files | None = None) -> None:
        self._root = root
        self._new_id = sources.new_id
        self._files = FailStop(files or Files())
        self._blobs = BlobFiles(root, self._files, sources)
        self._staging = StagingFiles(root, self._files, sources.new_id)
        self._leftovers = DiskLeftovers(self._staging)
        self._log = BlobLog(root, self._blobs, self._files, sources)

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See `BlobStore.put`. A whole copy of a blob that is there but damaged is stored."""
        with memoryview(data) as view:
            size = view.nbytes
        part_size, fresh = max(size, 1), self._new_id()
        info = info_of(digest, size, attributes, part_size=part_size, generation=fresh)
        header = header_of(info, attributes.op_id)
        return await asyncio.to_thread(
            self._blobs.put,
            header,
            lambda: [data],
            lambda found: _repeats(header, found),
            touches=attributes.touches,
        )

    async def get(self, info: BlobInfo) -> bytes:
        """See `BlobStore.get`."""
        return b"".join([piece async for piece in self._read_whole(info)])

    async def fetch(self, digest: Digest, at_most: int) -> Fetched:
        """See `BlobStore.fetch`."""
        info = await self.stat(digest)
        return Fetched(info=info, data=await self.get(info) if info.size <= at_most else None)

    def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See `BlobStore.read`. A part of a blob is read after the whole has been checked."""
        if (start, stop) == (0, info.size):
            return self._read_whole(info)
        return self._read_range(info, start, stop)

    async def delete(
        self, digest: Digest, *, op_id: str | None = None, kept: Keeping | None = None
    ) -> bool:
        """See `BlobStore.delete`. To mark a blob its file is copied."""
        if kept is None:
            return bool(await asyncio.to_thread(self._blobs.delete, digest, op_id))
        for _ in range(_DELETE_ATTEMPTS):
            seen = await asyncio.to_thread(self._blobs.look, digest)
            is_kept = seen.is_there and await kept()
            forget = self._blobs.hide if is_kept else self._blobs.delete
            forgotten = await asyncio.to_thread(forget, digest, op_id, seen)
            if forgotten is not None:
                return forgotten
        raise ConflictError("others kept changing the blob")

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`. A damaged file is moved aside."""
        async with aclosing(self._read_whole(info)) as pieces:
            async for piece in pieces:
                await spend(memoryview(piece).nbytes)

    async def report_damage(self, info: BlobInfo) -> bool:
        """See `BlobStore.report_damage`. It is read again, and moved aside unless it is intact."""
        with suppress(NotFoundError, CorruptError):
            await asyncio.to_thread(self._blobs.verify, info)
        return False

    async def extent(self) -> Extent:
        """See `BlobStore.extent`."""
        return await self._log.extent()

    async def count(self) -> None:
        """See `BlobStore.count`. A file that was removed leaves nothing for good."""

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> BlobChanges:
        """See `BlobStore.changes`. Touches and pins are left out."""
        return await self._log.page(after, limit)

    def stage(self, staging: str, part_size: int) -> _DiskStagedBlob:
        """See `BlobStore.stage`."""
        return _DiskStagedBlob(self._blobs, self._staging, staging, part_size)

    async def staged_parts(self, staging: str) -> AsyncIterator[Buffer]:
        """See `BlobStore.staged_parts`."""
        for part in count():
            data = await asyncio.to_thread(self._staging.read, staging, part)
            if data is None:
                await asyncio.to_thread(confirm_disk_store, self._root)
                return
            yield data

    async def discard_staged(self, staging: str) -> None:
        """See `BlobStore.discard_staged`."""
        await asyncio.to_thread(self._staging.discard, staging)

    def leftovers(self) -> DiskLeftovers:
        """See `BlobStore.leftovers`."""
        return self._leftovers

    def direct_delivery(self) -> None:
        """None: only the worker can send bytes from its disk."""

    async def sweep(self, now: datetime, grace: timedelta) -> int:
        """Remove temporary files and parts left by a crash ``grace`` or longer ago; how many.

        ``grace`` must be longer than any upload pauses.
        """
        return await asyncio.to_thread(self._staging.sweep, (now - grace).timestamp())

    async def check(self) -> None:
        """See `BlobStore.check`."""
        await asyncio.to_thread(check_disk_store, self._root, self._files)

    async def aclose(self) -> None:
        """Close the log of changes; nothing else is held open between two calls."""
        await self._log.aclose()

    async def _read_whole(self, info: BlobInfo) -> AsyncGenerator[Buffer]:
        hasher = hashlib.sha256()
        for start, stop in _steps(info, 0, info.size):
            data = await asyncio.to_thread(self._read_hashed, info, start, stop, hasher)
            if stop == info.size and hasher.hexdigest() != info.stored_digest:
                await asyncio.to_thread(self._blobs.verify, info)  # moves a bad file aside
                msg = f"the stored bytes of blob {info.digest} changed while they were read"
                raise CorruptError(msg)
            for first, last in part_ranges(start, stop, info.part_size):
                yield memoryview(data)[first - start : last - start]

    async def _read_range(
        self, info: BlobInfo, range_start: int, range_stop: int
    ) -> AsyncGenerator[Buffer]:
        trusted: FileIdentity | None = None
        for start, stop in _steps(info, range_start, range_stop):
            data, trusted = await asyncio.to_thread(
                self._blobs.read_verified, info, start, stop, trusted
            )
            for first, last in part_ranges(start, stop, info.part_size):
                yield memoryview(data)[first - start : last - start]

    def _read_hashed(self, info: BlobInfo, start: int, stop: int, hasher: hashlib._Hash) -> bytes:
        data = self._blobs.read(info, start, stop)
        hasher.update(data)
        return data


class _DiskStagedBlob:
    def __init__(self, blobs: BlobFiles, staging: StagingFiles, name: str, part_size: int) -> None:
        self._blobs: Final = blobs
        self._staging: Final = staging
        self._name: Final = name
        self._part_size: Final = part_size
        self._prepared = False

    async def write(self, part: int, data: Buffer) -> None:
        if not self._prepared:  # calls that overlap here each make sure
            await asyncio.to_thread(self._staging.prepare, self._name)
            self._prepared = True
        await asyncio.to_thread(self._staging.write, self._name, part, data)

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        likely_new: bool = False,
    ) -> Stored:
        del likely_new  # to look costs nothing
        info = info_of(digest, size, attributes, part_size=self._part_size, generation=self._name)
        header = header_of(info, attributes.op_id)
        # The parts are copied into the blob's file: a later discard of them spoils nothing, and
        # who did so before makes this end without a blob. One claim is enough.
        if claim is not None and not await asyncio.to_thread(self._blobs.has, digest):
            await claim(self._name)
        return await asyncio.to_thread(self._commit, header, touches=attributes.touches)

    async def discard(self) -> None:
        await asyncio.to_thread(self._staging.discard, self._name)

    def _commit(self, header: BlobHeader, *, touches: bool) -> Stored:
        stored = self._blobs.put(
            header,
            lambda: self._staging.parts(self._name),
            lambda found: found.generation == self._name or _repeats(header, found),
            touches=touches,
        )
        with suppress(UnavailableError, QuotaExceededError):  # it is stored; the rest is swept
            self._staging.discard(self._name)
        return stored


def _repeats(header: BlobHeader, found: BlobHeader) -> bool:
    return is_repeat(found.op_id, header.op_id)


def _steps(info: BlobInfo, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The ranges to read one after another: whole parts, about ``READ_BYTES`` of them at once.

    An empty range is one step too: whether the blob is there is asked in any case.
    """
    if start == stop:
        return iter([(start, stop)])
    return part_ranges(start, stop, max(READ_BYTES // info.part_size, 1) * info.part_size)
