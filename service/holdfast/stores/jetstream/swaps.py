"""Another copy takes the place of a live one: its chunks and its record in one atomic batch.

By a chunk and then the record, a record that others count on would be replaced by one whose chunks
somebody may be removing, who has seen them and no record. A batch leaves nothing behind that is
refused, and nobody sees the one without the other. Chunks that are too many for a batch are stored
under a claim, and the batch has the end of that in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import OutcomeUnknownError, UnavailableError
from holdfast.protocol.headers import BLOB_PART
from holdfast.stores.jetstream.claims import revocation
from holdfast.stores.jetstream.conflicts import UNKNOWN
from holdfast.stores.jetstream.meta import chunk_subject, meta_subject
from holdfast.transport.jetstream_messages import BatchMessage, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.jetstream.object_records import ObjectEntry, ObjectRecords, RecordChange
    from holdfast.stores.ports import BlobInfo
    from holdfast.transport.jetstream import JetStream


class ObjectSwaps:
    """Replaces copies in one bucket."""

    def __init__(self, jetstream: JetStream, bucket: str, records: ObjectRecords) -> None:
        self._js = jetstream
        self._bucket = bucket
        self._records = records

    async def swap(
        self,
        entry: ObjectEntry,
        made: BlobInfo,
        parts: Sequence[bytes | memoryview],
        record: bytes,
        change: RecordChange | None = None,
        *,
        claimed_at: int | None = None,
    ) -> None:
        """Replace ``entry`` by the copy ``made`` of ``parts``; the chunks it names are left.

        ``record`` is the new one, ``change`` as in `ObjectRecords.write`. A pack and its record are
        a few messages, of which a batch takes a thousand. Chunks that are stored already are under
        a claim, which has to be the one at ``claimed_at`` still and is revoked. Raises
        RefusedError, UnavailableError, OutcomeUnknownError.
        """
        messages = [
            BatchMessage(
                chunk_subject(self._bucket, made.generation), part, {BLOB_PART: str(number)}
            )
            for number, part in enumerate(parts)
        ]
        if claimed_at is not None:
            messages.append(revocation(self._bucket, made.generation, claimed_at))
        headers = self._records.headers(entry, change)
        messages.append(BatchMessage(meta_subject(self._bucket, made.digest), record, headers))
        try:
            await self._js.publish_batch(messages, new_id=self._records.new_id)
        except RefusedError as refused:
            if refused.certain or not await self._is_there(made.digest, made.generation):
                raise
        except OutcomeUnknownError:
            if not await self._is_there(made.digest, made.generation):
                raise

    async def _is_there(self, digest: Digest, nuid: str) -> bool:
        try:
            return (await self._records.read(digest)).is_of(nuid)
        except UnavailableError as error:
            raise OutcomeUnknownError(UNKNOWN) from error
