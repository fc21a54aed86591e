"""Blobs in a JetStream Object Store bucket (ADR-20), without nats-py's own object store.

A blob is an object named by its digest. Chunks are written first, under a nuid that has one writer
for ever; then the record, by compare-and-set, makes them the blob. Nothing else is ever needed to
be right: a crash in between leaves chunks that no record names, for the collector to find.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.domain.chunk_index import ChunkIndex
from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.limits import WINDOW_BYTES
from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    InvalidError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.bucket_check import OBJECT_SETTINGS, check_bucket
from holdfast.stores.conflicts import UNKNOWN, Conflicts
from holdfast.stores.object_meta import (
    ObjectMeta,
    check_address,
    chunk_subject,
    decode_meta,
    meta_subject,
    to_entry,
    to_info,
    to_meta,
    tombstone,
)
from holdfast.stores.object_staging import StagedObject, part_of
from holdfast.stores.places import LatelyStored, Place, Places
from holdfast.stores.ports import Attributes, BlobInfo, BlobListing, Fetched, Stored
from holdfast.stores.put_groups import Alone, PutGroups
from holdfast.transport.jetstream_messages import (
    EXPECTED_SUBJECT_SEQUENCE,
    MSG_ID,
    ROLLUP,
    SUBJECT,
    TTL,
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

    from holdfast.transport.jetstream import JetStream

TOMBSTONE_TTL: Final = timedelta(hours=24)
_COMMIT_ATTEMPTS: Final = 8
_SCAN_PER_PAGE: Final = 8192
_LAG_SECONDS: Final = 0.05
_LAG_LOOKS: Final = 40


@dataclass(frozen=True, slots=True)
class _Entry:
    """The record subject as the leader has it. ``sequence`` 0: nothing was ever there."""

    sequence: int
    meta: ObjectMeta | None

    @property
    def live(self) -> ObjectMeta | None:
        return self.meta if self.meta is not None and not self.meta.deleted else None


class ObjectBlobStore:
    """A BlobStore, and DirectDelivery, over one bucket."""

    def __init__(
        self,
        jetstream: JetStream,
        bucket: str,
        *,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
    ) -> None:
        """``new_id`` gives fresh nuids: 22 of A-Z a-z 0-9."""
        self.bucket = bucket
        self.stream = f"OBJ_{bucket}"
        self._js = jetstream
        self._new_id = new_id
        self._clock = clock
        self._places = Places()
        self._lately = LatelyStored()
        self._groups = PutGroups(jetstream, bucket, self._places, new_id=new_id)

    def group_puts(self) -> None:
        """Store small puts in batches from now on, when many are under way: writes are synced."""
        self._groups.is_on = True

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See BlobStore."""
        view = memoryview(data).cast("B")
        known_at = self._places.now()
        with self._groups.counted(len(view)):
            stored = await self._put(digest, view, attributes)
        self._lately.note(found=not stored.created)
        if not stored.created:
            self._remember(stored.info, 0, known_at)
        return stored

    async def _put(self, digest: Digest, view: memoryview, attributes: Attributes) -> Stored:
        looks = self._lately.often or self._places.find(digest) is not None
        if not looks:
            grouped = await self._groups.put(digest, view, attributes)
            if isinstance(grouped, Stored):
                return grouped
            looks = grouped is Alone.LOOK
        if not looks:
            return await self._put_alone(digest, view, attributes, 0)
        entry = await self._entry(digest)
        if entry.live is not None:
            await self._js.check_leader(self.stream)
            return _existing(entry.live, attributes)
        return await self._put_alone(digest, view, attributes, entry.sequence)

    async def _put_alone(
        self, digest: Digest, view: memoryview, attributes: Attributes, expected: int
    ) -> Stored:
        """A chunk and then the record, if the last one's sequence is ``expected`` still."""
        staged = self.stage(self._new_id(), max(len(view), 1))
        try:
            if view:
                await self._write_only_part(staged, view)
            return await staged.commit(digest, len(view), attributes, expected=expected)
        except OutcomeUnknownError:
            raise  # the record may be stored, and then it needs the chunk
        except HoldfastError:
            with suppress(UnavailableError, OutcomeUnknownError):  # the collector will
                await staged.discard()
            raise

    async def _write_only_part(self, staged: StagedObject, view: memoryview) -> None:
        """A chunk without a record is no blob: whether it was stored or not, nothing was put."""
        try:
            await staged.write(0, view)
        except OutcomeUnknownError as error:
            msg = "the store did not say whether it has the data, and nothing refers to it"
            raise UnavailableError(msg) from error

    async def fetch(self, digest: Digest, at_most: int) -> Fetched:
        """See BlobStore. One request where the place of the only chunk is remembered."""
        place = self._places.find(digest)
        if place is not None and place.info.size <= at_most:
            data = await self._read_place(place)
            if data is not None:
                return Fetched(info=place.info, data=data)
        info = await self.stat(digest)
        return Fetched(info=info, data=await self.get(info) if info.size <= at_most else None)

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
                raise _corrupt(info)
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

    async def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See BlobStore."""
        if start >= stop:
            if info.size == 0 and info.digest != digest_of(b""):
                raise _corrupt(info)
            return
        whole = hashlib.sha256() if (start, stop) == (0, info.size) else None
        part = start // info.part_size
        last = (stop - 1) // info.part_size
        async for data in self._chunks(info, part, last):
            offset = part * info.part_size
            view = memoryview(data)
            if len(view) != min(info.part_size, info.size - offset):
                raise _corrupt(info)
            if whole is not None:
                whole.update(view)
                if part == last and whole.hexdigest() != info.digest:
                    raise _corrupt(info)
            yield view[max(start - offset, 0) : stop - offset]
            part += 1

    async def _chunks(self, info: BlobInfo, first: int, last: int) -> AsyncGenerator[Buffer]:
        """Chunks ``first`` to ``last``, window by window, each checked to be the one expected."""
        per_window = max(WINDOW_BYTES // info.part_size, 1)
        wanted = first
        found, position = await self.locate(info, first)
        while wanted <= last:
            query = {
                "batch": min(per_window, last - found + 1),
                "seq": position,
                "next_by_subj": chunk_subject(self.bucket, info.generation),
            }
            messages, _ = await self._js.direct_batch(self.stream, query)
            if not messages:
                messages = [await self._leader_chunk(info, position)]
            for message in messages:
                if part_of(message) != found:
                    raise _corrupt(info)
                if found == wanted:
                    yield message.data
                    wanted += 1
                found += 1
                position = message.sequence + 1

    async def _leader_chunk(self, info: BlobInfo, position: int) -> StoredMessage:
        subject = chunk_subject(self.bucket, info.generation)
        message = await self._js.surely(
            self.stream, lambda: self._js.next_message(self.stream, subject, position)
        )
        if message is None:
            raise await self._why_missing(info)
        return message

    async def _why_missing(self, info: BlobInfo) -> HoldfastError:
        """Chunks are gone: because the blob is, or they were lost?"""
        entry = await self._entry(info.digest)
        if entry.live is None or entry.live.nuid != info.generation:
            return NotFoundError("no such blob")
        return _corrupt(info)

    async def locate(self, info: BlobInfo, part: int) -> tuple[int, int]:
        """See DirectDelivery."""
        if info.index is None:
            return 0, 1
        first, position = info.index.locate(part)
        if part - first >= max(WINDOW_BYTES // info.part_size, 1):
            return await self._bisect(info, info.index, part)
        return first, position

    async def _bisect(self, info: BlobInfo, index: ChunkIndex, part: int) -> tuple[int, int]:
        """Find ``part`` between two index entries. An upload that was alone hits at once."""
        first, low = index.locate(part)
        _, high = index.bounds(part)
        guess = low + (part - first)
        subject = chunk_subject(self.bucket, info.generation)
        while True:
            message = await self._js.next_message(self.stream, subject, guess)
            if message is None and high is None:
                high = guess
            elif message is None:
                raise await self._why_missing(info)
            elif (found := part_of(message)) == part:
                return part, message.sequence
            elif found < part:
                low = message.sequence + 1
                guess = low + (part - found - 1)
            else:
                high = guess
            if high is not None and not low <= guess < high:
                guess = (low + high) // 2
            if high is not None and low >= high:
                raise _corrupt(info)

    async def deliver(self, info: BlobInfo, position: int, chunks: int, subject: str) -> None:
        """See DirectDelivery."""
        query = {
            "batch": chunks,
            "seq": position,
            "next_by_subj": chunk_subject(self.bucket, info.generation),
        }
        self._js.request_batch(self.stream, query, subject)

    def deliver_bare(self, digest: Digest, at_most: int) -> Callable[[str], Awaitable[None]] | None:
        """See DirectDelivery."""
        place = self._places.find(digest)
        if place is None or place.info.size > at_most:
            return None
        query = self._place_query(place)

        async def deliver(subject: str) -> None:
            self._js.request_batch(self.stream, query, subject)

        return deliver

    async def stat(self, digest: Digest) -> BlobInfo:
        """See BlobStore. A replica's word suffices that a blob is there, not that it is not."""
        known_at = self._places.now()
        message = await self._js.direct_last(self.stream, meta_subject(self.bucket, digest))
        meta = decode_meta(message.data) if message is not None and message.data else None
        sequence = message.sequence if message is not None else 0
        if meta is None or meta.deleted:
            present = await self._js.surely(self.stream, lambda: self._live_entry(digest))
            meta = present.live if present is not None else None
            sequence = present.sequence if present is not None else 0
        if meta is None or not meta.is_ours:
            msg = "no such blob"
            raise NotFoundError(msg)
        check_address(meta, digest)
        info = to_info(meta)
        self._remember(info, sequence, known_at)
        return info

    def _remember(self, info: BlobInfo, sequence: int, known_at: float) -> None:
        """Where the only chunk is: ``sequence`` is the record's, which in a batch comes next.

        A place before the chunk does as well, if the server has to search a little.
        """
        if info.chunks == 1:
            at = info.index.sequences[0] if info.index is not None else max(sequence - 1, 1)
            self._places.remember(info, at, known_at=known_at)

    async def _live_entry(self, digest: Digest) -> _Entry | None:
        entry = await self._entry(digest)
        return None if entry.live is None else entry

    async def _entry(self, digest: Digest) -> _Entry:
        subject = meta_subject(self.bucket, digest)
        message = await self._js.last_message(self.stream, subject)
        if message is None:
            return _Entry(0, None)
        if not message.data:  # a marker that a tombstone's time was up
            return _Entry(message.sequence, None)
        meta = decode_meta(message.data)
        check_address(meta, digest)
        return _Entry(message.sequence, meta)

    async def missing(self, digests: Sequence[Digest]) -> list[Digest]:
        """See BlobStore."""
        wanted = {meta_subject(self.bucket, digest): digest for digest in digests}
        if not wanted:
            return []
        query = {"multi_last": list(wanted), "batch": len(wanted)}
        messages, _ = await self._js.direct_batch(self.stream, query)
        for message in messages:
            subject = message.headers.get(SUBJECT, "")
            if subject in wanted and _is_blob(message, wanted[subject]):
                del wanted[subject]
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
        present = await self._js.surely(self.stream, lambda: self._live_entry(digest))
        entry = present or await self._entry(digest)
        meta = entry.live
        if meta is None or not meta.is_ours:
            gone = entry.meta
            if gone is None or not (gone.deleted and gone.is_ours):
                return False
            await self._remove_deleted(gone.nuid)  # whoever deleted it may not have got there
            return gone.nuid == conflicts.tried or (op_id is not None and gone.op_id == op_id)
        chunk_subject(self.bucket, meta.nuid)  # corrupt? then before anything is changed
        record = tombstone(self.bucket, digest, meta.nuid, self._clock(), op_id)
        headers = {
            ROLLUP: "sub",
            EXPECTED_SUBJECT_SEQUENCE: str(entry.sequence),
            TTL: f"{int(TOMBSTONE_TTL.total_seconds())}s",
            MSG_ID: self._new_id(),
        }
        try:
            await self._js.publish(meta_subject(self.bucket, digest), record, headers)
        except RefusedError as refused:
            conflicts.note(refused, tried=meta.nuid)
            await conflicts.wait()
            return None
        await self._remove_deleted(meta.nuid)
        return True

    async def touch(self, digest: Digest, *, unless_seen_since: datetime) -> bool:
        """See BlobStore. The record is written again as it is, which gives it another sequence."""
        subject = meta_subject(self.bucket, digest)
        met: int | None = None
        conflicts = Conflicts()
        for _ in range(_COMMIT_ATTEMPTS):
            message = await self._js.last_message(self.stream, subject)
            meta = decode_meta(message.data) if message is not None and message.data else None
            if message is None or meta is None or meta.deleted or not meta.is_ours:
                await self._js.check_leader(self.stream)
                return False
            check_address(meta, digest)
            if message.stored_at is not None and message.stored_at >= unless_seen_since:
                return True
            if met is not None and message.sequence > met:
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

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See BlobStore. In the order in which records were written."""
        position = _parse_cursor(cursor)
        entries: list[Any] = []
        scanned = looks = 0
        while len(entries) < limit and scanned < _SCAN_PER_PAGE:
            query = {
                "batch": limit if not prefix else 1000,
                "seq": position,
                "next_by_subj": f"$O.{self.bucket}.M.>",
            }
            messages, pending = await self._js.direct_batch(self.stream, query)
            for message in messages:
                position = message.sequence + 1
                scanned += 1
                entry = _listed(message, self.bucket, prefix)
                if entry is not None:
                    entries.append(entry)
                    if len(entries) == limit:
                        break
            else:
                if not pending and await self._is_end(position):
                    return BlobListing(entries=entries, cursor=None)
                if not messages:
                    looks += 1
                    await self._wait_for_replica(looks)
        return BlobListing(entries=entries, cursor=str(position))

    async def _is_end(self, position: int) -> bool:
        """Whether no record lies at ``position`` or behind. The leader says: a replica may lag."""
        records = f"$O.{self.bucket}.M.>"
        following = await self._js.surely(
            self.stream, lambda: self._js.next_message(self.stream, records, position)
        )
        return following is None

    async def _wait_for_replica(self, looks: int) -> None:
        """Before the ``looks``-th further look. Raises UnavailableError when it lags for long."""
        if looks > _LAG_LOOKS:
            msg = "the replica that was asked lacks the newest blobs"
            raise UnavailableError(msg)
        await asyncio.sleep(_LAG_SECONDS)

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

    async def _remove_chunks(self, nuid: str) -> None:
        await self._js.purge(self.stream, chunk_subject(self.bucket, nuid))

    def direct_delivery(self) -> ObjectBlobStore:
        """See BlobStore."""
        return self

    async def check(self) -> None:
        """See BlobStore."""
        await check_bucket(self._js, self.bucket, self.stream, OBJECT_SETTINGS)

    async def aclose(self) -> None:
        """See BlobStore. The connection is the caller's."""

    # --- for StagedObject ---

    def fresh_id(self) -> str:
        """A nuid nobody has used."""
        return self._new_id()

    async def publish_record(self, info: BlobInfo, attributes: Attributes) -> Stored:
        """Make the chunks of ``info.generation`` the blob, by compare-and-set."""
        return await self.publish_record_at(info, attributes, None)

    async def publish_record_at(
        self, info: BlobInfo, attributes: Attributes, expected: int | None
    ) -> Stored:
        """The same; the record is read first only if that at ``expected`` is not the last one."""
        known_at = self._places.now()
        conflicts = Conflicts()
        for _ in range(_COMMIT_ATTEMPTS):
            with conflicts.telling():
                stored = await self._publish_record(info, attributes, conflicts, expected)
            expected = None
            if stored is not None:
                if stored.created:
                    self._remember(info, 0, known_at)
                return stored
        raise conflicts.failure()

    async def _publish_record(
        self, info: BlobInfo, attributes: Attributes, conflicts: Conflicts, expected: int | None
    ) -> Stored | None:
        """Once; None when another write was met and there is no blob yet."""
        if expected is None:
            entry = await self._entry(info.digest)
            if entry.live is not None:
                return await self._yield_to(entry.live, info, attributes, lost=conflicts.certain)
            expected = entry.sequence
        headers = {
            ROLLUP: "sub",
            EXPECTED_SUBJECT_SEQUENCE: str(expected),
            MSG_ID: f"{info.generation}.meta",
        }
        record = msgspec.json.encode(to_meta(self.bucket, info, attributes))
        try:
            await self._js.publish(meta_subject(self.bucket, info.digest), record, headers)
        except RefusedError as refused:
            conflicts.note(refused)
            winner = await self._winner(info.digest, certain=conflicts.certain)
            if winner is not None:
                lost = conflicts.certain and refused.certainly_lost
                return await self._yield_to(winner, info, attributes, lost=lost)
            await conflicts.wait()
            return None
        except OutcomeUnknownError:
            winner = await self._winner(info.digest, certain=False)
            if winner is None or winner.nuid != info.generation:
                raise
        return Stored(info=info, created=True)

    async def _winner(self, digest: Digest, *, certain: bool) -> ObjectMeta | None:
        """The blob's record now. Not reached, ours may still be it, unless ``certain``."""
        try:
            return (await self._entry(digest)).live
        except UnavailableError as error:
            if certain:
                raise
            raise OutcomeUnknownError(UNKNOWN) from error

    async def _yield_to(
        self, winner: ObjectMeta, info: BlobInfo, attributes: Attributes, *, lost: bool
    ) -> Stored:
        """The blob exists. Ours go if our record surely never became the blob's (``lost``)."""
        if winner.nuid == info.generation:
            return Stored(info=info, created=True)
        await self._js.check_leader(self.stream)
        stored = _existing(winner, attributes)  # or it is no blob: then nothing is changed
        if lost:
            with suppress(UnavailableError, OutcomeUnknownError):  # the collector will
                await self._remove_chunks(info.generation)
        return stored


