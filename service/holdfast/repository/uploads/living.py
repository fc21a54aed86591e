"""Stored parts that an upload may yet need, for the collector."""

from __future__ import annotations

from itertools import batched

from holdfast.errors import NotFoundError
from holdfast.repository.uploads.record import UPLOAD, UploadRecord
from holdfast.stores.record_ports import MAX_GET_MANY, RecordStore


class LivingUploads:
    """The uploads of all workers.

    The record of one names a staging before the first part is written there, also when it is taken
    over, and it has ended before what it names may go.
    """

    def __init__(self, records: RecordStore) -> None:
        """The records in which the uploads are."""
        self._records = records

    async def stagings(self) -> set[str]:
        """The stagings of living uploads, at least of those begun before this was asked.

        Raises UnavailableError, CorruptError: there may be others.
        """
        found: set[str] = set()
        for keys in batched(await self._records.list_keys(UPLOAD.prefix), MAX_GET_MANY):
            # One that is seen to have ended never goes on; of any other the latest word is asked.
            seen = {record.key: record for record in await self._records.get_many(keys)}
            for key in keys:
                if key not in seen or stagings_of(UPLOAD.read(seen[key]).record):
                    found.update(await self._latest(key))
        return found

    async def _latest(self, key: str) -> tuple[str, ...]:
        try:
            return stagings_of(UPLOAD.read(await self._records.get(key)).record)
        except NotFoundError:
            return ()


def stagings_of(record: UploadRecord) -> tuple[str, ...]:
    """Stagings an upload may yet need; none once it has ended."""
    return record.stagings if UPLOAD.is_live(record) else ()
