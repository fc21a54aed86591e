"""Chunks in a JetStream Object Store bucket that no record may name, and the claims of them.

The claims of a copy are one record beside those of the blobs, on a subject whose last token is that
of the copy's chunks: so chunks and claims are looked at in one request, at one moment. Whoever
claims adds itself by compare-and-set, and takes but itself away.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from holdfast.errors import UnavailableError
from holdfast.stores.jetstream.meta import (
    chunk_subject,
    claim_record,
    claim_subject,
    decode_meta,
)
from holdfast.stores.jetstream.walk import RecordWalk
from holdfast.stores.leftover_ports import StoredCopy
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    TIME_STAMP,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from holdfast.stores.jetstream.chunks import ObjectChunks
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_ATTEMPTS: Final = 8


class ObjectLeftovers:
    """The `Leftovers` of one bucket."""

    def __init__(
        self, jetstream: JetStream, bucket: str, chunks: ObjectChunks, new_id: Callable[[], str]
    ) -> None:
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._chunks = chunks
        self._new_id = new_id

    async def copies(self, offset: int) -> Sequence[str]:
        """See Leftovers. The leader is asked for its subjects, up to 100,000 at once."""
        found = await self._js.subjects(self._stream, f"$O.{self._bucket}.C.*", offset)
        return [subject.rpartition(".")[2] for subject in found.subjects]

    async def look(self, copy: str) -> StoredCopy | None:
        """See Leftovers. The chunks are taken to be as large as the first of them."""
        subject = chunk_subject(self._bucket, copy)
        query = {"seq": 1, "next_by_subj": subject}
        first = await self._js.direct_at(self._stream, query)
        counts = await self._js.counts(self._stream, subject)
        if first is None or subject not in counts:
            return None
        begun_at = first.stored_at or datetime.fromisoformat(first.headers[TIME_STAMP])
        chunks = counts[subject]
        return StoredCopy(begun_at=begun_at, chunks=chunks, size=chunks * len(first.data))

    async def named(self, after: int) -> AsyncIterator[Sequence[str]]:
        """See Leftovers."""
        walk = RecordWalk(self._js, self._bucket, after + 1)
        while not walk.is_at_end:
            yield [copy for record in await walk.step() for copy in _named_by(record)]

    async def claim(self, copy: str, by: str) -> None:
        """See Leftovers."""
        await self._change_claims(copy, lambda claimants: claimants | {by})

    async def disclaim(self, copy: str, by: str) -> None:
        """See Leftovers."""
        await self._change_claims(copy, lambda claimants: claimants - {by})

    async def remove(self, copy: str) -> None:
        """See Leftovers."""
        await self._chunks.remove(copy)
        await self._js.purge(self._stream, claim_subject(self._bucket, copy))

    async def _change_claims(
        self, copy: str, change: Callable[[frozenset[str]], frozenset[str]]
    ) -> None:
        """Write what ``change`` makes of the claimants; where none is left, remove the record."""
        subject = claim_subject(self._bucket, copy)
        for _ in range(_ATTEMPTS):
            message = await self._js.last_message(self._stream, subject)
            sequence = message.sequence if message is not None else 0
            found = frozenset(decode_meta(message.data).claimants if message is not None else ())
            wanted = change(found)
            if wanted == found:
                return
            if not wanted:
                await self._js.purge(self._stream, subject, up_to=sequence)
                return
            record = claim_record(self._bucket, copy, sorted(wanted))
            headers = {
                ROLLUP: "sub",
                EXPECTED_SUBJECT_SEQUENCE: str(sequence),
                MSG_ID: self._new_id(),
            }
            try:
                await self._js.publish(subject, record, headers)
            except RefusedError as refused:
                if not refused.conflict:
                    raise refused.translate() from refused
            else:
                return
        msg = "others kept claiming what may be no blob's"
        raise UnavailableError(msg)


def _named_by(record: StoredMessage) -> tuple[str, ...]:
    """The copy that ``record`` names, whoever wrote it. Raises CorruptError."""
    meta = decode_meta(record.data) if record.data else None
    return () if meta is None or meta.deleted else (meta.nuid,)
