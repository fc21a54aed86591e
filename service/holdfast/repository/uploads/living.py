"""Stored parts that an upload may yet need, for the collector."""

from __future__ import annotations

from contextlib import suppress
from itertools import batched

from holdfast.errors import NotFoundError
from holdfast.repository.uploads.record import UPLOAD, UploadRecord
from holdfast.stores.record_ports import MAX_GET_MANY, RecordStore


async def living_stagings(records: RecordStore) -> set[str]:
    """The stagings of the living uploads of all workers, at least of those begun before this.

    The record of one names a staging before the first part is written there, also when it is taken
    over, and it has ended before what it names may go. Raises UnavailableError, CorruptError: there
    may be others.
    """
    found: set[str] = set()
    for keys in batched(await records.list_keys(UPLOAD.prefix), MAX_GET_MANY):
        # One that is seen to have ended never goes on; of any other the latest word is asked.
        seen = {record.key: record for record in await records.get_many(keys)}
        for key in keys:
            if key not in seen or stagings_of(UPLOAD.read(seen[key]).record):
                with suppress(NotFoundError):
                    found.update(stagings_of(UPLOAD.read(await records.get(key)).record))
    return found


def stagings_of(record: UploadRecord) -> tuple[str, ...]:
    """Stagings an upload may yet need; none once it has ended."""
    return record.stagings if UPLOAD.is_live(record) else ()
