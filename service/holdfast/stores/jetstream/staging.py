"""Parts in a JetStream Object Store bucket that are not a blob yet: chunks under one nuid."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

from holdfast.domain.chunk_index import build_index
from holdfast.domain.digest import Digest
from holdfast.errors import ConflictError, CorruptError, OutcomeUnknownError, UnavailableError
from holdfast.protocol.headers import BLOB_PART
from holdfast.stores.jetstream.meta import chunk_subject
from holdfast.stores.ports import Attributes, BlobInfo, Stored
from holdfast.transport.jetstream_messages import MSG_ID, RefusedError, StoredMessage

if TYPE_CHECKING:
    from collections.abc import Buffer

    from holdfast.stores.ports import Claiming
    from holdfast.transport.jetstream import JetStream

_MAX_PART_DIGITS: Final = 12
_PARTS_PER_CLAIM: Final = 64
"""A copy of terabytes takes hours: whoever waits for it is told every 32 MiB that it goes on."""


class PartsGoneError(ConflictError):
    """The chunks are not as they were written: removed by somebody else, or stored twice."""

    def __init__(self) -> None:
        super().__init__("the parts were removed before they became a blob: send them again")


class ObjectBucket(Protocol):
    """What parts need of the store that they are in."""

    bucket: str
    stream: str

    def fresh_id(self) -> str:
        """A nuid nobody has used."""

    def stage(self, staging: str, part_size: int) -> StagedObject:
        """See BlobStore."""

    async def publish_record(
        self,
        info: BlobInfo,
        attributes: Attributes,
        claim: Claiming | None = None,
        *,
        expected: int | None = None,
    ) -> Stored:
        """Make the chunks of ``info.generation`` the blob, by compare-and-set.

        With ``expected`` the record is read first only if that one is not the last. Raises
        PartsGoneError where they are not there, and then the blob is not made of them.
        """

    async def require_chunks(self, info: BlobInfo) -> None:
        """Raises PartsGoneError unless there are as many chunks as there should be."""

    async def discard_staged(self, staging: str) -> None:
        """See BlobStore."""


class StagedObject:
    """A StagedBlob: chunks under one nuid."""

    def __init__(self, store: ObjectBucket, js: JetStream, nuid: str, part_size: int) -> None:
        """Made by ``ObjectBlobStore.stage``."""
        self._store = store
        self._js = js
        self._nuid = nuid
        self._part_size = part_size
        self._sequences: list[int] = []
        self._doubtful = False
        self._copied: list[str] = []
        self._committed = False

    async def write(self, part: int, data: Buffer) -> None:
        """See StagedBlob."""
        while len(self._sequences) <= part:
            self._sequences.append(0)
        headers = {MSG_ID: f"{self._nuid}.{part}", BLOB_PART: str(part)}
        subject = chunk_subject(self._store.bucket, self._nuid)
        try:
            ack = await self._js.publish(subject, memoryview(data), headers)
        except RefusedError as refused:
            raise refused.translate() from refused
        self._sequences[part] = ack.seq
        self._doubtful |= ack.again and not ack.duplicate

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        expected: int | None = None,
    ) -> Stored:
        """See StagedBlob. With ``expected`` no record but that one is believed to be there."""
        if len(self._sequences) > 1 and not all(a < b for a, b in pairwise(self._sequences)):
            await self._write_again(claim)  # one was lost and sent again, behind its successors
        try:
            stored = await self._publish(digest, size, attributes, claim, expected)
        except PartsGoneError:
            await self._write_again(claim)
            stored = await self._publish(digest, size, attributes, claim, None)
        for nuid in self._copied:
            with suppress(UnavailableError, OutcomeUnknownError):  # the collector will
                await self._store.discard_staged(nuid)
        self._committed = stored.info.generation == self._nuid
        return stored

    async def _publish(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        claim: Claiming | None,
        expected: int | None,
    ) -> Stored:
        info = BlobInfo(
            digest=digest,
            size=size,
            chunks=len(self._sequences),
            part_size=self._part_size,
            type=attributes.type,
            created_at=attributes.created_at,
            pinned=attributes.pinned,
            generation=self._nuid,
            index=build_index(self._sequences) if self._sequences else None,
        )
        if self._doubtful:
            await self._store.require_chunks(info)
            self._doubtful = False
        return await self._store.publish_record(info, attributes, claim, expected=expected)

    async def _write_again(self, claim: Claiming | None) -> None:
        """Copy all chunks, in order and each once. Raises PartsGoneError."""
        fresh = self._store.fresh_id()
        copy = self._store.stage(fresh, self._part_size)
        subject = chunk_subject(self._store.bucket, self._nuid)
        for part, sequence in enumerate(self._sequences):
            if claim is not None and part % _PARTS_PER_CLAIM == 0:
                await claim(fresh)  # from here on others know whose the chunks under it are
            look = partial(self._js.next_message, self._store.stream, subject, sequence)
            message = await self._js.surely(self._store.stream, look)
            if message is None or part_of(message) != part:
                raise PartsGoneError
            await copy.write(part, message.data)
        # What was acknowledged stays where a new owner looks for it until the blob is there.
        self._copied.append(self._nuid)
        self._nuid, self._sequences = copy._nuid, copy._sequences
        self._doubtful = copy._doubtful

    async def discard(self) -> None:
        """See StagedBlob."""
        if not self._committed:
            for nuid in (*self._copied, self._nuid):
                await self._store.discard_staged(nuid)


def part_of(message: StoredMessage) -> int:
    """Which part a stored chunk is. Raises CorruptError."""
    text = message.headers.get(BLOB_PART, "")
    if not text.isdecimal() or len(text) > _MAX_PART_DIGITS:
        msg = "a stored chunk does not say which part it is"
        raise CorruptError(msg)
    return int(text)
