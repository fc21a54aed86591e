"""The blobs of saves: put without a pin, kept by the state's record, read back."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest
from holdfast.errors import CorruptError, NotFoundError
from holdfast.stores.copies import read_latest
from holdfast.stores.ports import Attributes, BlobInfo, BlobStore

if TYPE_CHECKING:
    from holdfast.repository.states.record import SaveEntry, SaveForm
    from holdfast.sources import Sources

TYPES: Final = {"json": "application/json", "bytes": "application/octet-stream"}
_ALWAYS: Final = datetime.max.replace(tzinfo=UTC)


class SavedBytes:
    """Stores the bytes of saves."""

    def __init__(self, blobs: BlobStore, sources: Sources) -> None:
        """The users' blobs."""
        self._blobs = blobs
        self._sources = sources

    async def put(self, digest: Digest, data: bytes, kind: SaveForm) -> None:
        """Have ``data`` stored, and touched if it was: no collector that looks now removes it."""
        attributes = Attributes(
            type=TYPES[kind], created_at=self._sources.clock(), pinned=False, touches=True
        )
        await self._blobs.put(digest, data, attributes)

    async def size(self, digest: Digest) -> int:
        """A blob's size. Raises NotFoundError."""
        return (await self._blobs.stat(digest, sure=True)).size

    async def is_there(self, digest: Digest) -> bool:
        """Whether there is such a blob, damaged or not."""
        try:
            await self.size(digest)
        except NotFoundError:
            return False
        return True

    async def touch(self, digest: Digest) -> bool:
        """Have those who are about to remove a blob leave it; is it there, and whole?

        To be asked once a record names it: collections and deletions see either. A blob that was
        put just now is touched, too, for it may be deleted at any age.
        """
        return await self._blobs.touch(digest, unless_seen_since=_ALWAYS)

    async def read(self, digest: Digest, at_most: int) -> bytes | None:
        """The bytes of a blob, checked; None of more than ``at_most``.

        Raises NotFoundError, CorruptError.
        """
        fetched = await self._blobs.fetch(digest, at_most)
        return None if fetched.data is None else bytes(fetched.data)

    async def fetch(self, save: SaveEntry, at_most: int) -> bytes | None:
        """The bytes of a save, checked; None of more than ``at_most``, which are there.

        Those are to be read by their digest: if somebody has deleted that they are had back. Raises
        NotFoundError, CorruptError.
        """
        digest = Digest(save.digest)
        if save.size <= at_most and (data := await self.read(digest, at_most)) is not None:
            return data
        info = await self._blobs.stat(digest, sure=True)
        if info.damaged:
            raise CorruptError("the blob of the save is damaged")
        if info.deleted:
            await self.touch(digest)
        return None

    async def is_good(self, save: SaveEntry) -> bool:
        """Whether every byte of the save is as it was."""
        try:
            info = await self._blobs.stat(Digest(save.digest), sure=True)
            await read_latest(self._blobs, info, self._read_through)
        except (NotFoundError, CorruptError):
            return False
        return True

    async def _read_through(self, info: BlobInfo) -> None:
        """Read and check every byte of a blob. Raises NotFoundError, CorruptError."""
        async with aclosing(self._blobs.read(info, 0, info.size)) as pieces:
            async for _ in pieces:
                pass
