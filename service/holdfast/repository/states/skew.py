"""Whether this worker's clock may stamp commands: it is compared with that of the journal.

One that runs ahead would take the times of a log with it, for they never go back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from holdfast.domain.hlc import MAX_DRIFT
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from holdfast.sources import Sources
    from holdfast.stores.journal_ports import JournalStore

BELIEVED_SECONDS: Final = 10.0
"""Seconds a comparison is believed."""


class ClockSkew:
    """Compares this worker's clock with the store's."""

    def __init__(self, journal: JournalStore, *, sources: Sources) -> None:
        self._journal = journal
        self._sources = sources
        self._compared_at = -math.inf

    async def check(self) -> None:
        """Raises UnavailableError, with both times, where they are too far apart."""
        if self._sources.monotonic() - self._compared_at < BELIEVED_SECONDS:
            return
        theirs = await self._journal.now()
        ours = self._sources.clock()
        if abs(ours - theirs) > MAX_DRIFT:
            msg = (
                f"the clock of this worker says {ours.isoformat()}, that of the store "
                f"{theirs.isoformat()}: they may be {MAX_DRIFT} apart"
            )
            raise UnavailableError(msg)
        self._compared_at = self._sources.monotonic()
