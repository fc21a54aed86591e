"""The bytes of packs that snapshots need, for the collector."""

from __future__ import annotations

import asyncio
from contextlib import closing
from itertools import batched, compress
from typing import TYPE_CHECKING, Final

from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.domain.collection import Need, NewsOf
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError
from holdfast.repository.blob_roots import as_digests
from holdfast.repository.snapshots.needs import LIMITS, PAGES_AT_ONCE, needs_of_pages
from holdfast.repository.snapshots.record import SNAPSHOT, StoredSnapshot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.repository.snapshots.reading.reads import ClosablePackStore
    from holdfast.stores.record_ports import Changed, Record, RecordStore

CACHE_BYTES: Final = 8 * MIB


def roots_of(record: StoredSnapshot) -> tuple[Digest, ...]:
    """The roots that ``record`` keeps: its own, and while it is pending also its parent's.

    Raises CorruptError where one is none, or it is ``ok`` and has none.
    """
    if record.state == "failure":
        return ()
    named = [record.digest]
    if record.state == "pending":
        named.append(record.parent_digest)
    elif record.digest is None:
        raise CorruptError(f"the snapshot {record.key} is ok and names no root")
    return as_digests((root for root in named if root is not None), "snapshot")


class SnapshotRoots:
    """The roots of the space ``packs``. A removed snapshot leaves a note for good."""

    name: Final = "snapshots"
    lasting: Final = SNAPSHOT.prefix

    def __init__(
        self, records: RecordStore, open_store: Callable[[int], ClosablePackStore]
    ) -> None:
        """``records`` are those of the snapshots; ``open_store`` gives the packs, with a cache."""
        self.records = records
        self._open_store = open_store

    def named(self, found: Record | Changed) -> Sequence[Digest]:
        """See `RootSource`."""
        held = SNAPSHOT.of(found)
        return () if held is None else roots_of(held.record)

    async def needed(self, root: Digest, news: NewsOf) -> AsyncIterator[Sequence[Need]]:
        """The blobs of ``root``, then what its pages need. Raises CorruptError."""
        with closing(self._open_store(CACHE_BYTES)) as store:
            reader = await asyncio.to_thread(SnapshotReader, store, root, limits=LIMITS)
            yield [Need(blob) for blob in reader.root_blobs]
            for several in batched(range(reader.page_count), PAGES_AT_ONCE):
                keys = [reader.root.page_key(number) for number in several]
                unread = list(compress(several, await news(keys)))
                async for needs in needs_of_pages(reader, unread):
                    yield [Need(pack, ranges) for pack, ranges in needs.items()]
