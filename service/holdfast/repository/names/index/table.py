"""The tables of the index, in a temporary database.

At a million names it takes some 200 MB of disk, and 32 MiB of memory however many there are.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from holdfast.errors import UnavailableError
from holdfast.repository.names.index.rows import NameRow, read_rows, record_of
from holdfast.repository.names.record import (
    Keep,
    NamedContent,
    NameRecord,
    VersionRecord,
    counts,
)
from holdfast.repository.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.record_ports import Changed

NOT_READY: Final = "this worker's index of names is not ready yet: try again"
MAX_PENDING: Final = 10_000
"""Announcements that are told at once."""

_SCHEMA: Final = (
    """
    CREATE TABLE names (
      name BLOB PRIMARY KEY, revision INTEGER, state TEXT, version INTEGER, oldest INTEGER,
      digest BLOB, size INTEGER, type TEXT, labels BLOB, modified_at TEXT, expires_at TEXT
    ) WITHOUT ROWID
    """,
    "CREATE TABLE graves (name BLOB PRIMARY KEY, version INTEGER, oldest INTEGER) WITHOUT ROWID",
    """
    CREATE TABLE announced (
      name BLOB, number INTEGER, revision INTEGER, op TEXT, at TEXT, digest BLOB,
      PRIMARY KEY (name, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE versions (
      name BLOB, version INTEGER, digest BLOB, PRIMARY KEY (name, version)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE others (key TEXT PRIMARY KEY, is_unreadable INTEGER) WITHOUT ROWID",
)
_BY_DIGEST: Final = (
    "CREATE INDEX names_by_digest ON names (digest) WHERE digest IS NOT NULL",
    "CREATE INDEX announced_by_digest ON announced (digest) WHERE digest IS NOT NULL",
    "CREATE INDEX versions_by_digest ON versions (digest)",
)
_NAME: Final = """
SELECT name, revision, state, version, oldest, digest, size, type, labels, modified_at, expires_at
FROM names
"""
_RANGE: Final = f"{_NAME} WHERE name >= ? AND name < ? ORDER BY name"
_MAY_NEED: Final = """
SELECT 1 WHERE EXISTS (SELECT 1 FROM names WHERE digest = ?1)
  OR EXISTS (SELECT 1 FROM announced WHERE digest = ?1)
  OR EXISTS (SELECT 1 FROM others WHERE is_unreadable)
"""
_EVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingWrite:
    """A write ``op`` of ``name`` that was announced ``at`` a time and is under way."""

    name: str
    op: str
    at: str


class Table(Scratch):
    """The records of the bucket as they were last read."""

    def __init__(self) -> None:
        """See `Scratch`."""
        super().__init__("names", _SCHEMA)
        self._names = 0
        self._others = 0

    @property
    def names(self) -> int:
        """The number of names, the deleted ones aside."""
        return self._names

    @property
    def keys(self) -> int:
        """The number of keys that have a record, graves included."""
        return self._names + self._others

    def apply(self, changes: Sequence[Changed]) -> None:
        """Take in ``changes``, in order, none older than what was said of its key before."""
        rows = read_rows({changed.key: changed for changed in changes}.values())
        with self._at_once():
            self._names -= self._each(
                "DELETE FROM names WHERE name = ?", sorted(rows.changed_names)
            )
            self._others -= self._each("DELETE FROM graves WHERE name = ?", rows.changed_names)
            self._each("DELETE FROM announced WHERE name = ?", rows.changed_names)
            self._others -= self._each(
                "DELETE FROM versions WHERE name = ? AND version = ?", rows.changed_versions
            )
            self._others -= self._each("DELETE FROM others WHERE key = ?", rows.keys)
            self._names += self._each(_inserted("names", 11), sorted(rows.names))
            self._others += self._each(_inserted("graves", 3), rows.graves)
            self._each(_inserted("announced", 6), rows.announced)
            self._others += self._each(_inserted("versions", 3), rows.versions)
            self._others += self._each(_inserted("others", 2), rows.others)

    def find_digests(self) -> None:
        """From here on digests are found at once. Once, after the first changes are in."""
        for statement in _BY_DIGEST:
            self._db.execute(statement)

    def names_between(self, start: bytes, stop: bytes) -> Iterator[NameRow]:
        """Names from ``start`` on and before ``stop``, ascending, none of them deleted."""
        return self._db.execute(_RANGE, (start, stop))

    def rows_of(self, digest: Digest) -> Iterator[NameRow]:
        """Names that have this blob, ascending."""
        return self._db.execute(f"{_NAME} WHERE digest = ? ORDER BY name", (bytes.fromhex(digest),))

    def needs(self, digest: Digest) -> bool:
        """Whether a name, a version that counts or an announcement needs the blob.

        Age is not looked at, for clocks differ: an expired name needs it until removed. An
        unreadable record may need any.
        """
        if self._db.execute(_MAY_NEED, (bytes.fromhex(digest),)).fetchone():
            return True
        return any(self._versions_of(digest))

    def others_of(self, digest: Digest, limit: int) -> list[str]:
        """Up to ``limit`` versions and announcements that need the blob, in words."""
        binary = (bytes.fromhex(digest),)
        found = [*self._versions_of(digest)]
        announced = self._db.execute("SELECT name FROM announced WHERE digest = ?", binary)
        found += [f"a write of {name.decode()}" for (name,) in announced]
        return found[:limit]

    def pending(self) -> list[PendingWrite]:
        """Announced writes, of names changed longest ago first; ``MAX_PENDING`` at most."""
        found = self._db.execute(
            "SELECT name, op, at FROM announced ORDER BY revision, number LIMIT ?", (MAX_PENDING,)
        )
        return [PendingWrite(name=name.decode(), op=op, at=at) for name, op, at in found]

    def _versions_of(self, digest: Digest) -> Iterator[str]:
        """The versions that count and need the blob, in words."""
        query, binary = "SELECT name, version FROM versions WHERE digest = ?", bytes.fromhex(digest)
        for name, version in self._db.execute(query, (binary,)):
            if self._counts(name, version, digest):
                yield f"version {version} of {name.decode()}"

    def _counts(self, name: bytes, version: int, digest: Digest) -> bool:
        """Whether the version is one of its name; yes, where nothing is known of that."""
        record = self._record(name)
        content = NamedContent(digest=digest, size=0, type="")
        found = VersionRecord(name=name.decode(), version=version, content=content)
        return record is None or counts(found, record, _EVER, Keep())

    def _record(self, name: bytes) -> NameRecord | None:
        row = self._db.execute(f"{_NAME} WHERE name = ?", (name,)).fetchone()
        if row is not None:
            return record_of(row)
        grave = self._db.execute("SELECT version, oldest FROM graves WHERE name = ?", (name,))
        for version, oldest in grave.fetchall():
            return NameRecord(name=name.decode(), state="deleted", version=version, oldest=oldest)
        return None


def _inserted(table: str, columns: int) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608  (constants)


class TableThread:
    """A table, and the one thread in which it is made, used and closed.

    It has no table at first. Begun work is done, even if nobody waits for it any more.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="names")
        self._table: Table | None = None
        self._is_closed = False

    @property
    def names(self) -> int:
        """The table's number of names."""
        table = self._table
        return 0 if table is None else table.names

    async def make_anew(self) -> None:
        """An empty table from here on. Raises OSError, sqlite3.Error."""
        await self._run(self._make_anew)

    async def ask[Found](self, work: Callable[[Table], Found]) -> Found:
        """The result of ``work``. Raises UnavailableError where there is no table."""
        return await self._run(partial(self._ask, work))

    async def aclose(self) -> None:
        """Give the file back. May be repeated."""
        if not self._is_closed:
            await self._run(self._drop)
            self._is_closed = True
            self._executor.shutdown()

    async def _run[Found](self, work: Callable[[], Found]) -> Found:
        if self._is_closed:
            raise UnavailableError(NOT_READY)
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _make_anew(self) -> None:
        self._drop()
        self._table = Table()

    def _ask[Found](self, work: Callable[[Table], Found]) -> Found:
        if self._table is None:
            raise UnavailableError(NOT_READY)
        return work(self._table)

    def _drop(self) -> None:
        if self._table is not None:
            table, self._table = self._table, None
            table.close()
