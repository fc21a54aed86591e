"""All roots of a space as they are at one moment after a listing, or a failure.

A store keeps one record per key, so a record that is rewritten moves behind what was read already.
Only a scan that has come to the end, by the word of a leader that was asked after the last page,
has met what moved.

Why: docs/decisions.md, "Roots are read to the leader's end", and "What was lost is not taken for
removed".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from holdfast.domain.collection import Need, NewsOf, RootsNote
from holdfast.errors import CorruptError, UnavailableError
from holdfast.stores.record_ports import MAX_CHANGES, Changed, Extent, Record, RecordStore
from holdfast.transport.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.repository.collector.spool import Spool

SETTLE_SECONDS: Final = 60.0
"""Seconds that records may keep changing before the scan gives up."""

_FIRST_WAIT_SECONDS: Final = 0.002
_LONGEST_WAIT_SECONDS: Final = 0.2


class RootSource(Protocol):
    """A source of roots of a space, and of their needs.

    ``name`` is that of its store in the deployment's record. Keys below ``lasting`` never go away:
    what is removed there leaves a note for good.
    """

    @property
    def name(self) -> str:
        """See above."""

    @property
    def records(self) -> RecordStore:
        """The store of the records that name them."""

    @property
    def lasting(self) -> str:
        """See above."""

    def named(self, found: Record | Changed) -> Sequence[Digest]:
        """The roots that a record keeps; none where it was removed. Raises CorruptError."""

    def needed(self, root: Digest, news: NewsOf) -> AsyncIterator[Sequence[Need]]:
        """All that ``root`` needs, itself included. Raises NotFoundError, CorruptError.

        Parts that several roots share have keys: those that are no ``news`` are left out.
        """


async def read_roots(source: RootSource, spool: Spool) -> RootsNote:
    """Spool all roots there are; how far their store had come then.

    As many lasting records are met as are counted: others may go away meanwhile. Raises
    UnavailableError, CorruptError: there may be other roots.
    """
    await asyncio.to_thread(spool.begin_source)
    position = 0
    extent = await source.records.extent()
    waits = Backoff(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS, within_seconds=SETTLE_SECONDS)
    while True:
        page = await source.records.changes(position, limit=MAX_CHANGES)
        await asyncio.to_thread(_take_in, source, page.changes, spool)
        position = page.position
        if not page.is_end:
            continue
        latest = await _quiet_extent(source, extent, position)
        if latest is not None:
            lasting = await asyncio.to_thread(spool.met)
            counted = await source.records.count(source.lasting)
            if lasting >= counted:
                return RootsNote(created=latest.created, last=latest.last, keys=lasting)
            if await _quiet_extent(source, extent, position) is not None:
                raise CorruptError(f"{counted - lasting} records are counted and cannot be read")
        if not page.changes and not await waits.wait():
            raise UnavailableError("the records kept changing while they were read")


async def _quiet_extent(source: RootSource, before: Extent, position: int) -> Extent | None:
    """The store's extent; None where that is beyond ``position``. Raises CorruptError."""
    latest = await source.records.extent()
    if latest.created != before.created or latest.last < before.last:
        raise CorruptError("the records' store was replaced, or lost its end, while it was read")
    return latest if latest.last <= position else None


def _take_in(source: RootSource, changes: Sequence[Changed], spool: Spool) -> None:
    lasting = f"{source.lasting}."
    roots: list[Digest] = []
    for changed in changes:
        try:
            roots += source.named(changed)
        except CorruptError as error:
            raise CorruptError(f"{changed.key}: {error.detail}") from error
    spool.meet([one.key for one in changes if one.key.startswith(lasting)], roots)
