"""Chunks that are all there become a blob: its record is written, by compare-and-set.

Why: docs/decisions.md, "Chunks and record are published one after the other", "A record is not
published over anything without a look at the chunks", and "A put heals".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from msgspec.structs import replace

from holdfast.domain.op_id import is_repeat
from holdfast.errors import ConflictError, OutcomeUnknownError, UnavailableError
from holdfast.stores.jetstream.blobs.meta import (
    DELETIONS_BYTES,
    NewerFormatError,
    inherit,
    mark_counted_on,
    to_info,
    to_meta,
)
from holdfast.stores.jetstream.blobs.object_records import ObjectEntry, RecordChange
from holdfast.stores.jetstream.conflicts import UNKNOWN
from holdfast.stores.ports import Attributes, BlobInfo, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.domain.digest import Digest
    from holdfast.sources import Sources
    from holdfast.stores.jetstream.blobs.chunks import ObjectChunks
    from holdfast.stores.jetstream.blobs.meta import ObjectMeta
    from holdfast.stores.jetstream.blobs.object_records import ObjectRecords
    from holdfast.stores.jetstream.blobs.places import Places
    from holdfast.stores.jetstream.conflicts import Conflicts
    from holdfast.stores.ports import Claiming
    from holdfast.transport.jetstream import JetStream

_RECORD_HEADROOM_BYTES: Final = 512 + DELETIONS_BYTES
"""Bytes of a record's headers and its notes of deletions, at the most."""

log = structlog.get_logger(__name__)


class PartsGoneError(ConflictError):
    """The chunks are not as they were written: removed by somebody else, or stored twice."""

    def __init__(self) -> None:
        super().__init__("the parts were removed before they became a blob: send them again")


