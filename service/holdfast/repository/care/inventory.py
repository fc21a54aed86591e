"""The use of stored bytes by owner: the blobs are listed, then the records that need them.

As a collection does it, and as slowly; but nothing is removed, so a moment's difference between the
two does no harm. A missing or damaged blob is looked for once more before it is told. Where blobs
are partial, each owner's pages are read, too: they tell which bytes are needed.

Why: docs/decisions.md, "The doctor takes an inventory, and marks nothing".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from holdfast.domain.kept import has_bytes
from holdfast.errors import CorruptError, HoldfastError, NotFoundError
from holdfast.repository.care.owners import BlobOwner, Grouping, OwnerSource, OwningRecord
from holdfast.repository.care.pages import all_changes
from holdfast.repository.care.uses import GroupUse, Missing, Uses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from holdfast.domain.collection import Need
    from holdfast.domain.digest import Digest
    from holdfast.repository.collector.collector import Space
    from holdfast.repository.collector.pace import Pace
    from holdfast.stores.ports import BlobStore
    from holdfast.stores.record_ports import Changed

MAX_GROUPS: Final = 1000
"""Groups that are told, of those that take the most."""

MAX_LOST: Final = 100
"""Blobs that are needed and missing, of which each is told."""

_PAGE: Final = 1000
_RECORD_BYTES: Final = 1024


@dataclass(slots=True, kw_only=True)
class SpaceCount:
    """A space's blobs that are there, their bytes, and notes of those that were removed.

    ``others`` are objects of other programs, or unreadable. ``tombstones`` is None where removals
    leave no notes.
    """

    space: str
    blobs: int = 0
    bytes: int = 0
    others: int = 0
    tombstones: int | None = None


@dataclass(slots=True, kw_only=True)
class RecordCount:
    """A store's records that need something, and notes of those that were removed.

    ``stale`` are under way and should have been ended. ``unreadable`` is one that cannot be read.
    """

    store: str
    owners: int = 0
    tombstones: int = 0
    stale: int = 0
    unreadable: str | None = None


@dataclass(slots=True, kw_only=True)
class InventoryReport:
    """``rows`` are the groups that take the most, of ``groups`` in all; ``lost`` is missing."""

    at: datetime
    spaces: list[SpaceCount] = field(default_factory=list)
    records: list[RecordCount] = field(default_factory=list)
    rows: Sequence[GroupUse] = ()
    groups: int = 0
    lost: Sequence[Missing] = ()


class Inventory:
    """Takes an inventory of a deployment."""

    def __init__(
        self,
        spaces: Sequence[Space],
        sources: Mapping[str, Sequence[OwnerSource]],
        pace: Pace,
    ) -> None:
        """``sources`` are of each space, by its name."""
        self._spaces = spaces
        self._sources = sources
        self._pace = pace

    async def take(self, grouping: Grouping | None) -> InventoryReport:
        """One, grouped so; None: each owner is a group, for what it lacks.

        Raises UnavailableError, CorruptError, OSError, sqlite3.Error.
        """
        report = InventoryReport(at=await self._spaces[0].store.now())
        first_only = grouping is None
        uses = await asyncio.to_thread(Uses, first_only=first_only)
        try:
            for space in self._spaces:
                report.spaces.append(await self._survey(space, uses))
            lacking: list[Missing] = []
            for space in self._spaces:
                for source in self._sources.get(space.name, ()):
                    taking = _Taking(space, source, grouping, uses, self._pace, report.at)
                    report.records.append(await taking.run())
                    lacking += taking.lacking
            report.groups = await asyncio.to_thread(uses.groups)
            report.rows = await asyncio.to_thread(uses.totals, MAX_GROUPS)
            missing = await asyncio.to_thread(uses.missing, MAX_LOST)
            stores = {space.name: space.store for space in self._spaces}
            lost = [one for one in missing if not await _is_there(stores[one.space], one)]
            report.lost = [*lost, *lacking][:MAX_LOST]
        finally:
            await asyncio.to_thread(uses.close)
        return report

    async def _survey(self, space: Space, uses: Uses) -> SpaceCount:
        count = SpaceCount(space=space.name)
        cursor = None
        while True:
            page = await space.store.survey(cursor, limit=_PAGE)
            count.others += page.others
            await asyncio.to_thread(uses.meet, space.name, page.blobs)
            await self._pace.spend(_RECORD_BYTES * len(page.blobs))
            cursor = page.cursor
            if cursor is None:
                break
        count.blobs, count.bytes = await asyncio.to_thread(uses.stored, space.name)
        counted = await space.store.count()
        if counted is not None:
            count.tombstones = max(counted[0] - count.blobs - count.others, 0)
        return count


class _Taking:
    """The records of one source, of which each owner is entered in its groups.

    ``lacking`` are partial blobs without all that an owner needs; nobody asks for them by groups.
    """

    def __init__(
        self,
        space: Space,
        source: OwnerSource,
        grouping: Grouping | None,
        uses: Uses,
        pace: Pace,
        now: datetime,
    ) -> None:
        self.lacking: list[Missing] = []
        self._space = space.name
        self._store = space.store
        self._source = source
        self._grouping = grouping
        self._uses = uses
        self._pace = pace
        self._now = now
        self._count = RecordCount(store=source.roots.name)
        self._living = 0
        self._looks_closer = False

    async def run(self) -> RecordCount:
        """All of them."""
        roots, count = self._source.roots, self._count
        self._looks_closer = (
            self._grouping is None
            and self._source.needed is not None
            and await asyncio.to_thread(self._uses.has_partial, self._space)
        )
        async for changes in all_changes(roots.records):
            keys = [one.key for one in changes]
            fresh = await asyncio.to_thread(self._uses.fresh, self._space, keys)
            some = [one for one, is_fresh in zip(changes, fresh, strict=True) if is_fresh]
            owners = [owner for one in some for owner in self._owners(one)]
            count.owners += len(owners)
            await self._enter(owners)
            await self._pace.spend(_RECORD_BYTES * len(changes))
        count.tombstones = max(await roots.records.count(roots.lasting) - self._living, 0)
        return count

    def _owners(self, changed: Changed) -> Sequence[BlobOwner]:
        """The owners that a record names. One that cannot be read is more than a note."""
        if changed.value is None:
            return ()
        found = OwningRecord()
        try:
            found = self._source.read(changed, self._now)
        except CorruptError as error:
            self._count.unreadable = self._count.unreadable or f"{changed.key}: {error.detail}"
        self._count.stale += found.is_stale
        if changed.key.startswith(f"{self._source.roots.lasting}."):
            self._living += found.is_living
        return found.owners

    async def _enter(self, owners: Sequence[BlobOwner]) -> None:
        entries = [(owner, group) for owner in owners for group in self._groups(owner)]
        items = [(group, owner.size) for owner, group in entries]
        numbers = await asyncio.to_thread(self._uses.enter, items)
        needing = [
            (owner.root, number) for (owner, _), number in zip(entries, numbers, strict=True)
        ]
        needed = self._source.needed
        if needed is None:
            await asyncio.to_thread(self._uses.need, self._space, needing)
            return
        for root, number in needing:
            await self._need(needed(root), root, number)
        if self._looks_closer:
            for owner in owners:
                await self._look_closer(owner)

    async def _need(
        self, needed: AsyncIterator[Sequence[Digest]], root: Digest, number: int
    ) -> None:
        """Note the needs of a root, or the root alone where it cannot be read."""
        try:
            async for some in needed:
                uses = [(digest, number) for digest in some]
                await asyncio.to_thread(self._uses.need, self._space, uses)
                await self._pace.spend(_RECORD_BYTES * len(some))
        except (NotFoundError, CorruptError):
            await asyncio.to_thread(self._uses.need, self._space, [(root, number)])

    async def _look_closer(self, owner: BlobOwner) -> None:
        """Whether partial blobs have what ``owner`` needs by pages that nobody before it has.

        A page that cannot be read is told of by the collection that is tried.
        """
        with suppress(NotFoundError, CorruptError):
            async for needs in self._source.roots.needed(owner.root, self._news):
                for need in await asyncio.to_thread(self._uses.lacking, self._space, needs):
                    if len(self.lacking) < MAX_LOST and await _lacks(self._store, need):
                        self.lacking.append(
                            Missing(self._space, need.digest, owner.name, in_part=True)
                        )
                await self._pace.spend(_RECORD_BYTES * len(needs))

    async def _news(self, keys: Sequence[bytes]) -> Sequence[bool]:
        return await asyncio.to_thread(self._uses.fresh, self._space, keys)

    def _groups(self, owner: BlobOwner) -> Sequence[str]:
        return [owner.name] if self._grouping is None else self._grouping.groups(owner)


async def _is_there(store: BlobStore, missing: Missing) -> bool:
    """Whether it is there after all, or nobody can tell."""
    try:
        return not (await store.stat(missing.digest, sure=True, partial=True)).damaged
    except (NotFoundError, CorruptError):
        return False
    except HoldfastError:
        return True


async def _lacks(store: BlobStore, need: Need) -> bool:
    """Whether a part of the blob is missing that is needed, and somebody can tell."""
    try:
        info = await store.stat(need.digest, sure=True, partial=True)
    except HoldfastError:
        return False
    return not has_bytes(info.kept, need.ranges)
