"""Chunks in a JetStream Object Store bucket that no record may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.domain.collection import ClaimState
from holdfast.stores.jetstream.blobs.meta import (
    chunk_subject,
    decode_meta,
    is_of_blob,
    meta_subjects,
)
from holdfast.stores.jetstream.blobs.walk import RecordWalk
from holdfast.stores.leftover_ports import Naming, StoredCopy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime

    from holdfast.stores.jetstream.blobs.chunks import ObjectChunks
    from holdfast.stores.jetstream.blobs.claims import ObjectClaims
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage


class ObjectLeftovers:
    """The `Leftovers` of one bucket."""

    def __init__(
        self, jetstream: JetStream, bucket: str, chunks: ObjectChunks, claims: ObjectClaims
    ) -> None:
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._chunks = chunks
        self._claims = claims

    async def copies(self, offset: int) -> Sequence[str]:
        """See Leftovers. The leader is asked for its subjects, up to 100,000 at once."""
        found, _ = await self._js.subjects(self._stream, f"$O.{self._bucket}.C.*", offset)
        return [subject.rpartition(".")[2] for subject in found]

    async def look(self, copy: str) -> StoredCopy | None:
        """See Leftovers. The chunks are taken to be as large as the first of them."""
        subject = chunk_subject(self._bucket, copy)
        query = {"seq": 1, "next_by_subj": subject}
        first = await self._js.direct_at(self._stream, query)
        counts = await self._js.counts(self._stream, subject)
        if first is None or subject not in counts:
            return None
        chunks = counts[subject]
        return StoredCopy(begun_at=first.time, chunks=chunks, size=chunks * len(first.data))

    async def counted(self) -> int:
        """See Leftovers. Subjects come in ascending order; a new or removed one shifts others."""
        filtered = meta_subjects(self._bucket)
        counted, offset, last = 0, 0, ""
        while some := (await self._js.subjects(self._stream, filtered, offset))[0]:
            offset += len(some)
            counted += sum(is_of_blob(subject) for subject in some if subject > last)
            last = max(some)
        return counted

    async def named(self, after: int) -> AsyncIterator[Naming]:
        """See Leftovers."""
        walk = RecordWalk(self._js, self._bucket, after + 1)
        while not walk.is_at_end:
            records = await walk.step()
            yield Naming(
                copies=[copy for record in records for copy in _named_by(record)],
                records=[record.subject for record in records if is_of_blob(record.subject)],
            )

    async def claim(self, copy: str, *, abandoned: Callable[[datetime], bool]) -> str | None:
        """See Leftovers."""
        found = await self._claims.find(copy)
        if found is not None and found.state is ClaimState.GOING:
            await self._remove(copy, found.sequence)
            return None
        is_claimed = found is not None and found.state is ClaimState.CLAIMED
        if is_claimed and found is not None and not (found.at and abandoned(found.at)):
            return None
        sequence = await self._claims.write(
            copy, ClaimState.CLAIMED, found.sequence if found is not None else 0
        )
        return None if sequence is None else str(sequence)

    async def release(self, copy: str, mark: str) -> None:
        """See Leftovers."""
        await self._claims.end(copy, int(mark))

    async def remove(self, copy: str, mark: str) -> bool:
        """See Leftovers."""
        going = await self._claims.write(copy, ClaimState.GOING, int(mark))
        if going is None:
            return False
        await self._remove(copy, going)
        return True

    async def _remove(self, copy: str, going: int) -> None:
        """Remove a copy whose claim says so since ``going``: its chunks of then, and the claim.

        Later ones are not meant: once another has ended the claim, a late writer may count on them.
        """
        await self._chunks.remove(copy, up_to=going)
        await self._claims.end(copy, going)


def _named_by(record: StoredMessage) -> tuple[str, ...]:
    """The copy that ``record`` names, of any writer. Raises CorruptError."""
    meta = decode_meta(record.data) if record.data else None
    return () if meta is None or meta.deleted else (meta.nuid,)
