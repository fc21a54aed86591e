"""Puts and deletions in a disk store: a log that is made of the directories' names.

A put or a deletion does not write it. A reader of changes looks which shards changed since it last
looked, compares their names with what the log says, and adds what is new: so a crash loses nothing,
and every process that asks finds the same log. It is a store of records below ``changes/``, one
record for each digest that was ever met. A blob that was put and deleted, or the reverse, while
nobody asked is not told of, nor are touches and pins. If the directory is removed, it is made anew.

Why: docs/decisions.md, "The log of a disk store is made by whoever asks".
"""

from __future__ import annotations

import asyncio
from itertools import batched
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest
from holdfast.errors import ConflictError, CorruptError, NotFoundError, UnavailableError
from holdfast.stores.disk.database import create_record_store
from holdfast.stores.disk.files import confirm_disk_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.ports import BlobChanged, BlobChanges
from holdfast.stores.record_ports import MAX_BATCH, Put

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.sources import Sources
    from holdfast.stores.disk.blobs import BlobFiles
    from holdfast.stores.disk.files import Files
    from holdfast.stores.record_ports import Changed, Extent, RecordStore

CHANGES: Final = "changes"
_PUT: Final = b"put"
_DELETED: Final = b"deleted"
_BUSY: Final = "the blobs on disk change while they are noted"
_ATTEMPTS: Final = 16
_SHARDS_AT_ONCE: Final = 32
_RACY_NS: Final = 2_000_000_000
"""A directory may change twice within one tick of its time, so one of late is looked at again."""


class BlobLog:
    """The changes of the blobs under one root."""

    def __init__(self, root: Path, blobs: BlobFiles, files: Files, sources: Sources) -> None:
        self._root = root
        self._blobs = blobs
        self._clock = sources.clock
        self._records = DiskRecordStore(root / CHANGES, clock=sources.clock, files=files)
        self._is_made = False
        self._settled: dict[str, int] = {}
        self._turn = asyncio.Lock()

    async def extent(self) -> Extent:
        """See `BlobStore.extent`."""
        records = await self._caught_up()
        return await records.extent()

    async def page(self, after: int, limit: int) -> BlobChanges:
        """See `BlobStore.changes`. The time of a change is when it was noticed.

        A blob that is gone before it is told may be back before anybody looks: then the log would
        say no more of it. So it is looked at again at once.
        """
        for _ in range(_ATTEMPTS):
            records = await self._caught_up()
            found = await records.changes(after, limit=limit)
            changes = await asyncio.to_thread(self._tell, found.changes)
            if changes is not None:
                return BlobChanges(changes=changes, position=found.position, is_end=found.is_end)
        raise UnavailableError(_BUSY)

    async def aclose(self) -> None:
        """Close the log. May be repeated."""
        await self._records.aclose()

    async def _caught_up(self) -> RecordStore:
        """The log, with all that the directories show."""
        async with self._turn:
            await asyncio.to_thread(confirm_disk_store, self._root)
            if not self._is_made:
                await asyncio.to_thread(create_record_store, self._root / CHANGES)
                self._is_made = True
            now_ns = int(self._clock().timestamp() * 1e9)
            shards = await asyncio.to_thread(self._blobs.shards)
            changed = [one for one in shards if self._settled.get(one[0]) != one[1]]
            for several in batched(changed, _SHARDS_AT_ONCE):
                await self._note_changes([shard for shard, _ in several])
                self._settled |= {one[0]: one[1] for one in several if now_ns - one[1] > _RACY_NS}
        return self._records

    async def _note_changes(self, shards: Sequence[str]) -> None:
        """Add to the log what it lacks. Raises UnavailableError if others keep doing so."""
        for _ in range(_ATTEMPTS):
            notes = [note for shard in shards for note in await self._notes(shard)]
            try:
                for several in batched(notes, MAX_BATCH):
                    await self._records.batch(several)
            except ConflictError:
                continue
            return
        raise UnavailableError(_BUSY)

    async def _notes(self, shard: str) -> list[Put]:
        """Notes that the log lacks. It is read first: others may have noted news since."""
        known = {record.key: record async for record in self._records.list_records(shard)}
        present = await asyncio.to_thread(self._blobs.keys_in, shard)
        was_present = {key for key, record in known.items() if record.value == _PUT}
        values = dict.fromkeys(sorted(present - was_present), _PUT)
        values |= dict.fromkeys(sorted(was_present - present), _DELETED)
        return [
            Put(key=key, value=value, expected=known[key].revision if key in known else 0)
            for key, value in values.items()
        ]

    def _tell(self, changes: Sequence[Changed]) -> list[BlobChanged] | None:
        """None where a blob has gone since it was noted."""
        try:
            return [self._told(changed) for changed in changes]
        except (NotFoundError, CorruptError):
            return None

    def _told(self, changed: Changed) -> BlobChanged:
        digest = Digest(changed.key.rpartition(".")[2])
        is_put = changed.value == _PUT
        return BlobChanged(
            digest=digest,
            revision=changed.revision,
            put_at=changed.revision,
            at=changed.at,
            info=self._blobs.stat(digest, partial=True) if is_put else None,
            kind="put" if is_put else "deleted",
        )
