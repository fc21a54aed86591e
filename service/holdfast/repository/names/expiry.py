"""Names that have expired lose their blob, and versions that do not count any more go.

Readers take both for gone already; here their records let go of the bytes. A store tells the time,
never this worker's clock alone: where these differ, nothing is done. A record is changed as
it was read, or not at all; one that cannot be read is left to the readers of the roots.

Why: docs/decisions.md, "What has expired is ended before a collection".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.domain.blob_names import Conditions, name_key
from holdfast.errors import ConflictError, CorruptError, NotFoundError, UnavailableError
from holdfast.repository.names.record import (
    NAME,
    VERSION,
    NameRecord,
    Step,
    VersionRecord,
    content_of,
    counts,
    deleted,
)
from holdfast.stores.record_ports import MAX_CHANGES, Changed, RecordStore

if TYPE_CHECKING:
    from holdfast.repository.ledger.ledger import Held
    from holdfast.repository.names.rules import NameRules
    from holdfast.repository.names.writes import NameWrites
    from holdfast.sources import Sources

CLOCKS_DIFFER: Final = timedelta(seconds=60)
EXPIRED: Final = "expired"
log = structlog.get_logger(__name__)


class NameExpiry:
    """Goes through the records of names."""

    def __init__(
        self,
        records: RecordStore,
        writes: NameWrites,
        rules: NameRules,
        *,
        worker: str,
        sources: Sources,
    ) -> None:
        """``records`` are those that ``writes`` writes, and ``rules`` lie among them."""
        self._records = records
        self._writes = writes
        self._rules = rules
        self._worker = worker
        self._sources = sources

    async def expire(self, now: datetime) -> int:
        """End names and versions expired at ``now``, by a store's clock; how many were changed.

        Raises UnavailableError, also where this worker's clock is another.
        """
        if abs(self._sources.clock() - now) > CLOCKS_DIFFER:
            msg = f"this worker's clock is more than {CLOCKS_DIFFER.seconds} s off the store's"
            raise UnavailableError(msg)
        ended = position = 0
        while True:
            page = await self._records.changes(position, limit=MAX_CHANGES)
            for changed in page.changes:
                ended += await self._look_at(changed, now)
            position = page.position
            if page.is_end:
                return ended

    async def _look_at(self, changed: Changed, now: datetime) -> bool:
        try:
            if name := NAME.of(changed):
                return await self._end_name(name, now)
            if version := VERSION.of(changed):
                return await self._end_version(version, now)
        except (ConflictError, NotFoundError, CorruptError) as error:
            log.info("name_not_ended", key=changed.key, code=error.code)
        return False

    async def _end_name(self, held: Held[NameRecord], now: datetime) -> bool:
        name = held.record.name
        if held.record.content is None or not self._is_over(held.record, now):
            return False
        await self._rules.read()  # by the rules of this moment
        if not self._is_over(held.record, now):
            return False
        op = self._sources.new_id()
        step = Step(worker=self._worker, at=now, keep=self._rules.known(name))

        def ended(record: NameRecord) -> NameRecord:
            if record != held.record:
                raise ConflictError("the name has changed")
            return deleted(record, op, Conditions(), step, reason=EXPIRED)

        await self._writes.lose(held, ended, step)
        log.info("name_expired", name=name)
        return True

    def _is_over(self, record: NameRecord, now: datetime) -> bool:
        return content_of(record, now, self._rules.known(record.name)) is None

    async def _end_version(self, held: Held[VersionRecord], now: datetime) -> bool:
        """Remove a version that its name had, and that counts no more.

        One that its name has yet is about to be lost by a write that is under way.
        """
        version = held.record
        of_name = await self._writes.ledger.get(NAME, name_key(version.name))
        record = of_name.record
        is_former = version.version < record.version or record.content is None
        if not is_former or counts(version, record, now, self._rules.known(version.name)):
            return False
        await self._rules.read()
        if counts(version, record, now, self._rules.known(version.name)):
            return False
        await self._records.delete(held.key, expected=held.revision)
        return True
