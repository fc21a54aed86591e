"""The records of a bucket's blobs, as the leader has them, and how one of them is changed.

A record is changed by compare-and-set: what is written replaces the record that was read, or
nothing. Where another copy takes the place of a live one, its chunks come in one atomic batch with
the record: by a chunk and then the record, one that others count on would be replaced by one whose
chunks somebody may be removing, who has seen them and no record. A batch leaves nothing behind that
is refused, and nobody sees the one without the other.

Why: docs/decisions.md, "Absence is asked of the leader".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from holdfast.domain.op_id import is_repeat
from holdfast.errors import CorruptError, OutcomeUnknownError, UnavailableError
from holdfast.protocol.headers import BLOB_PART
from holdfast.stores.jetstream.blobs.claims import revocation
from holdfast.stores.jetstream.blobs.meta import (
    ObjectMeta,
    chunk_subject,
    meta_subject,
    read_record,
    tombstone,
)
from holdfast.stores.jetstream.conflicts import UNKNOWN, Conflicts
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    BatchMessage,
    RefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from holdfast.domain.digest import Digest
    from holdfast.sources import Sources
    from holdfast.stores.ports import BlobInfo
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

CHANGE: Final = "Holdfast-Change"
"""The header of a record that is written again for a blob that stays: the change."""

PUT_AT: Final = "Holdfast-Put"
"""Beside it, the sequence of the record that made the blob: a reader may not have seen that one."""

_MAX_DIGITS: Final = 19


class RecordChange(StrEnum):
    """A change of a blob that stays."""

    TOUCHED = "touch"
    PINNED = "pin"
    HIDDEN = "unpin"
    DAMAGED = "damaged"
    HEALED = "heal"
    REPACKED = "repack"


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """The subject of a record. ``sequence`` 0: nothing was ever there.

    ``fault`` tells why what lies there cannot be read; then there is no ``meta``. ``stored_at`` is
    by the leader's clock. ``put_at`` is the sequence of the record that made the blob.
    """

    sequence: int
    meta: ObjectMeta | None = None
    fault: CorruptError | None = None
    record: bytes | memoryview = b""
    stored_at: datetime | None = None
    put_at: int = 0

    @property
    def live(self) -> ObjectMeta | None:
        """A readable record of something that is there, ours or not. Raises CorruptError."""
        if self.fault is not None:
            raise self.fault
        return self.meta if self.meta is not None and not self.meta.deleted else None

    @property
    def deletions(self) -> tuple[str, ...]:
        """The last requests that deleted a blob here, as far as they have an ``Op-Id``."""
        return self.meta.deletions if self.meta is not None else ()

    @property
    def is_vacant(self) -> bool:
        """Whether nothing is there."""
        return self.fault is None and self.live is None

    @property
    def is_partial(self) -> bool:
        """Whether the record is of a blob of which only some bytes are kept."""
        return self.fault is None and self.live is not None and self.live.kept is not None

    def is_of(self, nuid: str) -> bool:
        """Whether the record is of the copy under ``nuid``."""
        return self.meta is not None and not self.meta.deleted and self.meta.nuid == nuid

    def deletion(self, op_id: str | None, tried: str) -> bool | None:
        """The answer of a deletion with nothing to do; None: a tombstone is to be written.

        ``tried`` is the copy for which it may have written one. Raises ConflictError where
        ``op_id`` was another request's.
        """
        meta = self.meta
        if self.is_vacant:
            return (
                meta is not None
                and meta.is_ours
                and (meta.nuid == tried or any(is_repeat(one, op_id) for one in meta.deletions))
            )
        if meta is None:
            return None
        if not meta.is_ours:
            return False
        if any(is_repeat(deletion, op_id) for deletion in meta.deletions):
            return True  # it was put again since: that is not for a late repeat to undo
        is_repeat(meta.op_id, op_id)  # not under the id of the put
        return None


def entry_of(message: StoredMessage | None, digest: Digest) -> ObjectEntry:
    """The entry of ``message``, which lies where ``digest`` has its record."""
    if message is None:
        return ObjectEntry(0)
    if not message.data:  # a marker that the time of an older release's tombstone was up
        return ObjectEntry(message.sequence)
    meta, fault = None, None
    try:
        meta = read_record(message.data, digest)
    except CorruptError as error:
        fault = error
    return ObjectEntry(
        message.sequence, meta, fault, message.data, message.stored_at, put_at(message)
    )


def put_at(message: StoredMessage) -> int:
    """The sequence of the record that made the blob of the one in ``message``."""
    told = message.headers.get(PUT_AT, "")
    is_number = told.isdecimal() and len(told) <= _MAX_DIGITS
    return int(told) if is_number else message.sequence


class ObjectRecords:
    """The records in one bucket."""

    def __init__(self, jetstream: JetStream, bucket: str, sources: Sources) -> None:
        self.new_id = sources.new_id
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self._clock = sources.clock

    async def read(self, digest: Digest) -> ObjectEntry:
        """The record as the leader has it."""
        subject = meta_subject(self._bucket, digest)
        return entry_of(await self._js.last_message(self._stream, subject), digest)

    async def believed(self, digest: Digest) -> ObjectEntry:
        """The record, for acknowledgements and removals on its word."""
        return await self._js.believed(self._stream, lambda: self.read(digest))

    async def surely(self, digest: Digest) -> ObjectEntry:
        """The record, for answers where there is none."""

        async def occupied() -> ObjectEntry | None:
            entry = await self.read(digest)
            return None if entry.is_vacant else entry

        return await self._js.surely(self._stream, occupied) or await self.read(digest)

    async def change[T](
        self,
        digest: Digest,
        attempt: Callable[[ObjectEntry, Conflicts], Awaitable[T]],
        *,
        look: Callable[[Digest], Awaitable[ObjectEntry]] | None = None,
        seen: ObjectEntry | None = None,
    ) -> T:
        """The result of ``attempt`` for the record, which it may `write`; again after a conflict.

        ``look`` reads the record (else `read`); ``seen`` is believed to be it the first time.
        """
        conflicts = Conflicts()
        look = look or self.read
        while not conflicts.are_too_many():
            with conflicts:
                entry, seen = seen or await look(digest), None
                try:
                    return await attempt(entry, conflicts)
                except RefusedError as refused:
                    conflicts.note(refused, entry.sequence)
                    await conflicts.wait()
        raise conflicts.failure()

    def write(
        self,
        digest: Digest,
        entry: ObjectEntry,
        record: bytes | memoryview,
        message_id: str | None = None,
        change: RecordChange | None = None,
    ) -> Awaitable[object]:
        """Replace ``entry``, under a fresh id or ``message_id``. Raises RefusedError.

        ``change`` says what is changed of a blob that stays; None: it is put, or deleted.
        """
        headers = {MSG_ID: message_id or self.new_id(), **_headers(entry, change)}
        return self._js.publish(meta_subject(self._bucket, digest), record, headers)

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

        ``record`` is the new one, ``change`` as in `write`. A pack and its record are a few
        messages, of which a batch takes a thousand. Chunks that are too many for it are stored
        already, under a claim, which has to be the one at ``claimed_at`` still and is revoked.
        Raises RefusedError, UnavailableError, OutcomeUnknownError.
        """
        chunks = chunk_subject(self._bucket, made.generation)
        messages = [
            BatchMessage(chunks, part, {BLOB_PART: str(number)})
            for number, part in enumerate(parts)
        ]
        if claimed_at is not None:
            messages.append(revocation(self._bucket, made.generation, claimed_at))
        subject = meta_subject(self._bucket, made.digest)
        messages.append(BatchMessage(subject, record, _headers(entry, change)))
        try:
            await self._js.publish_batch(messages, new_id=self.new_id)
        except RefusedError as refused:
            if refused.certain or not await self._is_there(made):
                raise
        except OutcomeUnknownError:
            if not await self._is_there(made):
                raise

    async def _is_there(self, made: BlobInfo) -> bool:
        try:
            return (await self.read(made.digest)).is_of(made.generation)
        except UnavailableError as error:
            raise OutcomeUnknownError(UNKNOWN) from error

    async def bury(self, digest: Digest, entry: ObjectEntry, nuid: str, op_id: str | None) -> None:
        """Replace ``entry`` by a tombstone for ``nuid``. Raises RefusedError.

        It has no TTL: it covers the record, which nats-server may bring back when it is killed.
        """
        grave = tombstone(
            self._bucket, digest, nuid, self._clock(), op_id, deletions=entry.deletions
        )
        await self.write(digest, entry, grave)


def _headers(entry: ObjectEntry, change: RecordChange | None) -> dict[str, str]:
    """The headers of a record that replaces ``entry``."""
    headers = {ROLLUP: "sub", EXPECTED_SUBJECT_SEQUENCE: str(entry.sequence)}
    if change is not None:
        headers |= {CHANGE: change, PUT_AT: str(entry.put_at)}
    return headers
