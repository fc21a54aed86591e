"""Records in a directory of one machine.

This module only takes the blocking work off the event loop; what is done to files, and why it
survives a crash, is in ``disk_record_files`` and, for several at once, ``disk_record_batches``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.errors import NotFoundError
from holdfast.stores.disk_files import FailStop, Files, check_disk_store
from holdfast.stores.disk_format import RecordHeader
from holdfast.stores.disk_record_batches import RecordBatches
from holdfast.stores.disk_record_files import RecordFiles
from holdfast.stores.disk_record_sweep import RecordSweep
from holdfast.stores.disk_revisions import FileChange
from holdfast.stores.ports import Delete, Put
from holdfast.stores.record_keys import (
    check_batch,
    check_many,
    check_prefix,
    check_record_key,
    has_prefix,
    is_below,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from holdfast.stores.ports import Change, Record

MAX_TOLD: Final = 1000
"""Damaged records that are logged, once each."""

log = structlog.get_logger(__name__)


class DiskRecordStore:
    """A `RecordStore` under ``root``, which ``create_disk_store`` has made.

    Several processes may use one root. ``clock`` is the time of day: records with a time to live
    go away by it. ``new_id`` gives fresh identifiers (A-Z a-z 0-9).
    """

    def __init__(
        self,
        root: Path,
        *,
        new_id: Callable[[], str],
        clock: Callable[[], datetime],
        files: Files | None = None,
    ) -> None:
        self._root = root
        self._clock = clock
        self._told: set[str] = set()
        self._files = FailStop(files or Files())
        self._records = RecordFiles(root, self._files, new_id, clock)
        self._batches = RecordBatches(self._records, self._files)
        self._sweep = RecordSweep(root, self._records, self._batches, self._files, new_id)

    async def get(self, key: str) -> Record:
        """See `RecordStore.get`. Raises CorruptError when the file does not match its checksum."""
        return await asyncio.to_thread(self._records.get, key)

    async def put(
        self, key: str, value: bytes, *, expected: int, ttl: timedelta | None = None
    ) -> int:
        """See `RecordStore.put`."""
        check_record_key(key)
        change = self._file_change(Put(key=key, value=value, expected=expected, ttl=ttl))
        return await asyncio.to_thread(self._records.change, change)

    async def delete(self, key: str, *, expected: int) -> None:
        """See `RecordStore.delete`."""
        check_record_key(key)
        change = self._file_change(Delete(key=key, expected=expected))
        await asyncio.to_thread(self._records.change, change)

    async def batch(self, changes: Sequence[Change]) -> list[int]:
        """See `RecordStore.batch`."""
        check_batch(changes)
        wanted = [self._file_change(change) for change in changes]
        if len(wanted) > 1:
            return await asyncio.to_thread(self._batches.batch, wanted)
        revision = await asyncio.to_thread(self._records.change, wanted[0])
        return [0 if wanted[0].header.deleted else revision]

    async def get_many(self, keys: Sequence[str]) -> list[Record]:
        """See `RecordStore.get_many`. What is left out as damaged is logged once."""
        found, damaged = await asyncio.to_thread(self._records.get_many, check_many(keys))
        for key in damaged:
            if key not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(key)
                log.error("record_damaged", key=key, root=str(self._root))
        return found

    async def list_keys(self, prefix: str) -> list[str]:
        """See `RecordStore.list_keys`. Cleaned up by `sweep`."""
        check_prefix(prefix)
        return await asyncio.to_thread(self._records.keys, lambda key: is_below(key, prefix))

    async def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See `RecordStore.list_records`. In ascending order of the key."""
        for key in await asyncio.to_thread(self._records.keys, lambda key: has_prefix(key, prefix)):
            with suppress(NotFoundError):
                yield await asyncio.to_thread(self._records.get, key)

    async def sweep(self, now: datetime, grace: timedelta) -> int:
        """Remove what was deleted, expired or left by a crash ``grace`` or longer ago; how many.

        ``grace`` must be longer than any writer may pause between reading and writing.
        """
        return await asyncio.to_thread(self._sweep.sweep, now - grace)

    async def check(self) -> None:
        """See `RecordStore.check`."""
        await asyncio.to_thread(check_disk_store, self._root, self._files)

    async def aclose(self) -> None:
        """Nothing is held open between two calls."""

    def _file_change(self, change: Change) -> FileChange:
        if isinstance(change, Delete):
            header = RecordHeader(key=change.key, deleted=True)
            return FileChange(header=header, value=b"", expected=change.expected)
        expires_at = None if change.ttl is None else self._clock() + change.ttl
        header = RecordHeader(key=change.key, expires_at=expires_at)
        return FileChange(header=header, value=change.value, expected=change.expected)