class ObjectCommits:
    """Makes the blobs of one bucket."""

    def __init__(
        self,
        jetstream: JetStream,
        bucket: str,
        records: ObjectRecords,
        chunks: ObjectChunks,
        places: Places,
        sources: Sources,
    ) -> None:
        self.young_seconds = 0.0
        """For so long no collector looks for the record of a chunk."""
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"
        self.new_id = records.new_id
        self._records = records
        self._chunks = chunks
        self._places = places
        self._sources = sources

    def begin(self) -> Callable[[], bool]:
        """A first chunk is about to be written; the result says whether it is young still.

        The clock of the day goes on where this machine sleeps, the other where that one is set.
        """
        began_at, day = self._sources.monotonic(), self._sources.clock()

        def is_young() -> bool:
            slept = (self._sources.clock() - day).total_seconds()
            return max(self._sources.monotonic() - began_at, slept) < self.young_seconds

        return is_young

    async def commit(
        self,
        info: BlobInfo,
        attributes: Attributes,
        claim: Claiming | None = None,
        *,
        likely_new: bool = False,
        doubtful: bool = False,
        is_young: Callable[[], bool] = lambda: False,
    ) -> Stored:
        """Make the chunks of ``info.generation`` the blob; ``doubtful`` ones are counted first.

        ``is_young`` says whether no collector looks for their record yet. The record of a
        ``likely_new`` blob is read only if there is one. Raises PartsGoneError where the chunks are
        not there, or about to go, and then the blob will not be made of them.
        """
        known_at = self._places.now()
        if doubtful:
            await self._require_chunks(info)
        info, record = self._fitted(info, attributes)
        seen = ObjectEntry(0) if likely_new else None

        async def attempt(entry: ObjectEntry, conflicts: Conflicts) -> Stored:
            """Write the record, unless the blob is there.

            Where anything was written before, others may have made the blob, deleted it and
            removed our chunks meanwhile. They are counted before we publish, so that nothing is
            replaced by a record without chunks, and after it, for until then we may have been
            paused; so they are where a collector may look for the record of the chunks.
            """
            if entry is not seen:
                stored = await self._found(entry, info, attributes, conflicts)
                if stored is not None:
                    return stored
            if entry.sequence or info.chunks > 1:  # or they were doubled, or dropped by the stream
                await self._require_chunks(info)
            if claim is not None:
                await claim(info.generation)  # before it is published over what was seen
            ours = inherit(record, entry.meta)
            try:
                await self._records.write(info.digest, entry, ours, f"{info.generation}.meta")
            except OutcomeUnknownError as unknown:
                await self._find_out(info, unknown)
            if entry.sequence or not is_young():
                await self._confirm(info, is_live=True)
                await self._healed(entry, info)
            is_pinned = entry.meta is not None and entry.meta.is_pinned
            made = replace(info, pinned=True) if is_pinned else info
            return Stored(info=made, created=True)

        stored = await self._records.change(
            info.digest, attempt, look=self._records.believed, seen=seen
        )
        if stored.created:
            self._places.remember_record(stored.info, 0, known_at=known_at)
        return stored

    async def _put_over(
        self, entry: ObjectEntry, partial: ObjectMeta, info: BlobInfo, attributes: Attributes
    ) -> Stored:
        """Put the blob, whose chunks are there, in the place of a partial one that others need."""
        parts = [bytes(part) async for part in self._chunks.staged(info.generation)]
        if len(parts) != info.chunks:
            raise PartsGoneError
        made = replace(info, generation=self.new_id(), index=None)
        record = msgspec.json.encode(to_meta(self._bucket, made, attributes))
        await self._records.swap(entry, made, parts, inherit(record, partial))
        for nuid in info.generation, partial.nuid:
            await self._chunks.remove_unneeded(nuid)
        return Stored(info=made, created=True)

    async def _found(
        self, entry: ObjectEntry, info: BlobInfo, attributes: Attributes, conflicts: Conflicts
    ) -> Stored | None:
        """The answer where the blob is there, or was there as ours; None where it is to be made."""
        if entry.meta is not None and entry.meta.nuid == info.generation:
            # Ours was the blob. If it was deleted since, that is not for us to undo.
            return await self._confirm(info, is_live=not entry.meta.deleted)
        existing = await self._existing(entry, attributes, conflicts)
        if existing is not None and conflicts.certain:  # ours surely never became the blob's
            await self._chunks.remove_unneeded(info.generation)
        if existing is None and entry.is_partial and entry.meta is not None:
            return await self._put_over(entry, entry.meta, info, attributes)
        return existing

    def _fitted(self, info: BlobInfo, attributes: Attributes) -> tuple[BlobInfo, bytes]:
        """The record of ``info``, with as fine an index as one message carries."""
        room = self._js.connection.max_payload - _RECORD_HEADROOM_BYTES
        record = msgspec.json.encode(to_meta(self._bucket, info, attributes))
        while len(record) > room and info.index is not None:
            is_last = len(info.index.sequences) <= 1
            info = replace(info, index=None if is_last else info.index.coarser())
            record = msgspec.json.encode(to_meta(self._bucket, info, attributes))
        return info, record

    async def _find_out(self, info: BlobInfo, unknown: OutcomeUnknownError) -> None:
        """Raises OutcomeUnknownError unless our record is there, although nobody said so."""
        try:
            entry = await self._records.read(info.digest)
        except UnavailableError as error:
            raise OutcomeUnknownError(UNKNOWN) from error
        if entry.meta is None or entry.meta.nuid != info.generation:
            raise unknown

    async def _confirm(self, info: BlobInfo, *, is_live: bool) -> Stored:
        """Our record was published. Without its chunks it is withdrawn: raises PartsGoneError.

        Nobody counts on it then: others have looked for the chunks, too. Where it was replaced
        since, by a deletion or a put, it is that which the chunks went with.
        """
        try:
            if not is_live or await self._chunks.are_all_there(info):
                return Stored(info=info, created=True)
            if not await self._withdraw(info):
                return Stored(info=info, created=True)
        except (UnavailableError, OutcomeUnknownError) as error:
            raise OutcomeUnknownError(UNKNOWN) from error
        raise PartsGoneError

    async def _withdraw(self, info: BlobInfo) -> bool:
        """Take our record back; False where somebody was quicker to replace it."""

        async def attempt(entry: ObjectEntry, _: Conflicts) -> bool:
            if not entry.is_of(info.generation):
                return False
            # Under a name of its own: a tombstone of ours would say that we had the blob.
            await self._records.bury(info.digest, entry, self.new_id(), None)
            log.warning("blob_record_withdrawn", digest=info.digest)
            return True

        return await self._records.change(info.digest, attempt, look=self._records.believed)

    async def _require_chunks(self, info: BlobInfo) -> None:
        """Raises PartsGoneError unless there are as many chunks as there should be."""
        if not await self._chunks.are_all_there(info):
            raise PartsGoneError

    async def _healed(self, entry: ObjectEntry, info: BlobInfo) -> None:
        """``entry`` was replaced. The chunks of a damaged record go."""
        if not entry.is_vacant:
            log.warning("blob_healed", digest=info.digest)
            if entry.meta is not None:
                await self._chunks.remove_unneeded(entry.meta.nuid)

    async def find(
        self, digest: Digest, attributes: Attributes
    ) -> tuple[ObjectEntry, Stored | None]:
        """The record, and the answer of a put where the blob is there."""

        async def attempt(
            entry: ObjectEntry, conflicts: Conflicts
        ) -> tuple[ObjectEntry, Stored | None]:
            return entry, await self._existing(entry, attributes, conflicts)

        return await self._records.change(digest, attempt, look=self._records.believed)

    async def _existing(
        self, entry: ObjectEntry, attributes: Attributes, conflicts: Conflicts
    ) -> Stored | None:
        """The answer of a put that finds the blob there: its own, if it carries the same op id.

        None where there is none, or one to be replaced because it cannot be read back. A put that
        pins has pinned it, one that touches has touched it. Raises ConflictError (a foreign
        object), CorruptError (a later version's), RefusedError.
        """
        if isinstance(entry.fault, NewerFormatError):
            raise entry.fault
        if entry.fault is not None or entry.live is None:
            if entry.meta is not None:
                is_repeat(entry.meta.op_id, attributes.op_id)  # not under the id of the deletion
            return None
        meta = entry.live
        if not meta.is_ours:
            await self._js.check_leader(self._stream)
            raise ConflictError("another program has stored an object under this digest's name")
        info = to_info(meta)
        if info.damaged or info.kept is not None or not await self._chunks.are_all_there(info):
            return None
        repeated = is_repeat(meta.op_id, attributes.op_id)
        if info.deleted or (attributes.pinned and not info.pinned):
            record = mark_counted_on(meta, pinned=attributes.pinned)
            await self._records.write(info.digest, entry, record, change=RecordChange.PINNED)
            info = replace(info, pinned=info.pinned or attributes.pinned, deleted=False)
        elif attributes.touches and entry.sequence <= conflicts.met:
            conflicts.met = entry.sequence
            await self._records.write(info.digest, entry, entry.record, change=RecordChange.TOUCHED)
        elif attributes.touches:  # others have put or touched it, since we began
            await self._js.check_leader(self._stream)
        return Stored(info=info, created=repeated)
