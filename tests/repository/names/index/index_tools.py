"""Names written as workers write them, and stores that answer as a lagging or damaged one does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.bootstrap.sources import SOURCES
from holdfast.domain.blob_names import NameState, name_key, version_key
from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import UnavailableError
from holdfast.repository.names.index.index import NameIndex
from holdfast.repository.names.index.listing import make_listing
from holdfast.repository.names.record import (
    Announcement,
    Keep,
    NamedContent,
    NameRecord,
    VersionRecord,
)
from holdfast.stores.memory import MemoryRecordStore
from holdfast.stores.record_ports import Changed, Changes

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from holdfast.repository.names.index.listing import Listing, NamesPage
    from holdfast.stores.record_ports import Change, RecordStore

MAX_LAG = 4
"""Changes that a replica may lack."""

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def digest(number: int) -> Digest:
    """A digest of its own for each number."""
    return digest_of(str(number).encode())


def content(number: int = 0, **said: Any) -> NamedContent:
    """The content of a name."""
    return NamedContent(digest=digest(number), size=number, type="text/plain", **said)


def announcement(number: int | None) -> Announcement:
    """A write that is under way, of that digest if it is known."""
    return Announcement(
        op=f"op-{number}",
        verb="replace",
        at=NOW.isoformat(),
        digest=None if number is None else digest(number),
    )


def name_record(name: str, state: NameState = "ok", **said: Any) -> NameRecord:
    """The record of a name that has a blob if it is ok."""
    plain = {
        "version": 1,
        "oldest": 1,
        "content": content() if state == "ok" else None,
        "modified_at": NOW.isoformat(),
    }
    return NameRecord(name=name, state=state, **(plain | said))


def changed(record: NameRecord, revision: int) -> Changed:
    """The change that wrote ``record``."""
    key = f"n.{name_key(record.name)}"
    return Changed(key=key, revision=revision, value=msgspec.json.encode(record), at=NOW)


class Names:
    """Writes the records of names into a store."""

    def __init__(self, records: RecordStore) -> None:
        self.records = records
        self._revisions: dict[str, int] = {}

    async def write(self, name: str, state: NameState = "ok", **said: Any) -> None:
        """Let the record of ``name`` be this one."""
        record = name_record(name, state, **said)
        await self.put(f"n.{name_key(name)}", msgspec.json.encode(record))

    async def write_version(self, name: str, version: int, number: int) -> None:
        """Write a version down that the name had."""
        record = VersionRecord(name=name, version=version, content=content(number))
        await self.put(f"v.{version_key(name, version)}", msgspec.json.encode(record))

    async def put(self, key: str, value: bytes) -> None:
        """Write anything."""
        expected = self._revisions.get(key, 0)
        self._revisions[key] = await self.records.put(key, value, expected=expected)

    async def remove(self, key: str) -> None:
        """Remove a record."""
        await self.records.delete(key, expected=self._revisions.pop(key))


@asynccontextmanager
async def running(
    records: RecordStore,
    *,
    keep: Callable[[str], Keep] = lambda _name: Keep(),
    ready: bool = True,
) -> AsyncIterator[NameIndex]:
    """An index of that store, which is built unless it is not to be waited for."""
    index = NameIndex(records, keep=keep, sources=SOURCES)
    index.start()
    try:
        if ready:
            await index.wait_ready()
        yield index
    finally:
        await index.aclose()


def listing(**said: Any) -> Listing:
    """Of everything, but for what is said."""
    asked: dict[str, Any] = {
        "prefix": "",
        "delimiter": "",
        "labels": {},
        "start_after": "",
        "cursor": None,
        "limit": 1000,
        "now": NOW,
    }
    return make_listing(**(asked | said))


async def page(index: NameIndex, **said: Any) -> NamesPage:
    """A page of everything, but for what is said."""
    return await index.page(listing(**said))


async def listed(index: NameIndex) -> list[str]:
    """All names."""
    return [entry.name for entry in (await page(index)).names]


async def listed_once_rebuilt(index: NameIndex) -> list[str]:
    """All names, once the index was built anew."""
    rebuilt = index.state.rebuilt
    while index.state.rebuilt == rebuilt:
        try:
            await listed(index)
        except UnavailableError:
            break
    await index.wait_ready()
    return await listed(index)


class Replicas(MemoryRecordStore):
    """Each page of changes comes from a replica that is as far as it happens to be, and is short.

    ``meanwhile`` is awaited before each answer. As on JetStream the leader tells of the end.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__(lambda: 0.0)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self._rng = rng
        self._log: list[Changed] = []

    async def changes(self, after: int, *, limit: int = 500) -> Changes:
        """See `RecordStore.changes`."""
        if self.meanwhile is not None:
            await self.meanwhile()
        head = max(self._last - self._rng.randrange(MAX_LAG), 0)
        found = self._behind(after, head)
        if found:
            some = found[: min(limit, self._rng.randint(1, 4))]
            is_end = len(some) == len(found)
            return Changes(changes=some, position=some[-1].revision, is_end=is_end)
        found = self._behind(after, self._last)[:1]
        position = found[0].revision if found else max(after, self._last)
        return Changes(changes=found, position=position, is_end=not found)

    def _behind(self, after: int, head: int) -> list[Changed]:
        last = {one.key: one for one in self._log if one.revision <= head}
        return sorted(
            (one for one in last.values() if one.revision > after),
            key=lambda one: one.revision,
        )

    async def _change(self, changes: Sequence[Change]) -> list[int]:
        revisions = await super()._change(changes)
        self._log += [self._entries[change.key].changed for change in changes]
        return revisions


class UnsafeRecordStore(MemoryRecordStore):
    """Loses things without a word, and has them back."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)

    def lose(self, key: str) -> Changed:
        """The change that is there no more."""
        return self._entries.pop(key).changed

    def bring_back(self, change: Changed) -> None:
        """A change from before."""
        entry = type(next(iter(self._entries.values())))(change, None)
        found = [*self._entries.values(), entry]
        found.sort(key=lambda one: one.changed.revision)
        self._entries = {one.changed.key: one for one in found}

    def fall_back(self, revision: int) -> None:
        """Whatever came later is lost."""
        self._entries = {
            key: entry for key, entry in self._entries.items() if entry.changed.revision <= revision
        }
        self._last = revision

    def make_anew(self) -> None:
        """Another store in the same place, with nothing in it."""
        self._created += "'"
        self._entries.clear()
        self._last = 0

    def forget_removals(self) -> None:
        """The notes of what was removed go away, as they do after a while."""
        self._entries = {
            key: entry for key, entry in self._entries.items() if entry.changed.value is not None
        }


def hours(count: int) -> timedelta:
    """So many hours."""
    return timedelta(hours=count)
