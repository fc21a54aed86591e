"""A collector's work in a JetStream Object Store bucket: it goes over the blobs, removes some.

The mark of a blob is the sequence of its record. A record is listed as some replica has it, and may
be another by now, or one that came back beneath it: a removal is decided by compare-and-set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest, is_digest
from holdfast.domain.kept import reduced
from holdfast.errors import (
    CorruptError,
    InvalidError,
    NotFoundError,
)
from holdfast.stores.jetstream.blobs.meta import (
    decode_meta,
    is_of_blob,
    mark_partial,
    name_at,
    read_record,
    to_info,
)
from holdfast.stores.jetstream.blobs.object_records import RecordChange
from holdfast.stores.jetstream.blobs.walk import RecordWalk
from holdfast.stores.keys import check_limit
from holdfast.stores.ports import Survey, SurveyedBlob, reduced_info
from holdfast.transport.jetstream_messages import RefusedError

if TYPE_CHECKING:
    from holdfast.domain.kept import Ranges
    from holdfast.stores.jetstream.blobs.chunks import ObjectChunks
    from holdfast.stores.jetstream.blobs.object_records import ObjectEntry, ObjectRecords
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_CURSOR: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)


class ObjectCollecting:
    """A collector's view of one bucket."""

    def __init__(
        self, jetstream: JetStream, bucket: str, records: ObjectRecords, chunks: ObjectChunks
    ) -> None:
        self._js = jetstream
        self._bucket = bucket
        self._records = records
        self._chunks = chunks

    async def survey(self, cursor: str | None, limit: int) -> Survey:
        """See ``BlobStore.survey``. In the order in which the records were written."""
        check_limit(limit)
        if cursor is not None and _CURSOR.fullmatch(cursor) is None:
            raise InvalidError("not a cursor of this survey")
        walk = RecordWalk(self._js, self._bucket, int(cursor or 1))
        page = _Page()
        while walk.goes_on:
            for record in await walk.step(limit - len(page.blobs)):
                page.add(record)
                if len(page.blobs) == limit:
                    return page.survey(str(record.sequence + 1))
        return page.survey(None if walk.is_at_end else str(walk.position))

    async def collect(self, blob: SurveyedBlob) -> bool:
        """See ``BlobStore.collect``.

        The bytes of a copy with a tombstone of any writer may go: they are no blob's any
        more, and nobody makes them one again. Raises OutcomeUnknownError where they may be left.
        """
        digest, nuid = blob.digest, blob.generation
        entry = await self._records.read(digest)
        is_ours = str(entry.sequence) == blob.mark and entry.is_of(nuid)
        if is_ours:
            try:
                await self._records.bury(digest, entry, nuid, None)
            except RefusedError as refused:
                if not refused.conflict:
                    raise refused.translate() from refused
                is_ours = False
                entry = await self._records.read(digest)
        if is_ours or _is_tombstone_of(entry, nuid):
            await self._remove(nuid)
        return is_ours

    async def repack(self, blob: SurveyedBlob, needed: Ranges) -> int | None:
        """See ``BlobStore.repack``.

        The bytes of a copy whose record was replaced after it was listed may go, but not beside a
        record that cannot be read, which may name them yet.
        """
        entry = await self._records.read(blob.digest)
        meta = entry.live if str(entry.sequence) == blob.mark else None
        if meta is None or meta.nuid != blob.generation:
            is_later = entry.fault is None and entry.sequence > int(blob.mark)
            if is_later and not entry.is_of(blob.generation):
                await self._remove(blob.generation)
            return None
        info = to_info(meta)
        try:
            data = await self._chunks.get(info)
        except NotFoundError:  # it was replaced since
            return None
        left, kept = reduced(data, info.kept, needed)
        made = reduced_info(info, kept, self._records.new_id())
        parts = [
            memoryview(left)[at : at + made.part_size] for at in range(0, made.size, made.part_size)
        ]
        record = mark_partial(meta, made, kept)
        try:
            await self._records.swap(entry, made, parts, record, RecordChange.REPACKED)
        except RefusedError as refused:
            if not refused.conflict:
                raise refused.translate() from refused
            return None
        await self._remove(blob.generation)
        return made.size

    async def _remove(self, nuid: str) -> None:
        unknown = "the blob is forgotten, but its bytes may be there yet"
        await self._chunks.remove_forgotten(nuid, unknown)


def _is_tombstone_of(entry: ObjectEntry, nuid: str) -> bool:
    meta = entry.meta
    return meta is not None and meta.is_ours and meta.deleted and meta.nuid == nuid


@dataclass(slots=True)
class _Page:
    """The finds on a page of a survey."""

    blobs: list[SurveyedBlob] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    others: int = 0
    unreadable: int = 0

    def add(self, record: StoredMessage) -> None:
        """One more record."""
        if is_of_blob(record.subject):
            self.records.append(record.subject)
        try:
            meta = decode_meta(record.data) if record.data else None
        except CorruptError:
            self.others += 1
            self.unreadable += 1
            return
        if meta is None or meta.deleted:
            return
        self.copies.append(meta.nuid)
        try:
            self.blobs.append(_surveyed(record))
        except CorruptError:
            self.others += 1

    def survey(self, cursor: str | None) -> Survey:
        """The page, which goes on at ``cursor``."""
        return Survey(
            blobs=self.blobs,
            cursor=cursor,
            others=self.others,
            unreadable=self.unreadable,
            copies=self.copies,
            records=self.records,
        )


def _surveyed(record: StoredMessage) -> SurveyedBlob:
    """The blob of ``record``, which is there. Raises CorruptError: it is none of ours."""
    name = name_at(record.subject)
    meta = read_record(record.data, Digest(name)) if is_digest(name) else None
    if meta is None or not meta.is_ours:
        raise CorruptError("another program's object")
    return SurveyedBlob.of(to_info(meta), seen_at=record.time, mark=str(record.sequence))