def _listed(message: StoredMessage, bucket: str, prefix: str) -> Any:
    """The row for one record; None for what a listing leaves out."""
    if not message.data:
        return None
    try:
        meta = decode_meta(message.data)
    except CorruptError:
        return None
    if meta.deleted or (prefix and not (meta.is_ours and meta.name.startswith(prefix))):
        return None
    if meta.is_ours and message.subject != meta_subject(bucket, meta.name):
        return None  # it says that it is another blob, whose own record is listed
    return to_entry(meta)


def _is_blob(message: StoredMessage, digest: Digest) -> bool:
    """Whether ``message`` is the record of a blob. Who asks what is missing may put the rest."""
    if not message.data:
        return False
    try:
        meta = decode_meta(message.data)
    except CorruptError:
        return False
    return meta.is_ours and not meta.deleted and meta.name == digest


def _existing(meta: ObjectMeta, attributes: Attributes) -> Stored:
    """The answer of a put that found the blob there: its own, if it carries the same op id."""
    if not meta.is_ours:
        msg = "another program has stored an object under this digest's name"
        raise ConflictError(msg)
    repeated = attributes.op_id is not None and meta.op_id == attributes.op_id
    return Stored(info=to_info(meta), created=repeated)


def _parse_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 1
    if not cursor.isdecimal() or not cursor.isascii() or int(cursor) < 1 or len(cursor) > 18:
        msg = "not a cursor of this listing"
        raise InvalidError(msg)
    return int(cursor)


def _corrupt(info: BlobInfo) -> CorruptError:
    return CorruptError(f"the stored bytes of blob {info.digest} are not what was put")
