"""Parts in a JetStream Object Store bucket that are not a blob yet: chunks under one nuid.

Why: docs/decisions.md, "The message id of a chunk is nuid and part", and "The order of chunks is
restored by copying".
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from holdfast.domain.chunk_index import build_index
from holdfast.stores.jetstream.blobs.commits import PartsGoneError
from holdfast.stores.ports import info_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Buffer, Callable

    from holdfast.domain.digest import Digest
    from holdfast.stores.jetstream.blobs.chunks import ObjectChunks
    from holdfast.stores.jetstream.blobs.commits import ObjectCommits
    from holdfast.stores.ports import Attributes, Claiming, Stored

_PARTS_PER_CLAIM: Final = 64
"""A copy of terabytes takes hours: its waiter is told every 32 MiB that it goes on."""


class StagedObject:
    """A StagedBlob: chunks under one nuid."""

    def __init__(
        self, commits: ObjectCommits, chunks: ObjectChunks, nuid: str, part_size: int
    ) -> None:
        """Made by ``ObjectBlobStore.stage``."""
        self._commits = commits
        self._chunks = chunks
        self._nuid = nuid
        self._part_size = part_size
        self._sequences: list[int] = []
        self._is_young: Callable[[], bool] | None = None
        self._doubtful = False
        self._copied: list[str] = []
        self._committed = False

    async def write(self, part: int, data: Buffer) -> None:
        """See StagedBlob."""
        self._is_young = self._is_young or self._commits.begin()
        while len(self._sequences) <= part:
            self._sequences.append(0)
        ack = await self._chunks.write(self._nuid, part, memoryview(data))
        self._sequences[part] = ack.seq
        self._doubtful |= ack.again and not ack.duplicate

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        likely_new: bool = False,
    ) -> Stored:
        """See StagedBlob."""
        if len(self._sequences) > 1 and not all(a < b for a, b in pairwise(self._sequences)):
            await self._write_again(claim)  # one was lost and sent again, behind its successors
        try:
            stored = await self._publish(digest, size, attributes, claim, likely_new=likely_new)
        except PartsGoneError:
            await self._write_again(claim)
            stored = await self._publish(digest, size, attributes, claim, likely_new=False)
        for nuid in self._copied:
            await self._chunks.remove_unneeded(nuid)
        self._committed = stored.info.generation == self._nuid
        return stored

    def _publish(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        claim: Claiming | None,
        *,
        likely_new: bool,
    ) -> Awaitable[Stored]:
        info = info_of(
            digest,
            size,
            attributes,
            part_size=self._part_size,
            generation=self._nuid,
            index=build_index(self._sequences) if self._sequences else None,
        )
        return self._commits.commit(
            info,
            attributes,
            claim,
            likely_new=likely_new,
            doubtful=self._doubtful,
            is_young=self._is_young or self._commits.begin(),
        )

    async def _write_again(self, claim: Claiming | None) -> None:
        """Copy all chunks, in order and each once. Raises PartsGoneError."""
        fresh = self._commits.new_id()
        copy = StagedObject(self._commits, self._chunks, fresh, self._part_size)
        for part, sequence in enumerate(self._sequences):
            if claim is not None and part % _PARTS_PER_CLAIM == 0:
                await claim(fresh)  # from here on others know whose the chunks under it are
            data = await self._chunks.staged_part(self._nuid, part, sequence)
            if data is None:
                raise PartsGoneError
            await copy.write(part, data)
        # Acknowledged parts stay where a new owner looks for them until the blob is there.
        self._copied.append(self._nuid)
        self._nuid, self._sequences = copy._nuid, copy._sequences
        self._doubtful, self._is_young = copy._doubtful, copy._is_young

    async def discard(self) -> None:
        """See StagedBlob."""
        if not self._committed:
            for nuid in (*self._copied, self._nuid):
                await self._chunks.remove(nuid)
