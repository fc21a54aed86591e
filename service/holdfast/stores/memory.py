"""Stores in memory: for tests, demonstrations and one-process experiments.

They pass the same contract as the stores that last, which is what makes them fakes one can trust:
they check digests on read, yield to the event loop where a real store would wait, and can be cut
off (``reachable = False``). A value altered through the private fields is found to be corrupt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import count, takewhile
from typing import TYPE_CHECKING, Final, Literal

from msgspec.structs import replace

from holdfast.domain.digest import digest_of, is_digest
from holdfast.domain.kept import has_bytes
from holdfast.domain.op_id import is_repeat
from holdfast.errors import ConflictError, CorruptError, InvalidError, NotFoundError
from holdfast.stores.deletions import Deletions
from holdfast.stores.keys import (
    CheckedChanges,
    check_limit,
    check_many,
    check_prefix,
    check_record_key,
    has_prefix,
    is_key_below,
)
from holdfast.stores.memory_log import NEVER, MemoryBlob, MemoryLog, Reachable
from holdfast.stores.ports import (
    BlobChanges,
    BlobInfo,
    BlobListing,
    Fetched,
    Stored,
    Survey,
    info_of,
    part_ranges,
)
from holdfast.stores.record_ports import CHANGES_LIMIT, Changed, Changes, Delete, Extent, Record

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Buffer, Callable, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Ranges
    from holdfast.stores.ports import Attributes, Claiming, Keeping, Spending, SurveyedBlob
    from holdfast.stores.record_ports import Change


_ATTEMPTS: Final = 16
_record_stores: Final = count(1)


class MemoryBlobStore(Reachable):
    """A `BlobStore` that lasts as long as the object. Blobs are seen at times by ``clock``."""

    def __init__(self, clock: Callable[[], datetime] = lambda: NEVER) -> None:
        super().__init__()
        self._clock = clock
        self._blobs: dict[Digest, MemoryBlob] = {}
        self._staged: dict[str, dict[int, bytes]] = {}
        self._deletions = Deletions()
        self._log = MemoryLog(clock)
        self._numbers = count(1)

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See `BlobStore.put`."""
        await self._reach()
        stored = bytes(data)
        size, fresh = len(stored), f"g{next(self._numbers)}"
        info = info_of(digest, size, attributes, part_size=max(size, 1), generation=fresh)
        return self._store(info, stored, attributes)

    async def get(self, info: BlobInfo) -> bytes:
        """See `BlobStore.get`."""
        await self._reach()
        return self._checked(info)

    async def fetch(self, digest: Digest, at_most: int) -> Fetched:
        """See `BlobStore.fetch`."""
        info = await self.stat(digest)
        return Fetched(info=info, data=await self.get(info) if info.size <= at_most else None)

    async def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See `BlobStore.read`."""
        await self._reach()
        data = self._checked(info)
        for first, last in part_ranges(start, stop, info.part_size):
            yield data[first:last]
            await self._reach()

    async def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        """See `BlobStore.stat`."""
        await self._reach()
        blob = self._find(digest, partial=partial)
        if sure and not blob.is_intact:
            return replace(blob.info, damaged=True)
        return blob.info

    async def missing(
        self, digests: Sequence[Digest], *, partial: bool = False, counted: bool = False
    ) -> list[Digest]:
        """See `BlobStore.missing`."""
        await self._reach()
        there = {
            one
            for one in digests
            if self._has(one, partial=partial) and (self._blobs[one].is_intact or not counted)
        }
        return [one for one in dict.fromkeys(digests) if one not in there]

    async def delete(
        self, digest: Digest, *, op_id: str | None = None, kept: Keeping | None = None
    ) -> bool:
        """See `BlobStore.delete`."""
        for _ in range(_ATTEMPTS):
            await self._reach()
            if self._deletions.recall(digest, op_id):
                return True
            blob = self._blobs.get(digest)
            if blob is None:
                return False
            is_repeat(blob.op_id, op_id)
            seen = self._log.revision(digest)
            is_kept = kept is not None and await kept()
            if self._log.revision(digest) == seen:
                return self._forget(blob, op_id, is_kept=is_kept)
        raise ConflictError("others kept changing the blob")

    def _forget(self, blob: MemoryBlob, op_id: str | None, *, is_kept: bool) -> bool:
        """Remove the blob or, where it is kept, mark it; whether it was there without a mark."""
        digest = blob.info.digest
        was_marked = blob.info.deleted
        if is_kept and was_marked:
            return False
        if is_kept:
            blob.info = replace(blob.info, pinned=False, deleted=True)
        else:
            del self._blobs[digest]
        self._note(digest, "changed" if is_kept else "deleted")
        if not was_marked:
            self._deletions.remember(digest, op_id)
        return not was_marked

    async def touch(
        self, digest: Digest, *, unless_seen_since: datetime, needed: Ranges | None = None
    ) -> bool:
        """See `BlobStore.touch`."""
        await self._reach()
        blob = self._blobs.get(digest)
        if blob is None or not (blob.is_intact and has_bytes(blob.info.kept, needed)):
            return False
        if blob.info.deleted or self._log.surveyed(blob.info).seen_at < unless_seen_since:
            blob.info = replace(blob.info, deleted=False)
            self._note(digest, "changed")
        return True

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`."""
        await spend(len(await self.get(info)))

    async def report_damage(self, info: BlobInfo) -> bool:
        """See `BlobStore.report_damage`."""
        await self._reach()
        blob = self._blobs.get(info.digest)
        if blob is not None and blob.info.generation == info.generation:
            blob.info = replace(blob.info, damaged=True)
            self._note(info.digest, "changed")
        return False

    async def now(self) -> datetime:
        """See `BlobStore.now`."""
        await self._reach()
        return self._clock()

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See `BlobStore.list_blobs`. In ascending order of the digest."""
        await self._reach()
        if cursor is not None and not is_digest(cursor):
            raise InvalidError("the cursor is not one that this store made")
        found = sorted(
            digest
            for digest in self._blobs
            if digest.startswith(prefix) and digest > (cursor or "")
        )
        page = found[:limit]
        return BlobListing(
            entries=[self._blobs[digest].info for digest in page],
            after=page,
            cursor=page[-1] if len(found) > limit else None,
        )

    async def extent(self) -> Extent:
        """See `BlobStore.extent`."""
        await self._reach()
        return self._log.extent

    async def count(self) -> tuple[int, int]:
        """See `BlobStore.count`."""
        return (keys := (await self.extent()).keys), keys

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> BlobChanges:
        """See `BlobStore.changes`."""
        await self._reach()
        check_limit(limit)
        return self._log.page(after, limit)

    async def survey(self, cursor: str | None, *, limit: int) -> Survey:
        """See `BlobStore.survey`. In ascending order of the digest."""
        listing = await self.list_blobs(prefix="", cursor=cursor, limit=limit)
        blobs = [
            self._log.surveyed(entry) for entry in listing.entries if isinstance(entry, BlobInfo)
        ]
        return Survey(blobs=blobs, cursor=listing.cursor)

    async def collect(self, blob: SurveyedBlob) -> bool:
        """See `BlobStore.collect`."""
        await self._reach()
        present = self._blobs.get(blob.digest)
        if present is None or self._log.surveyed(present.info).mark != blob.mark:
            return False
        self._forget(present, None, is_kept=False)
        return True

    async def repack(self, blob: SurveyedBlob, needed: Ranges) -> int | None:
        """See `BlobStore.repack`."""
        await self._reach()
        present = self._blobs.get(blob.digest)
        if present is None or self._log.surveyed(present.info).mark != blob.mark:
            return None
        left = present.reduced(needed, f"g{next(self._numbers)}")
        self._blobs[blob.digest] = left
        self._note(blob.digest, "changed")
        return left.info.size

    def stage(self, staging: str, part_size: int) -> _MemoryStagedBlob:
        """See `BlobStore.stage`."""
        return _MemoryStagedBlob(self, staging, part_size)

    async def staged_parts(self, staging: str) -> AsyncIterator[Buffer]:
        """See `BlobStore.staged_parts`."""
        for part in count():
            await self._reach()
            data = self._staged.get(staging, {}).get(part)
            if data is None:
                return
            yield data

    async def discard_staged(self, staging: str) -> None:
        """See `BlobStore.discard_staged`."""
        await self._reach()
        self._staged.pop(staging, None)

    def leftovers(self) -> None:
        """None: the memory of a killed process is gone."""

    def direct_delivery(self) -> None:
        """None: only the worker can send bytes from its memory."""

    async def _write_part(self, staging: str, part: int, data: Buffer) -> None:
        await self._reach()
        self._staged.setdefault(staging, {})[part] = bytes(data)

    async def _commit(
        self, info: BlobInfo, attributes: Attributes, claim: Claiming | None
    ) -> Stored:
        digest, staging = info.digest, info.generation
        await self._reach()
        while claim is not None and not self._has_intact(digest):
            seen = self._log.revision(digest)
            await claim(staging)
            await self._reach()
            if self._log.revision(digest) == seen:
                break
        data = b"" if self._has_intact(digest) else self._joined(staging, digest, info.size)
        stored = self._store(info, data, attributes)
        self._staged.pop(staging, None)
        return stored

    def _joined(self, staging: str, digest: Digest, size: int) -> bytes:
        """The joined parts. Raises CorruptError when they are not what was announced."""
        parts = self._staged.get(staging, {})
        data = b"".join(parts[part] for part in sorted(parts))
        if len(data) != size or digest_of(data) != digest:
            raise CorruptError("the stored parts are not the bytes that were announced")
        return data

    def _store(self, info: BlobInfo, data: bytes, attributes: Attributes) -> Stored:
        digest = info.digest
        former = self._blobs.get(digest)
        if former is not None and former.is_intact and former.is_whole:
            own = former.info.generation == info.generation
            again = is_repeat(former.op_id, attributes.op_id)
            self._mark(former, attributes)
            return Stored(info=former.info, created=own or again)
        self._deletions.recall(digest, attributes.op_id)  # it may be another request's
        if former is not None and former.info.pinned:
            info = replace(info, pinned=True)
        self._blobs[digest] = MemoryBlob(info, data, attributes.op_id)
        self._note(digest, "put")
        return Stored(info=info, created=True)

    def _note(self, digest: Digest, kind: Literal["put", "deleted", "changed"]) -> None:
        blob = self._blobs.get(digest)
        self._log.note(digest, blob.info if blob is not None else None, kind)

    def _mark(self, blob: MemoryBlob, attributes: Attributes) -> None:
        pins = attributes.pinned and not blob.info.pinned
        if pins or attributes.touches or blob.info.deleted:
            blob.info = replace(blob.info, pinned=blob.info.pinned or pins, deleted=False)
            self._note(blob.info.digest, "changed")

    def _has_intact(self, digest: Digest) -> bool:
        blob = self._blobs.get(digest)
        return blob is not None and blob.is_intact and blob.is_whole

    def _has(self, digest: Digest, *, partial: bool) -> bool:
        blob = self._blobs.get(digest)
        if blob is None or blob.info.damaged or blob.info.deleted:
            return False
        return partial or blob.is_whole

    def _find(self, digest: Digest, *, partial: bool = False) -> MemoryBlob:
        blob = self._blobs.get(digest)
        if blob is None or not (partial or blob.is_whole):
            raise NotFoundError(f"no blob {digest}")
        return blob

    def _checked(self, info: BlobInfo) -> bytes:
        blob = self._find(info.digest, partial=True)
        if blob.info.generation == info.generation:
            return blob.checked
        raise NotFoundError(f"this copy of blob {info.digest} is gone")


class _MemoryStagedBlob:
    def __init__(self, store: MemoryBlobStore, staging: str, part_size: int) -> None:
        self._store: Final = store
        self._staging: Final = staging
        self._part_size: Final = part_size

    async def write(self, part: int, data: Buffer) -> None:
        await self._store._write_part(self._staging, part, data)

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        likely_new: bool = False,
    ) -> Stored:
        del likely_new  # to look costs nothing
        info = info_of(
            digest, size, attributes, part_size=self._part_size, generation=self._staging
        )
        return await self._store._commit(info, attributes, claim)

    async def discard(self) -> None:
        await self._store.discard_staged(self._staging)


@dataclass(frozen=True, slots=True)
class _Entry:
    """The last change of a key, and when its record goes away."""

    changed: Changed
    expires: float | None


class MemoryRecordStore(CheckedChanges, Reachable):
    """A `RecordStore` that lasts as long as the object.

    ``monotonic`` gives seconds that only rise; records with a time to live go away by it. Changes
    have the time that ``clock`` tells. Revisions rise across all keys, so a record that was
    deleted never gets an old one back.
    """

    def __init__(
        self, monotonic: Callable[[], float], *, clock: Callable[[], datetime] = lambda: NEVER
    ) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._clock = clock
        self._created = f"memory {next(_record_stores)}"
        self._entries: dict[str, _Entry] = {}  # in ascending order of the revisions
        self._last = 0

    async def get(self, key: str, *, sure: bool = False) -> Record:
        """See `RecordStore.get`."""
        del sure
        await self._reach()
        check_record_key(key)
        record = self._live(key)
        if record is None:
            raise NotFoundError(f"no record {key}")
        return record

    async def get_many(self, keys: Sequence[str]) -> list[Record]:
        """See `RecordStore.get_many`."""
        await self._reach()
        records = [self._live(key) for key in check_many(keys)]
        return [record for record in records if record is not None]

    async def list_keys(self, prefix: str) -> list[str]:
        """See `RecordStore.list_keys`. A deleted key is never listed."""
        await self._reach()
        check_prefix(prefix)
        found = [key for key in sorted(self._entries) if is_key_below(key, prefix)]
        return [key for key in found if self._live(key) is not None]

    async def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See `RecordStore.list_records`. In ascending order of the key."""
        await self._reach()
        for key in sorted(self._entries):
            if has_prefix(key, prefix):
                record = self._live(key)
                if record is not None:
                    yield record
                    await self._reach()

    async def extent(self) -> Extent:
        """See `RecordStore.extent`."""
        await self._reach()
        return Extent(created=self._created, last=self._last, keys=len(self._entries))

    async def count(self, prefix: str) -> int:
        """See `RecordStore.count`."""
        await self._reach()
        check_prefix(prefix)
        return sum(is_key_below(key, prefix) for key in self._entries)

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> Changes:
        """See `RecordStore.changes`. A removal is remembered for ever."""
        await self._reach()
        check_limit(limit)
        newest_first = (entry.changed for entry in reversed(self._entries.values()))
        behind = list(takewhile(lambda changed: changed.revision > after, newest_first))
        page = [self._present(changed) for changed in behind[::-1][:limit]]
        is_end = len(page) == len(behind)
        position = max(after, self._last) if is_end else page[-1].revision
        return Changes(changes=page, position=position, is_end=is_end)

    async def _change(self, changes: Sequence[Change]) -> list[int]:
        await self._reach()
        for change in changes:
            if change.expected is not None:
                self._compare(change.key, change.expected)
        return [self._apply(change) for change in changes]

    def _apply(self, change: Change) -> int:
        self._last += 1
        value, ttl = (None, None) if isinstance(change, Delete) else (change.value, change.ttl)
        changed = Changed(key=change.key, revision=self._last, value=value, at=self._clock())
        expires = None if ttl is None else self._monotonic() + ttl.total_seconds()
        self._entries.pop(change.key, None)
        self._entries[change.key] = _Entry(changed, expires)
        return self._last

    def _present(self, changed: Changed) -> Changed:
        """The same, without its value if that has expired."""
        record = self._live(changed.key)
        value = None if record is None else record.value
        return Changed(key=changed.key, revision=changed.revision, value=value, at=changed.at)

    def _live(self, key: str) -> Record | None:
        entry = self._entries.get(key)
        if entry is None or entry.changed.value is None:
            return None
        if entry.expires is not None and entry.expires <= self._monotonic():
            return None
        return Record(key=key, value=entry.changed.value, revision=entry.changed.revision)

    def _compare(self, key: str, expected: int) -> None:
        record = self._live(key)
        if expected != (0 if record is None else record.revision):
            raise ConflictError(f"record {key} is not at the expected revision")
