"""All records of a store, page by page, as far as its leader had come when the first was read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.errors import UnavailableError
from holdfast.stores.record_ports import MAX_CHANGES, Changed, RecordStore
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence


SETTLE_SECONDS: Final = 60.0
"""Seconds that a replica may lag behind its leader."""

_FIRST_WAIT_SECONDS: Final = 0.01
_LONGEST_WAIT_SECONDS: Final = 1.0


async def all_changes(records: RecordStore) -> AsyncIterator[Sequence[Changed]]:
    """The last change of each key; of one that changes meanwhile perhaps several.

    Raises UnavailableError.
    """
    last = (await records.extent()).last
    waits = Backoff(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, within_seconds=SETTLE_SECONDS)
    position = 0
    while True:
        page = await records.changes(position, limit=MAX_CHANGES)
        yield page.changes
        position = page.position
        if page.is_end and position >= last:
            return
        if not page.changes and not await waits.wait():
            raise UnavailableError("the replica that was asked lacks the newest records")
