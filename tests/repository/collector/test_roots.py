"""All roots of one moment are read, or the reading fails: also while others write."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from holdfast.domain.blob_names import name_key
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import CorruptError, UnavailableError
from holdfast.repository.collector import roots as scanning
from holdfast.repository.collector.roots import read_roots
from holdfast.repository.collector.spool import Spool
from holdfast.repository.names.record import NAME, NamedContent, NameRecord
from holdfast.repository.names.roots import NameRoots
from holdfast.stores.memory import MemoryRecordStore
from holdfast.stores.record_ports import Changes, Extent

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = 5


class Busy(MemoryRecordStore):
    """Gives one change a page; a name is written anew after some pages."""

    def __init__(self) -> None:
        super().__init__(time.monotonic)
        self.rewrites = 0
        self.hidden: str | None = None
        self.moved: Extent | None = None
        self.expires: str | None = None
        self.made_while_counted: list[int] = []

    async def changes(self, after: int, *, limit: int = 1) -> Changes:
        page = await super().changes(after, limit=1)
        if self.rewrites:
            self.rewrites -= 1
            await put(self, self.rewrites % NAMES)
        kept = [one for one in page.changes if one.key != self.hidden]
        return Changes(changes=kept, position=page.position, is_end=page.is_end)

    async def extent(self) -> Extent:
        extent, self.moved = self.moved or await super().extent(), None
        return extent

    async def count(self, prefix: str) -> int:
        self._entries.pop(self.expires or "", None)
        if self.made_while_counted:
            await put(self, self.made_while_counted.pop())
        return await super().count(prefix)


async def put(records: MemoryRecordStore, number: int) -> None:
    """Write a name, over what is there."""
    name = f"n{number}"
    key = NAME.key(name_key(name))
    found = await records.get_many([key])
    content = NamedContent(digest=digest_of(name.encode()), size=1, type="a/b")
    record = NameRecord(name=name, state="ok", version=1, content=content)
    expected = found[0].revision if found else 0
    await records.put(key, msgspec.json.encode(record), expected=expected)


@pytest.fixture
def spool() -> Iterator[Spool]:
    """An empty one."""
    spool = Spool()
    yield spool
    spool.close()


async def busy() -> Busy:
    """Names of a blob each."""
    records = Busy()
    for number in range(NAMES):
        await put(records, number)
    return records


def wanted() -> list[Digest]:
    """Their blobs."""
    return sorted(digest_of(f"n{number}".encode()) for number in range(NAMES))


@pytest.mark.parametrize("rewrites", [0, 1, 5, 23])
async def test_what_is_written_anew_while_it_is_read_is_met(spool: Spool, rewrites: int) -> None:
    records = await busy()
    records.rewrites = rewrites

    note = await read_roots(NameRoots(records), spool)

    assert spool.roots(None, 100) == wanted()
    assert note.keys == NAMES
    assert note.last == (await records.extent()).last


async def test_a_record_that_is_counted_and_not_told_fails_the_reading(spool: Spool) -> None:
    records = await busy()
    records.hidden = NAME.key(name_key("n2"))

    with pytest.raises(CorruptError, match="1 records are counted and cannot be read"):
        await read_roots(NameRoots(records), spool)


async def test_a_record_that_went_away_meanwhile_does_not_stand_for_one_that_was_lost(
    spool: Spool,
) -> None:
    records = await busy()
    records.expires = "x.y"
    await records.put(records.expires, b"", expected=0)
    records.hidden = NAME.key(name_key("n2"))

    with pytest.raises(CorruptError, match="1 records are counted and cannot be read"):
        await read_roots(NameRoots(records), spool)


async def test_a_name_that_is_made_while_they_are_counted_is_met_too(spool: Spool) -> None:
    records = await busy()
    records.made_while_counted = [NAMES, NAMES + 1]

    note = await read_roots(NameRoots(records), spool)

    assert note.keys == NAMES + 2


@pytest.mark.parametrize(
    "before", [Extent(created="another", last=0, keys=0), Extent(created="", last=10**9, keys=0)]
)
async def test_a_store_that_is_another_at_the_end_fails_the_reading(
    spool: Spool, before: Extent
) -> None:
    records = await busy()
    created = before.created or (await records.extent()).created
    records.moved = Extent(created=created, last=before.last, keys=before.keys)

    with pytest.raises(CorruptError, match="replaced, or lost its end"):
        await read_roots(NameRoots(records), spool)


async def test_records_that_never_rest_end_the_reading(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "SETTLE_SECONDS", 0.0)

    class Ahead(Busy):
        async def extent(self) -> Extent:
            extent = await super().extent()
            return Extent(created=extent.created, last=extent.last + 1, keys=extent.keys)

    with pytest.raises(UnavailableError, match="kept changing"):
        await read_roots(NameRoots(Ahead()), spool)
