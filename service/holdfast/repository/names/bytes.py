"""Blobs for names: stored without a pin, and touched where they are there already.

A name keeps its blob by its record. A blob stored here is safe from a collector that saw the
announcement, and a later one finds that the blob was touched after it: `NameWrites.announce` comes
before whatever here publishes or touches a blob's record.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from holdfast.errors import HoldfastError, OutcomeUnknownError, UnavailableError
from holdfast.repository.names.writes import not_applied
from holdfast.stores.ports import Attributes, BlobStore, StagedBlob

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from holdfast.domain.digest import Digest
    from holdfast.sources import Sources

_ALWAYS: Final = datetime.max.replace(tzinfo=UTC)


class NamedBytes:
    """Stores the bytes of names."""

    def __init__(self, blobs: BlobStore, sources: Sources) -> None:
        """The users' blobs."""
        self._blobs = blobs
        self._sources = sources

    async def stage[AnnouncedT](
        self, data: memoryview, announcing: Awaitable[AnnouncedT]
    ) -> tuple[AnnouncedT, StagedBlob | BaseException]:
        """Store ``data``, not as a blob yet, while ``announcing`` is under way.

        The announcement, and the staged bytes or why there are none. Raises what ``announcing``
        raises; then nothing is left of ``data``.
        """
        staged = self._blobs.stage(self._sources.new_id(), max(len(data), 1))
        announced, written = await asyncio.gather(
            announcing, self._write(staged, data), return_exceptions=True
        )
        if isinstance(announced, BaseException):
            await self.discard(staged)
            raise announced
        if isinstance(written, BaseException):
            await self.discard(staged)
            return announced, written
        return announced, staged

    async def _write(self, staged: StagedBlob, data: memoryview) -> None:
        if data:
            with not_applied():
                await staged.write(0, data)

    async def discard(self, staged: StagedBlob) -> None:
        """Remove staged bytes. Those that cannot be removed now are the collector's."""
        with suppress(UnavailableError, OutcomeUnknownError):
            await staged.discard()

    async def make(self, staged: StagedBlob, digest: Digest, data: memoryview, type_: str) -> None:
        """Make the staged bytes the blob ``digest``, or touch the one that is there.

        Raises UnavailableError, CorruptError, QuotaExceededError: the name does not have it.
        """
        attributes = Attributes(
            type=type_, created_at=self._sources.clock(), pinned=False, touches=True
        )
        try:
            await staged.commit(digest, len(data), attributes, likely_new=True)
        except OutcomeUnknownError as error:  # its record may be stored, and then needs the bytes
            raise UnavailableError(error.detail) from error
        except HoldfastError:
            await self.discard(staged)
            raise

    async def touch(self, digest: Digest) -> bool:
        """Have every collector that listed the blob before leave it; is it there, and whole?"""
        with not_applied():
            return await self._blobs.touch(digest, unless_seen_since=_ALWAYS)
