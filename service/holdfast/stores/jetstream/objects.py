"""Blobs in a JetStream Object Store bucket (ADR-20), without nats-py's own object store.

A blob is an object named by its digest. Chunks are written first, under a nuid that has one writer
for ever; then the record, by compare-and-set, makes them the blob. Nothing else is ever needed to
be right: a crash in between leaves chunks that no record names, for the collector to find.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from msgspec.structs import replace

from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.op_id import is_repeat
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.jetstream.bucket_check import check_bucket
from holdfast.stores.jetstream.chunks import ObjectChunks, damaged
from holdfast.stores.jetstream.conflicts import UNKNOWN, Conflicts
from holdfast.stores.jetstream.groups import Alone, PutGroups
from holdfast.stores.jetstream.listing import ObjectListing
from holdfast.stores.jetstream.meta import (
    NewerFormatError,
    ObjectMeta,
    check_address,
    chunk_subject,
    decode_meta,
    mark_damaged,
    mark_deleted_by,
    meta_subject,
    read_record,
    to_info,
    to_meta,
    tombstone,
)
from holdfast.stores.jetstream.places import LatelyStored, Place, Places
from holdfast.stores.jetstream.staging import PartsGoneError, StagedObject, part_of
from holdfast.stores.ports import Attributes, BlobInfo, BlobListing, Fetched, Stored
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    SUBJECT,
    RefusedError,
    StoredMessage,
)

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Buffer,
        Callable,
        Sequence,
    )
    from datetime import datetime

    from holdfast.sources import Sources
    from holdfast.stores.ports import Claiming
    from holdfast.transport.jetstream import JetStream

_COMMIT_ATTEMPTS: Final = 8
_RECORDS_AT_ONCE: Final = 64
"""So many are decoded before others have their turn."""

_RECORD_HEADROOM_BYTES: Final = 512
"""What the headers of a record take, at the most."""

_NOTHING_PUT: Final = "the store did not say whether it has the data, and nothing refers to it"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    """The record subject as the leader has it. ``sequence`` 0: nothing was ever there.

    ``fault`` tells why what lies there cannot be read; then there is no ``meta``.
    """

    sequence: int
    meta: ObjectMeta | None = None
    fault: CorruptError | None = None

    @property
    def live(self) -> ObjectMeta | None:
        """A readable record of something that is there, ours or not. Raises CorruptError."""
        if self.fault is not None:
            raise self.fault
        return self.meta if self.meta is not None and not self.meta.deleted else None

    @property
    def deleted_by(self) -> str | None:
        """The request that last deleted what was there, if it said who it is."""
        return self.meta.deleted_by if self.meta is not None else None

    @property
    def is_vacant(self) -> bool:
        """Whether nothing is there."""
        return self.fault is None and self.live is None


class ObjectBlobStore:
    """A BlobStore, and DirectDelivery, over one bucket."""

    def __init__(self, jetstream: JetStream, bucket: str, *, sources: Sources) -> None:
        self.bucket = bucket
        self.stream = f"OBJ_{bucket}"
        self._js = jetstream
        self._new_id = sources.new_id
        self._clock = sources.clock
        self._chunks = ObjectChunks(jetstream, bucket, self._why_missing)
        self._listing = ObjectListing(jetstream, bucket)
        self._places = Places(sources.monotonic)
        self._lately = LatelyStored()
        self._groups = PutGroups(jetstream, bucket, self._places, new_id=sources.new_id)

    def group_puts(self) -> None:
        """Store small puts in batches from now on, when many are under way: writes are synced."""
        self._groups.is_on = True

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See BlobStore."""
        view = memoryview(data).cast("B")
        known_at = self._places.now()
        counts = self._groups.begin(len(view))
        try:
            stored = await self._put(digest, view, attributes)
        finally:
            self._groups.end(counts)
        self._lately.note(found=not stored.created)
        if not stored.created:
            self._remember(stored.info, 0, known_at)
        return stored

    async def _put(self, digest: Digest, view: memoryview, attributes: Attributes) -> Stored:
        looks = self._lately.often or self._places.find(digest) is not None
        if not looks and self._groups.is_on:
            grouped = await self._groups.put(digest, view, attributes)
            if isinstance(grouped, Stored):
                return grouped
            looks = grouped is Alone.LOOK
        if not looks:
            return await self._put_alone(digest, view, attributes, 0)
        entry = await self._believed_entry(digest)
        existing = await self._existing(entry, attributes)
        if existing is not None:
            return existing
        # Over a tombstone the record says more, so that one is looked at again.
        expected = entry.sequence if entry.meta is None and entry.is_vacant else None
        return await self._put_alone(digest, view, attributes, expected)

    async def _put_alone(
        self, digest: Digest, view: memoryview, attributes: Attributes, expected: int | None
    ) -> Stored:
        """A chunk and then the record, if the last one's sequence is ``expected`` still."""
        staged = self.stage(self._new_id(), max(len(view), 1))
        try:
            if view:
                try:
                    await staged.write(0, view)
                except OutcomeUnknownError as error:  # a chunk without a record is no blob
                    raise UnavailableError(_NOTHING_PUT) from error
            return await staged.commit(digest, len(view), attributes, expected=expected)
        except OutcomeUnknownError:
            raise  # the record may be stored, and then it needs the chunk
        except PartsGoneError as error:
            await self._discard(staged)
            msg = "what was stored was removed before it became a blob"
            raise UnavailableError(msg) from error
        except HoldfastError:
            await self._discard(staged)
            raise

    async def _discard(self, staged: StagedObject) -> None:
        with suppress(UnavailableError, OutcomeUnknownError):  # the collector will
            await staged.discard()

    async def fetch(self, digest: Digest, at_most: int) -> Fetched:
        """See BlobStore. One request where the place of the only chunk is remembered."""
        place = self._places.find(digest)
        if place is not None and place.info.size <= at_most:
            data = await self._read_place(place)
            if data is not None:
                return Fetched(info=place.info, data=data)
        info = await self.stat(digest)
        if info.size > at_most:
            return Fetched(info=info, data=None)
        try:
            return Fetched(info=info, data=await self.get(info))
        except NotFoundError:
            # A blob that was deleted and put again: a stale record names the former copy.
            latest = await self.stat(digest, sure=True)
            if latest.generation == info.generation:
                raise
            return Fetched(info=latest, data=await self.get(latest))

    async def _read_place(self, place: Place) -> Buffer | None:
        """The bytes of the blob, checked; None, and no longer a place, if anything is odd."""
        info = place.info
        message = await self._js.direct_at(self.stream, self._place_query(place))
        if message is not None and message.subject == chunk_subject(self.bucket, info.generation):
            data = message.data
            if len(data) == info.size and digest_of(data) == info.digest:
                return data
        self._places.forget(info.digest)
        return None

    def _place_query(self, place: Place) -> dict[str, Any]:
        """What is at the place, or nothing: never another subject's message."""
        return {
            "seq": place.sequence,
            "next_by_subj": chunk_subject(self.bucket, place.info.generation),
        }

    async def get(self, info: BlobInfo) -> bytes:
        """See BlobStore."""
        if info.chunks == 1:
            data = bytes(await self._only_chunk(info))
            if len(data) != info.size or digest_of(data) != info.digest:
                raise damaged(info)
            return data
        return b"".join([bytes(piece) async for piece in self.read(info, 0, info.size)])

    async def _only_chunk(self, info: BlobInfo) -> Buffer:
        subject = chunk_subject(self.bucket, info.generation)
        message = await self._js.direct_last(self.stream, subject)
        if message is None:
            message = await self._js.surely(
                self.stream, lambda: self._js.last_message(self.stream, subject)
            )
        if message is None:
            raise await self._why_missing(info)
        return message.data

    def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See BlobStore."""
        return self._chunks.read(info, start, stop)

    async def locate(self, info: BlobInfo, part: int) -> tuple[int, int]:
        """See DirectDelivery."""
        return await self._chunks.locate(info, part)

    async def deliver(self, info: BlobInfo, position: int, chunks: int, subject: str) -> None:
        """See DirectDelivery."""
        self._chunks.deliver(info, position, chunks, subject)

    async def _why_missing(self, info: BlobInfo) -> HoldfastError:
        """Chunks are gone: because the blob is, or they were lost?"""
        entry = await self._entry(info.digest)
        if entry.live is None or entry.live.nuid != info.generation:
            return NotFoundError("no such blob")
        return damaged(info)

    def deliver_bare(self, digest: Digest, at_most: int) -> Callable[[str], Awaitable[None]] | None:
        """See DirectDelivery."""
        place = self._places.find(digest)
        if place is None or place.info.size > at_most:
            return None
        query = self._place_query(place)

        async def deliver(subject: str) -> None:
            self._js.request_batch(self.stream, query, subject)

        return deliver

    async def stat(self, digest: Digest, *, sure: bool = False) -> BlobInfo:
        """See BlobStore. A replica's word suffices that a blob is there, not that it is not."""
        if sure:
            info = await self._surely_stat(digest)
            is_whole = info.damaged or await self._chunks.are_all_there(info)
            return info if is_whole else replace(info, damaged=True)
        known_at = self._places.now()
        message = await self._js.direct_last(self.stream, meta_subject(self.bucket, digest))
        if message is not None and message.data:
            meta = decode_meta(message.data)
            if meta.is_ours and not meta.deleted:
                check_address(meta, digest)
                info = to_info(meta)
                self._remember(info, message.sequence, known_at)
                return info
        return await self._surely_stat(digest)

    async def _surely_stat(self, digest: Digest) -> BlobInfo:
        known_at = self._places.now()
        entry = await self._believed_entry(digest)
        meta = entry.live
        if meta is None or not meta.is_ours:
            msg = "no such blob"
            raise NotFoundError(msg)
        info = to_info(meta)
        self._remember(info, entry.sequence, known_at)
        return info

    def _remember(self, info: BlobInfo, sequence: int, known_at: float) -> None:
        """Where the only chunk is: ``sequence`` is the record's, which in a batch comes next.

        A place before the chunk does as well, if the server has to search a little.
        """
        if info.chunks == 1 and not info.damaged:
            at = max(sequence - 1, 1)
            with suppress(CorruptError):  # the index, which is no more than a hint
                at = info.index.locate(0)[1] if info.index is not None else at
            self._places.remember(info, at, known_at=known_at)

    async def _believed_entry(self, digest: Digest) -> _Entry:
        """For what is acknowledged or removed on its word."""
        return await self._js.believed(self.stream, lambda: self._entry(digest))

    async def _occupied(self, digest: Digest) -> _Entry | None:
        entry = await self._entry(digest)
        return None if entry.is_vacant else entry

    async def _entry(self, digest: Digest) -> _Entry:
        message = await self._js.last_message(self.stream, meta_subject(self.bucket, digest))
        if message is None:
            return _Entry(0)
        if not message.data:  # a marker that the time of an older release's tombstone was up
            return _Entry(message.sequence)
        try:
            return _Entry(message.sequence, read_record(message.data, digest))
        except CorruptError as fault:
            return _Entry(message.sequence, fault=fault)

    async def missing(self, digests: Sequence[Digest]) -> list[Digest]:
        """See BlobStore."""
        wanted = {meta_subject(self.bucket, digest): digest for digest in digests}
        messages = await self._js.direct_lasts(self.stream, list(wanted))
        for number, message in enumerate(messages, 1):
            if number % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            subject = message.headers.get(SUBJECT, "")
            if subject in wanted and _is_blob(message, wanted[subject]):
                del wanted[subject]
        if len(wanted) < len(set(digests)):
            # What a replica has may be gone by now, but not for long: it can reach the others.
            await self._js.check_leader(self.stream)
        return list(wanted.values())

    async def delete(self, digest: Digest, *, op_id: str | None = None) -> bool:
        """See BlobStore."""
        conflicts = Conflicts()
        try:
            for _ in range(_COMMIT_ATTEMPTS):
                with conflicts.telling():
                    deleted = await self._delete(digest, op_id, conflicts)
                if deleted is not None:
                    return deleted
            raise conflicts.failure()
        finally:
            self._places.forget(digest)  # afterwards: a read may have begun meanwhile

    async def _delete(self, digest: Digest, op_id: str | None, conflicts: Conflicts) -> bool | None:
        """Once; None when another write was met."""
        present = await self._js.surely(self.stream, lambda: self._occupied(digest))
        entry = present or await self._entry(digest)
        if entry.is_vacant:
            gone = entry.meta
            if gone is None or not gone.is_ours:
                return False
            await self._remove_deleted(gone.nuid)  # whoever deleted it may not have got there
            return gone.nuid == conflicts.tried or is_repeat(gone.op_id, op_id)
        if entry.meta is not None and not entry.meta.is_ours:
            return False
        # What an unreadable record says of its chunks may be another's: they are left alone.
        nuid = entry.meta.nuid if entry.meta is not None else None
        if entry.meta is not None:
            if is_repeat(entry.meta.deleted_by, op_id):
                return True  # it was put again since: that is not for a late repeat to undo
            is_repeat(entry.meta.op_id, op_id)  # not under the id of the put
        grave = nuid or self._new_id()
        try:
            await self._bury(digest, entry.sequence, grave, op_id)
        except RefusedError as refused:
            conflicts.note(refused, tried=grave)
            await conflicts.wait()
            return None
        if nuid is not None:
            await self._remove_deleted(nuid)
        return True

    async def _bury(self, digest: Digest, sequence: int, nuid: str, op_id: str | None) -> None:
        """Write a tombstone for ``nuid`` over the record at ``sequence``. Raises RefusedError.

        It has no TTL: it covers the record, which nats-server may bring back when it is killed.
        """
        record = tombstone(self.bucket, digest, nuid, self._clock(), op_id)
        headers = {
            ROLLUP: "sub",
            EXPECTED_SUBJECT_SEQUENCE: str(sequence),
            MSG_ID: self._new_id(),
        }
        await self._js.publish(meta_subject(self.bucket, digest), record, headers)

    async def touch(self, digest: Digest, *, unless_seen_since: datetime) -> bool:
        """See BlobStore. The record is written again as it is, which gives it another sequence."""
        subject = meta_subject(self.bucket, digest)
        met: int | None = None
        conflicts = Conflicts()
        for _ in range(_COMMIT_ATTEMPTS):
            message = await self._js.last_message(self.stream, subject)
            if message is None or not await self._is_whole(bytes(message.data), digest):
                await self._js.check_leader(self.stream)
                return False
            if message.stored_at is not None and message.stored_at >= unless_seen_since:
                await self._js.check_leader(self.stream)
                return True
            if met is not None and message.sequence > met:
                await self._js.check_leader(self.stream)
                return True  # somebody else has put or touched it while we tried
            met = message.sequence
            headers = {
                ROLLUP: "sub",
                EXPECTED_SUBJECT_SEQUENCE: str(message.sequence),
                MSG_ID: self._new_id(),
            }
            try:
                await self._js.publish(subject, message.data, headers)
            except RefusedError as refused:
                conflicts.note(refused)
                await conflicts.wait()
            else:
                return True
        raise conflicts.failure()

    async def now(self) -> datetime:
        """See BlobStore. It is the leader's clock, which stamps every message."""
        return await self._js.leaders_time(self.stream)

    async def _is_whole(self, record: bytes, digest: Digest) -> bool:
        """Whether ``record`` is a blob's, whose chunks are there as far as that is cheap to see."""
        try:
            meta = read_record(record, digest) if record else None
        except NewerFormatError:
            raise
        except CorruptError:
            return False  # a put replaces it
        if meta is None or meta.deleted or not meta.is_ours or meta.is_damaged:
            return False
        return await self._chunks.are_all_there(to_info(meta))

    async def report_damage(self, info: BlobInfo) -> None:
        """See BlobStore."""
        conflicts = Conflicts()
        for _ in range(_COMMIT_ATTEMPTS):
            entry = await self._entry(info.digest)
            meta = entry.meta
            if meta is None or meta.deleted or meta.is_damaged or meta.nuid != info.generation:
                return
            headers = {
                ROLLUP: "sub",
                EXPECTED_SUBJECT_SEQUENCE: str(entry.sequence),
                MSG_ID: self._new_id(),
            }
            try:
                await self._js.publish(
                    meta_subject(self.bucket, info.digest), mark_damaged(meta), headers
                )
            except RefusedError as refused:
                conflicts.note(refused)
                await conflicts.wait()
            else:
                return
        raise conflicts.failure()

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See BlobStore. In the order of writing, or with a prefix in that of the digests."""
        return await self._listing.page(prefix=prefix, cursor=cursor, limit=limit)

    def stage(self, staging: str, part_size: int) -> StagedObject:
        """See BlobStore."""
        return StagedObject(self, self._js, staging, part_size)

    async def staged_parts(self, staging: str) -> AsyncIterator[Buffer]:
        """See BlobStore.

        Parts acknowledged a moment ago may be missing on a replica: at every end the leader is
        asked whether it was one.
        """
        subject = chunk_subject(self.bucket, staging)
        early: dict[int, Buffer] = {}
        part, position = 0, 1
        while True:
            query = {"batch": 16, "seq": position, "next_by_subj": subject}
            messages, _ = await self._js.direct_batch(self.stream, query)
            if not messages:
                message = await self._js.next_message(self.stream, subject, position)
                if message is None:
                    return
                messages = [message]
            for message in messages:
                early[part_of(message)] = message.data
                position = message.sequence + 1
            while part in early:
                yield early.pop(part)
                part += 1

    async def discard_staged(self, staging: str) -> None:
        """See BlobStore."""
        await self._remove_chunks(staging)

    async def _remove_deleted(self, nuid: str) -> None:
        """Remove the bytes of a blob that is deleted, which others may remember the place of.

        Raises OutcomeUnknownError: the blob is gone, but may be read for some seconds yet.
        """
        try:
            await self._remove_chunks(nuid)
        except (UnavailableError, OutcomeUnknownError) as error:
            msg = "the blob is deleted, but its bytes may be there yet: delete it again"
            raise OutcomeUnknownError(msg) from error

    async def _remove_unneeded(self, nuid: str) -> None:
        """Remove chunks that no record names. What cannot be removed now is the collector's."""
        with suppress(UnavailableError, OutcomeUnknownError):
            await self._remove_chunks(nuid)

    async def _remove_chunks(self, nuid: str) -> None:
        await self._js.purge(self.stream, chunk_subject(self.bucket, nuid))

    def direct_delivery(self) -> ObjectBlobStore:
        """See BlobStore."""
        return self

    async def check(self) -> None:
        """See BlobStore."""
        await check_bucket(self._js, self.bucket, self.stream)

    async def aclose(self) -> None:
        """See BlobStore. The connection is the caller's."""
        await self._listing.aclose()

    # --- for StagedObject ---

    def fresh_id(self) -> str:
        """A nuid nobody has used."""
        return self._new_id()

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
        known_at = self._places.now()
        conflicts = Conflicts()
        info, record = self._fitted(info, attributes)
        seen = None if expected is None else _Entry(expected)
        for _ in range(_COMMIT_ATTEMPTS):
            with conflicts.telling():
                stored = await self._publish_record(
                    info, record, attributes, conflicts, claim, seen
                )
            if stored is not None:
                if stored.created:
                    self._remember(info, 0, known_at)
                return stored
            seen = None
        raise conflicts.failure()

    async def _publish_record(
        self,
        info: BlobInfo,
        record: bytes,
        attributes: Attributes,
        conflicts: Conflicts,
        claim: Claiming | None,
        seen: _Entry | None,
    ) -> Stored | None:
        """Once; None when another write was met and there is no blob yet.

        Where anything was written before, others may have made the blob, deleted it and removed
        our chunks meanwhile. They are counted before we publish, so that nothing is replaced by
        a record without chunks, and after it, for until then we may have been paused.
        """
        entry = seen
        if entry is None:
            entry = await self._believed_entry(info.digest)
            stored = await self._found(entry, info, attributes, conflicts)
            if stored is not None:
                return stored
        record = mark_deleted_by(record, entry.deleted_by)
        if entry.sequence or info.chunks > 1:  # or they were doubled, or dropped by the stream
            await self.require_chunks(info)
        if claim is not None:
            await claim(info.generation)  # before it is published over what was seen, never after
        headers = {
            ROLLUP: "sub",
            EXPECTED_SUBJECT_SEQUENCE: str(entry.sequence),
            MSG_ID: f"{info.generation}.meta",
        }
        try:
            await self._js.publish(meta_subject(self.bucket, info.digest), record, headers)
        except RefusedError as refused:
            conflicts.note(refused)
            await conflicts.wait()
            return None
        except OutcomeUnknownError:
            if not await self._is_ours_now(info):
                raise
        if entry.sequence:
            await self._confirm(info, is_live=True)
            if not entry.is_vacant:
                await self._healed(entry, info)
        return Stored(info=info, created=True)

    async def _found(
        self, entry: _Entry, info: BlobInfo, attributes: Attributes, conflicts: Conflicts
    ) -> Stored | None:
        """The answer where the blob is there, or was there as ours; None where it is to be made."""
        if entry.meta is not None and entry.meta.nuid == info.generation:
            # Ours was the blob. If it was deleted since, that is not for us to undo.
            return await self._confirm(info, is_live=not entry.meta.deleted)
        existing = await self._existing(entry, attributes)
        if existing is not None and conflicts.certain:  # ours surely never became the blob's
            await self._remove_unneeded(info.generation)
        return existing

    def _fitted(self, info: BlobInfo, attributes: Attributes) -> tuple[BlobInfo, bytes]:
        """The record of ``info``, with as fine an index as one message carries."""
        room = self._js.connection.max_payload - _RECORD_HEADROOM_BYTES
        record = msgspec.json.encode(to_meta(self.bucket, info, attributes))
        while len(record) > room and info.index is not None:
            is_last = len(info.index.sequences) <= 1
            info = replace(info, index=None if is_last else info.index.coarser())
            record = msgspec.json.encode(to_meta(self.bucket, info, attributes))
        return info, record

    async def _is_ours_now(self, info: BlobInfo) -> bool:
        """Whether our record is there, although nobody said so. Raises OutcomeUnknownError."""
        try:
            entry = await self._entry(info.digest)
        except UnavailableError as error:
            raise OutcomeUnknownError(UNKNOWN) from error
        return entry.meta is not None and entry.meta.nuid == info.generation

    async def _confirm(self, info: BlobInfo, *, is_live: bool) -> Stored:
        """Our record was published. Without its chunks it is withdrawn: raises PartsGoneError."""
        try:
            if not is_live or await self._chunks.are_all_there(info):
                return Stored(info=info, created=True)
            await self._withdraw(info)
        except (UnavailableError, OutcomeUnknownError) as error:
            raise OutcomeUnknownError(UNKNOWN) from error
        raise PartsGoneError

    async def _withdraw(self, info: BlobInfo) -> None:
        """Take our record back, unless somebody was quicker to replace it."""
        conflicts = Conflicts()
        for _ in range(_COMMIT_ATTEMPTS):
            entry = await self._entry(info.digest)
            if entry.meta is None or entry.meta.deleted or entry.meta.nuid != info.generation:
                return
            try:
                # Under a name of its own: a tombstone of ours would say that we had the blob.
                await self._bury(info.digest, entry.sequence, self._new_id(), None)
            except RefusedError as refused:
                conflicts.note(refused)
                await conflicts.wait()
            else:
                log.warning("blob_record_withdrawn", digest=info.digest)
                return
        raise conflicts.failure()

    async def require_chunks(self, info: BlobInfo) -> None:
        """Raises PartsGoneError unless there are as many chunks as there should be."""
        if not await self._chunks.are_all_there(info):
            raise PartsGoneError

    async def _healed(self, entry: _Entry, info: BlobInfo) -> None:
        """A damaged blob was replaced. Its chunks go, unless its record said nothing of use."""
        log.warning("blob_healed", digest=info.digest)
        if entry.meta is not None:
            await self._remove_unneeded(entry.meta.nuid)

    async def _existing(self, entry: _Entry, attributes: Attributes) -> Stored | None:
        """The answer of a put that finds the blob there: its own, if it carries the same op id.

        None where there is none, or one to be replaced because it cannot be read back. Raises
        ConflictError (a foreign object), CorruptError (a later version's).
        """
        if isinstance(entry.fault, NewerFormatError):
            raise entry.fault
        if entry.fault is not None or entry.live is None:
            if entry.meta is not None:
                is_repeat(entry.meta.op_id, attributes.op_id)  # not under the id of the deletion
            return None
        meta = entry.live
        if not meta.is_ours:
            await self._js.check_leader(self.stream)
            msg = "another program has stored an object under this digest's name"
            raise ConflictError(msg)
        info = to_info(meta)
        if info.damaged or not await self._chunks.are_all_there(info):
            return None
        repeated = is_repeat(meta.op_id, attributes.op_id)
        return Stored(info=info, created=repeated)


def _is_blob(message: StoredMessage, digest: Digest) -> bool:
    """Whether ``message`` is the record of a blob. Who asks what is missing may put the rest."""
    if not message.data:
        return False
    try:
        meta = read_record(message.data, digest)
    except CorruptError:
        return False
    return meta.is_ours and not meta.deleted and not meta.is_damaged
