"""Blobs in a JetStream Object Store bucket (ADR-20), without nats-py's own object store.

A blob is an object named by its digest. Chunks are written first, under a nuid that has one writer
for ever; then the record, by compare-and-set, makes them the blob. Nothing else is ever needed to
be right: a crash in between leaves chunks that no record names, for the collector to find.

Why: docs/decisions.md, "A put of one message does not look first", and "Deleting removes at once".
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from holdfast.domain.collection import YOUNG_SHARE
from holdfast.domain.digest import Digest
from holdfast.domain.kept import has_bytes
from holdfast.errors import (
    CorruptError,
    HoldfastError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.copies import read_latest
from holdfast.stores.jetstream.blobs.changes import changes_of
from holdfast.stores.jetstream.blobs.chunks import ObjectChunks, is_content
from holdfast.stores.jetstream.blobs.claims import ObjectClaims
from holdfast.stores.jetstream.blobs.collecting import ObjectCollecting
from holdfast.stores.jetstream.blobs.commits import ObjectCommits, PartsGoneError
from holdfast.stores.jetstream.blobs.groups import Alone, PutGroups
from holdfast.stores.jetstream.blobs.healing import ObjectHealing
from holdfast.stores.jetstream.blobs.leftovers import ObjectLeftovers
from holdfast.stores.jetstream.blobs.listing import ObjectListing
from holdfast.stores.jetstream.blobs.meta import (
    NewerFormatError,
    check_address,
    chunk_subject,
    decode_meta,
    mark_counted_on,
    mark_hidden,
    meta_subject,
    meta_subjects,
    to_info,
)
from holdfast.stores.jetstream.blobs.object_records import (
    ObjectEntry,
    ObjectRecords,
    RecordChange,
    entry_of,
    put_at,
)
from holdfast.stores.jetstream.blobs.places import ChunkPlace, LatelyStored, Places, has_place
from holdfast.stores.jetstream.blobs.staging import StagedObject
from holdfast.stores.jetstream.buckets.check import check_bucket
from holdfast.stores.ports import Attributes, BlobInfo, BlobListing, Fetched, Stored
from holdfast.stores.record_ports import CHANGES_LIMIT, Extent
from holdfast.transport.jetstream_messages import SUBJECT, RefusedError, StoredMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Buffer, Callable, Sequence
    from datetime import datetime, timedelta

    from holdfast.domain.kept import Ranges
    from holdfast.sources import Sources
    from holdfast.stores.jetstream.blobs.meta import ObjectMeta
    from holdfast.stores.jetstream.conflicts import Conflicts
    from holdfast.stores.ports import BlobChanges, Keeping, Spending, Survey, SurveyedBlob
    from holdfast.transport.jetstream import JetStream

_RECORDS_AT_ONCE: Final = 64
"""So many are decoded before others have their turn."""

_BYTES_LEFT: Final = "the blob is deleted, but its bytes may be there yet: delete it again"
_NOTHING_PUT: Final = "the store did not say whether it has the data, and nothing refers to it"


class ObjectBlobStore:
    """A BlobStore, and DirectDelivery, over one bucket."""

    def __init__(self, jetstream: JetStream, bucket: str, *, sources: Sources) -> None:
        self.bucket = bucket
        self.stream = f"OBJ_{bucket}"
        self._js = jetstream
        self._new_id = sources.new_id
        self._records = ObjectRecords(jetstream, bucket, sources)
        claims = ObjectClaims(jetstream, bucket, sources.new_id)
        self._chunks = ObjectChunks(jetstream, bucket, self._records, claims)
        self._listing = ObjectListing(jetstream, bucket)
        self._collecting = ObjectCollecting(jetstream, bucket, self._records, self._chunks)
        self._healing = ObjectHealing(
            jetstream, bucket, self._records, self._chunks, claims, monotonic=sources.monotonic
        )
        self._places = Places(sources.monotonic)
        self._commits = ObjectCommits(
            jetstream, bucket, self._records, self._chunks, self._places, sources
        )
        self._leftovers = ObjectLeftovers(jetstream, bucket, self._chunks, claims)
        self._lately = LatelyStored()
        self._groups = PutGroups(jetstream, bucket, self._places, new_id=sources.new_id)

    def group_puts(self) -> None:
        """Store small puts in batches from now on, when many are under way: writes are synced."""
        self._groups.is_on = True

    def leave_young(self, grace: timedelta) -> None:
        """Collectors leave alone blobs younger than ``grace``, so writers need not look for them.

        Without this word they always do.
        """
        self._commits.young_seconds = grace.total_seconds() * YOUNG_SHARE

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
            self._places.remember_record(stored.info, 0, known_at=known_at)
        return stored

    async def _put(self, digest: Digest, view: memoryview, attributes: Attributes) -> Stored:
        looks = self._places.find(digest) is not None
        if not looks and self._groups.is_on:  # a group looks first, for all of its members at once
            grouped = await self._groups.put(digest, view, attributes)
            if isinstance(grouped, Stored):
                return grouped
            looks = grouped is Alone.LOOK
        if not looks and not self._lately.often:
            return await self._put_alone(digest, view, attributes, likely_new=True)
        entry, existing = await self._commits.find(digest, attributes)
        if existing is not None:
            return existing
        # Over a tombstone the record says more, so that one is looked at again.
        return await self._put_alone(digest, view, attributes, likely_new=not entry.sequence)

    async def _put_alone(
        self, digest: Digest, view: memoryview, attributes: Attributes, *, likely_new: bool
    ) -> Stored:
        """A chunk and then the record."""
        staged = self.stage(self._new_id(), max(len(view), 1))
        try:
            if view:
                try:
                    await staged.write(0, view)
                except OutcomeUnknownError as error:  # a chunk without a record is no blob
                    raise UnavailableError(_NOTHING_PUT) from error
            return await staged.commit(digest, len(view), attributes, likely_new=likely_new)
        except OutcomeUnknownError:
            raise  # the record may be stored, and then it needs the chunk
        except PartsGoneError as error:
            await self._discard(staged)
            raise UnavailableError("the bytes were removed before they became a blob") from error
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

        async def read(copy: BlobInfo) -> Fetched:
            return Fetched(info=copy, data=await self.get(copy))

        return await read_latest(self, info, read)

    async def _read_place(self, place: ChunkPlace) -> Buffer | None:
        """The bytes of the blob, checked; None, and no longer a place, if anything is odd."""
        info = place.info
        message = await self._js.direct_at(self.stream, self._place_query(place))
        if message is not None and message.subject == chunk_subject(self.bucket, info.generation):
            data = message.data
            if is_content(info, data):
                return data
        self._places.forget(info.digest)
        return None

    def _place_query(self, place: ChunkPlace) -> dict[str, Any]:
        """A query for the message at the place: never another subject's."""
        return {
            "seq": place.sequence,
            "next_by_subj": chunk_subject(self.bucket, place.info.generation),
        }

    async def get(self, info: BlobInfo) -> bytes:
        """See BlobStore."""
        return await self._chunks.get(info)

    def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See BlobStore."""
        return self._chunks.read(info, start, stop)

    async def locate(self, info: BlobInfo, part: int) -> tuple[int, int]:
        """See DirectDelivery."""
        return await self._chunks.locate(info, part)

    async def deliver(self, info: BlobInfo, position: int, chunks: int, subject: str) -> None:
        """See DirectDelivery."""
        self._chunks.deliver(info, position, chunks, subject)

    def deliver_bare(self, digest: Digest, at_most: int) -> Callable[[str], Awaitable[None]] | None:
        """See DirectDelivery."""
        place = self._places.find(digest)
        if place is None or place.info.size > at_most:
            return None
        query = self._place_query(place)

        async def deliver(subject: str) -> None:
            self._js.request_batch(self.stream, query, subject)

        return deliver

    async def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        """See BlobStore. A replica's word suffices that a blob is there, not that it is not."""
        if sure:
            return await self._surely_seen(digest, partial=partial)
        known_at = self._places.now()
        message = await self._js.direct_last(self.stream, meta_subject(self.bucket, digest))
        if message is not None and message.data:
            meta = decode_meta(message.data)
            if meta.is_ours and not meta.deleted:
                check_address(meta, digest)
                info = to_info(meta)
                if partial or info.kept is None:
                    self._places.remember_record(info, put_at(message), known_at=known_at)
                    return info
        return await self._surely_stat(digest, partial=partial)

    async def _surely_seen(self, digest: Digest, *, partial: bool) -> BlobInfo:
        """The record. It is damaged where chunks are gone and the record names them yet."""
        lacking: str | None = None
        while True:
            info = await self._surely_stat(digest, partial=partial)
            if info.damaged or info.generation == lacking:
                return replace(info, damaged=True)
            if await self._chunks.are_all_there(info):
                return info
            lacking = info.generation  # or another copy has taken its place meanwhile

    async def _surely_stat(self, digest: Digest, *, partial: bool) -> BlobInfo:
        known_at = self._places.now()
        entry = await self._records.believed(digest)
        meta = entry.live
        if meta is None or not meta.is_ours or not (partial or meta.kept is None):
            raise NotFoundError("no such blob")
        info = to_info(meta)
        self._places.remember_record(info, entry.put_at, known_at=known_at)
        return info

    async def missing(
        self, digests: Sequence[Digest], *, partial: bool = False, counted: bool = False
    ) -> list[Digest]:
        """See BlobStore. A replica tells of records, the leader how many chunks there are."""
        wanted = {meta_subject(self.bucket, digest): digest for digest in digests}
        messages = await self._js.direct_lasts(self.stream, list(wanted))
        found: dict[Digest, ObjectMeta] = {}
        for number, message in enumerate(messages, 1):
            if number % _RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            digest = wanted.get(message.headers.get(SUBJECT, ""))
            meta = None if digest is None else _blob_of(message, digest)
            if digest is not None and meta is not None and (partial or meta.kept is None):
                found[digest] = meta
        lacking = set[str]()
        if found and counted:
            expected = {meta.nuid: meta.chunks for meta in found.values()}
            lacking = await self._chunks.lacking(expected)
        if found:
            # A replica's blob may be gone by now, but not for long: it can reach the others.
            await self._js.check_leader(self.stream)
        return [one for one in wanted.values() if one not in found or found[one].nuid in lacking]

    async def delete(
        self, digest: Digest, *, op_id: str | None = None, kept: Keeping | None = None
    ) -> bool:
        """See BlobStore."""
        taker = op_id or self._new_id()  # by which it is told who took a pin

        async def attempt(entry: ObjectEntry, conflicts: Conflicts) -> bool:
            meta = entry.meta  # None where it is unreadable: its chunks may be another's
            if meta is not None and meta.deleted and meta.is_ours:
                # Its deleter may not have got there.
                await self._chunks.remove_forgotten(meta.nuid, _BYTES_LEFT)
            answer = entry.deletion(taker, conflicts.tried)
            if answer is not None:
                return answer
            if kept is not None and await kept():
                return await self._hide(digest, entry, taker)
            conflicts.trying = meta.nuid if meta is not None else self._new_id()
            is_hidden = meta is not None and meta.is_hidden
            by = None if is_hidden else op_id  # which a repeat is answered by
            await self._records.bury(digest, entry, conflicts.trying, by)
            if meta is not None:
                await self._chunks.remove_forgotten(meta.nuid, _BYTES_LEFT)
            return not is_hidden

        look = self._records.surely if kept is None else self._records.believed
        try:
            return await self._records.change(digest, attempt, look=look)
        finally:
            self._places.forget(digest)  # afterwards: a read may have begun meanwhile

    async def _hide(self, digest: Digest, entry: ObjectEntry, taker: str) -> bool:
        """Have the blob be there for its keepers alone; whether it was there for all.

        A chunk is moved whose place other workers may remember: they would serve it by its digest.
        Raises RefusedError, UnavailableError, OutcomeUnknownError.
        """
        meta = entry.meta
        if meta is None or meta.is_hidden:
            return False
        if not await self._hide_moved(entry, meta, taker):
            record = mark_hidden(meta, taker)
            await self._records.write(digest, entry, record, change=RecordChange.HIDDEN)
        return True

    async def _hide_moved(self, entry: ObjectEntry, meta: ObjectMeta, taker: str) -> bool:
        """Hide a blob with its only chunk under a fresh nuid; False where none can be moved.

        It has several, or nobody serves it, or the store does not take it.
        """
        info = to_info(meta)
        chunk = await self._only_chunk(info)
        if chunk is None:
            return False
        made = replace(info, generation=self._new_id(), index=None)
        record = mark_hidden(meta, taker, moved_to=made.generation)
        try:
            await self._records.swap(entry, made, [chunk], record, RecordChange.HIDDEN)
        except RefusedError as refused:
            if refused.certain and not refused.conflict:
                return False
            raise
        await self._chunks.remove_unneeded(info.generation)
        return True

    async def _only_chunk(self, info: BlobInfo) -> bytes | None:
        """The bytes of a blob with a place; None where it has none, or nobody serves them."""
        if not has_place(info):
            return None
        try:
            return await self._chunks.get(info)
        except (NotFoundError, CorruptError):
            return None

    async def touch(
        self, digest: Digest, *, unless_seen_since: datetime, needed: Ranges | None = None
    ) -> bool:
        """See BlobStore. The record is written again as it is, which gives it another sequence."""
        met: float = math.inf

        async def attempt(entry: ObjectEntry, conflicts: Conflicts) -> bool:
            nonlocal met
            is_there = await self._has_bytes(entry, needed)
            if not is_there:
                latest = await self._records.believed(digest)
                if latest.sequence == entry.sequence:
                    return False
                return await attempt(latest, conflicts)  # another copy may have taken its place
            is_new = entry.stored_at is not None and entry.stored_at >= unless_seen_since
            meta = entry.meta if entry.meta is not None and entry.meta.is_hidden else None
            others_did = is_new or entry.sequence > met  # have put or touched it
            if others_did and meta is None:
                await self._js.check_leader(self.stream)
                return True
            met = entry.sequence
            record = entry.record if meta is None else mark_counted_on(meta, pinned=False)
            await self._records.write(digest, entry, record, change=RecordChange.TOUCHED)
            return True

        return await self._records.change(digest, attempt)

    async def _has_bytes(self, entry: ObjectEntry, needed: Ranges | None) -> bool:
        """Whether there is a blob, and its chunks as far as that is cheap to see."""
        if isinstance(entry.fault, NewerFormatError):
            raise entry.fault
        meta = entry.meta  # None where it is unreadable: a put replaces it
        if meta is None or meta.deleted or not meta.is_ours or meta.is_damaged:
            return False
        info = to_info(meta)
        return has_bytes(info.kept, needed) and await self._chunks.are_all_there(info)

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See BlobStore."""
        await self._healing.read_back(info, spend)

    async def report_damage(self, info: BlobInfo) -> bool:
        """See BlobStore. The leader is asked for the bytes, then any replica."""
        try:
            return await self._healing.heal(info)
        finally:
            self._places.forget(info.digest)

    async def now(self) -> datetime:
        """See BlobStore. It is the leader's clock, which stamps every message."""
        return await self._js.leaders_time(self.stream)

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See BlobStore. In the order of writing, or with a prefix in that of the digests."""
        return await self._listing.page(prefix=prefix, cursor=cursor, limit=limit)

    async def extent(self) -> Extent:
        """See BlobStore. A leader that is believed says so; chunks count like records."""
        state = await self._js.state(self.stream)
        return Extent(created=state.created, last=state.last_sequence, keys=state.num_subjects)

    async def count(self) -> tuple[int, int]:
        """See BlobStore. Claims, which go away, lie among the records: so these are told apart."""
        least = await self.leftovers().counted()
        return least, await self._js.count_subjects(self.stream, meta_subjects(self.bucket))

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> BlobChanges:
        """See BlobStore."""
        return await changes_of(self._js, self.bucket, after, limit)

    async def survey(self, cursor: str | None, *, limit: int) -> Survey:
        """See BlobStore."""
        return await self._collecting.survey(cursor, limit)

    async def collect(self, blob: SurveyedBlob) -> bool:
        """See BlobStore."""
        try:
            return await self._collecting.collect(blob)
        finally:
            self._places.forget(blob.digest)  # afterwards, as in `delete`

    async def repack(self, blob: SurveyedBlob, needed: Ranges) -> int | None:
        """See BlobStore."""
        try:
            return await self._collecting.repack(blob, needed)
        finally:
            self._places.forget(blob.digest)

    def stage(self, staging: str, part_size: int) -> StagedObject:
        """See BlobStore."""
        return StagedObject(self._commits, self._chunks, staging, part_size)

    def staged_parts(self, staging: str) -> AsyncIterator[Buffer]:
        """See BlobStore."""
        return self._chunks.staged(staging)

    async def discard_staged(self, staging: str) -> None:
        """See BlobStore."""
        await self._chunks.remove(staging)

    def leftovers(self) -> ObjectLeftovers:
        """See BlobStore."""
        return self._leftovers

    def direct_delivery(self) -> ObjectBlobStore:
        """See BlobStore."""
        return self

    async def check(self) -> None:
        """See BlobStore."""
        await check_bucket(self._js, self.bucket, self.stream)

    async def aclose(self) -> None:
        """See BlobStore. The connection is the caller's."""
        await self._listing.aclose()


def _blob_of(message: StoredMessage, digest: Digest) -> ObjectMeta | None:
    """The record of a blob in ``message``; None: there is none, and a caller may put it."""
    meta = entry_of(message, digest).meta
    if meta is None or not meta.is_ours or meta.deleted or meta.is_damaged or meta.is_hidden:
        return None
    return meta
