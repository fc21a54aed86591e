"""The agreement of a deployment's collectors, which stands in the deployment's record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from holdfast.stores.deployment import FORMAT, note_roots, read_deployment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from holdfast.domain.collection import RootsNote
    from holdfast.stores.record_ports import RecordStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms of a run.

    ``grace`` is how old a blob is that may go; before ``starts_at`` none does. ``off`` says why
    nothing is collected. ``noted`` has of each source of roots how far it had come.
    """

    grace: timedelta
    noted: Mapping[str, RootsNote]
    starts_at: datetime | None = None
    off: str | None = None

    def why_off(self, now: datetime) -> str | None:
        """Why nothing is collected at the time ``now`` by the store's clock; None: it is."""
        if self.off is None and self.starts_at is not None and now < self.starts_at:
            return f"collection begins at {self.starts_at.isoformat()}"
        return self.off


class Agreement:
    """The terms, as they are kept."""

    def __init__(self, records: RecordStore) -> None:
        """The records in which the deployment has its own."""
        self._records = records

    async def terms(self) -> Terms:
        """As they are now. Raises UnavailableError, CorruptError."""
        found = await read_deployment(self._records)
        off = None
        if found.format != FORMAT:
            off = (
                "workers of an older version may be at work; once there are none,"
                " `holdfast admin upgrade` lets collection begin"
            )
        return Terms(
            grace=timedelta(seconds=found.grace_seconds),
            noted=found.roots,
            starts_at=found.collects_from,
            off=off,
        )

    async def note(self, source: str, found: RootsNote) -> None:
        """Raise the note of ``source``. Raises UnavailableError, OutcomeUnknownError."""
        await note_roots(self._records, source, found)
