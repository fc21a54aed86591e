"""The index of names as the rest of the worker sees it."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from holdfast.repository.names.index.follower import Follower
from holdfast.repository.names.index.listing import Listing, NamesPage, read_page
from holdfast.repository.names.index.rows import listed, record_of
from holdfast.repository.names.index.table import PendingWrite, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from holdfast.domain.digest import Digest
    from holdfast.repository.names.record import Keep
    from holdfast.sources import Sources
    from holdfast.stores.record_ports import RecordStore


class NameIndex(Follower):
    """All names of the store, in order, and the users of their blobs.

    An answer includes everything that was acknowledged before it was asked for, by any worker;
    where that cannot be made sure of, it raises UnavailableError. So does a worker that has begun a
    moment ago.
    """

    def __init__(
        self, records: RecordStore, *, keep: Callable[[str], Keep], sources: Sources
    ) -> None:
        """``records`` is the bucket. ``keep`` gives a name's retention, in any thread."""
        super().__init__(records, monotonic=sources.monotonic)
        self._keep = keep
        self._sources = sources

    async def page(self, listing: Listing) -> NamesPage:
        """Names, in the order of their UTF-8 bytes. Raises UnavailableError.

        A ``pending`` one, or a ``failure``, has no digest; deleted and expired ones are left out.
        """
        return await self.settled(partial(read_page, listing=listing, keep=self._keep))

    async def pending(self) -> list[PendingWrite]:
        """The announced writes, as of a moment ago: a caller that acts reads again.

        Raises UnavailableError before anything was read.
        """
        return await self._table.ask(Table.pending)

    async def keeps(self, digest: Digest) -> bool:
        """Whether a name, a version that counts, or an announcement needs the blob.

        Age is not looked at, for clocks differ: an expired name needs it until it is removed.
        Nor is a record that cannot be read taken for one that needs nothing: then it is True.
        Raises UnavailableError.
        """
        return await self.settled(partial(Table.needs, digest=digest))

    async def kept_for(self, digest: Digest, limit: int) -> Sequence[str]:
        """See `Keeper.kept_for`: names, then versions and writes that are under way."""
        now = self._sources.clock()

        def find(table: Table) -> Sequence[str]:
            names = _names_of(table, digest, limit, now, self._keep)
            return [*names, *table.others_of(digest, limit - len(names))]

        return await self.settled(find)

    async def names_of(self, digest: Digest, limit: int) -> list[str]:
        """Up to ``limit`` names that have this blob now, ascending. Raises UnavailableError."""
        now = self._sources.clock()
        return await self.settled(
            partial(_names_of, digest=digest, limit=limit, now=now, keep=self._keep)
        )


def _names_of(
    table: Table, digest: Digest, limit: int, now: datetime, keep: Callable[[str], Keep]
) -> list[str]:
    records = map(record_of, table.rows_of(digest))
    entries = (listed(record, now, keep(record.name)) for record in records)
    found = (entry.name for entry in entries if entry is not None and entry.digest == digest)
    return list(islice(found, limit))
