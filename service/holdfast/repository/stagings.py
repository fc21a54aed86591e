"""What the owners of an upload wrote, and which of it may be removed.

Chunks go only when they surely are no blob's: not those of a nuid that a claim names, unless the
claimed blob is there and is made of another nuid's.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast.domain.digest import Digest
from holdfast.errors import NotFoundError, OutcomeUnknownError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Collection

    from holdfast.repository.upload_record import UploadRecord
    from holdfast.stores.ports import BlobStore


class Stagings:
    """Removes what is left of uploads. What cannot be removed now is the collector's."""

    def __init__(self, store: BlobStore) -> None:
        """The store that the uploads go to."""
        self._store = store

    async def remove(self, nuid: str) -> None:
        """Remove the chunks of one owner, which the caller knows are no blob's."""
        with suppress(UnavailableError, OutcomeUnknownError):
            await self._store.discard_staged(nuid)

    async def remove_former(
        self, record: UploadRecord, *, keep: Collection[str], digest: str
    ) -> None:
        """Remove the chunks of former owners, once ``digest`` is committed.

        One that had claimed another digest stays: its record may be on the way (only a sender
        that sent different bytes gets there).
        """
        for nuid in record.nuids:
            doubtful = any(c.nuid == nuid and c.digest != digest for c in record.claims)
            if nuid not in keep and not doubtful:
                await self.remove(nuid)

    async def remove_all(self, record: UploadRecord) -> None:
        """Remove what all owners wrote, but for what is a blob's or may yet become one."""
        with suppress(UnavailableError, OutcomeUnknownError):
            kept = await self._live_generations(record)
            for nuid in record.nuids:
                if nuid not in kept:
                    await self._store.discard_staged(nuid)

    async def _live_generations(self, record: UploadRecord) -> set[str]:
        """Which of the upload's nuids are a blob's, or may yet become one."""
        kept = {claim.nuid for claim in record.claims}
        for claim in record.claims:
            with suppress(NotFoundError):
                info = await self._store.stat(Digest(claim.digest))
                kept.discard(claim.nuid)
                kept.add(info.generation)
        return kept
