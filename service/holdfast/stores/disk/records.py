"""Records in a database of SQLite, in a directory of one machine.

One row is one record. It carries a checksum over all that it says, so a record that was damaged is
told as such and hides no other. A removal leaves a row that has expired, as a note for those who
follow the changes. ``disk.database`` keeps the database; this module takes the blocking work off
the event loop.

Why: docs/decisions.md, "Records in SQLite".
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.errors import ConflictError, CorruptError, NotFoundError, UnavailableError
from holdfast.stores.disk.database import (
    MICROSECOND,
    OLDER,
    RECORDS_FORM,
    SPOILT,
    DatabaseStore,
    is_complete,
    micros,
    moment_of,
    number,
    primary_code,
)
from holdfast.stores.keys import (
    CheckedChanges,
    check_limit,
    check_many,
    check_prefix,
    check_record_key,
    is_record_key,
)
from holdfast.stores.record_ports import CHANGES_LIMIT, Changed, Changes, Delete, Extent, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from holdfast.stores.disk.files import Files
    from holdfast.stores.record_ports import Change

PAGE_RECORDS: Final = 100
SWEPT_AT_ONCE: Final = 1000
MAX_TOLD: Final = 1000
"""Damaged records that are logged, once each."""

_FIND: Final = "SELECT revision, expires_at, checksum, value FROM records WHERE key = ?"
_KEYS: Final = """
SELECT key FROM records WHERE key > :after AND key < :end
EXCEPT SELECT key FROM records
WHERE key > :after AND key < :end AND expires_at IS NOT NULL AND expires_at <= :now
ORDER BY key
"""
_PAGE: Final = """
SELECT key, revision, expires_at, checksum, value FROM records
WHERE key > ? AND key < ? ORDER BY key LIMIT ?
"""
_CHANGED: Final = """
SELECT key, revision, expires_at, checksum, value FROM records
WHERE revision > ? ORDER BY revision LIMIT ?
"""
_LAST: Final = "SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'records'"
_EXTENT: Final = f"SELECT created, ({_LAST}), keys FROM extent"  # noqa: S608  (constants)
_COUNT: Final = """
SELECT keys - (SELECT count(*) FROM records WHERE key <= ? OR key >= ?) FROM extent
"""
_EXPIRED: Final = """
DELETE FROM records WHERE revision IN
(SELECT revision FROM records WHERE expires_at BETWEEN 0 AND ? LIMIT ?)
"""
_ABOVE_ALL_KEYS: Final = b""
"""SQLite has bytes follow any text, damaged or not."""

_FOR_GOOD: Final = -1
"""When a row expired that is never swept."""

type _Found = tuple[Record, int | None]
"""A record, and when it expires."""

log = structlog.get_logger(__name__)


class DiskRecordStore(CheckedChanges, DatabaseStore):
    """A `RecordStore` under ``root``, which ``create_record_store`` has made.

    Several processes may use one root. ``clock`` is the time of day: records with a time to live
    go away by it.
    """

    def __init__(
        self, root: Path, *, clock: Callable[[], datetime], files: Files | None = None
    ) -> None:
        super().__init__(root, files, RECORDS_FORM)
        self._clock = clock
        self._told: set[str] = set()

    async def get(self, key: str, *, sure: bool = False) -> Record:
        """See `RecordStore.get`. Raises CorruptError when the row does not match its checksum."""
        del sure
        check_record_key(key)
        found = await self._read(partial(_live, key=key, clock=self._clock))
        if found is None:
            raise NotFoundError(f"no record {key}")
        return found

    async def get_many(self, keys: Sequence[str]) -> list[Record]:
        """See `RecordStore.get_many`. A record left out as damaged is logged once."""
        wanted = check_many(keys)
        found, damaged = await self._read(partial(_many, keys=wanted, clock=self._clock))
        self._tell(damaged)
        return found

    async def list_keys(self, prefix: str) -> list[str]:
        """See `RecordStore.list_keys`. A removed or expired key is not listed."""
        check_prefix(prefix)
        found, damaged = await self._read(partial(_keys, prefix=prefix, clock=self._clock))
        self._tell(damaged)
        return found

    async def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """See `RecordStore.list_records`. In ascending order of the key. Raises CorruptError."""
        check_prefix(prefix)
        if prefix:
            with suppress(NotFoundError):
                yield await self.get(prefix)
        after, end = _range_below(prefix)
        while True:
            page = await self._read(partial(_page, after=after, end=end))
            now = micros(self._clock())
            for record, expires_at in page:
                if not _is_over(expires_at, now):
                    yield record
            if len(page) < PAGE_RECORDS:
                return
            after = page[-1][0].key

    async def extent(self) -> Extent:
        """See `RecordStore.extent`."""
        return await self._read(_extent)

    async def count(self, prefix: str) -> int:
        """See `RecordStore.count`. A row that was lost counts, whatever it was."""
        check_prefix(prefix)
        bounds = _range_below(prefix)
        return await self._read(lambda connection: number(connection, _COUNT, *bounds))

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> Changes:
        """See `RecordStore.changes`. A record left out as damaged is logged once.

        The time of a change is its revision, in microseconds.
        """
        check_limit(limit)
        work = partial(_changes, after=after, limit=limit, clock=self._clock)
        found, damaged = await self._read(work)
        self._tell(damaged)
        return found

    async def sweep(self, now: datetime, grace: timedelta) -> int:
        """Remove records that expired, and notes of removals, ``grace`` or longer ago; how many.

        A damaged database is logged.
        """
        removed = 0
        expired = partial(_sweep_some, before=micros(now - grace))
        while some := await self._write(expired):
            removed += some
        await self._log_damage("records_damaged")
        return removed

    async def check(self) -> None:
        """See `RecordStore.check`."""
        try:
            is_of_present = await self._read(is_complete)
            await self._read(partial(_page, after="", end=""))
        except CorruptError as error:
            raise UnavailableError(error.detail) from error
        if not is_of_present:
            raise UnavailableError(OLDER)

    async def _change(self, changes: Sequence[Change]) -> list[int]:
        return await self._write(partial(_apply, changes=changes, clock=self._clock))

    def _tell(self, damaged: Sequence[str]) -> None:
        for key in damaged:
            if key not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(key)
                log.error("record_damaged", key=key, root=str(self._root))


# Work on a connection


def _apply(
    connection: sqlite3.Connection, changes: Sequence[Change], clock: Callable[[], datetime]
) -> list[int]:
    """Make the changes; their revisions. Raises ConflictError, and CorruptError of a record.

    A revision is the time of day in microseconds, or one more than the last: also a database that
    was lost and made anew, or came back from a copy, repeats none.
    """
    now = micros(clock())
    for change in changes:
        if change.expected is not None:
            _compare(connection, change.key, change.expected, now)
    first = max(now, 1 + number(connection, _LAST))
    for revision, change in enumerate(changes, first):
        connection.execute("DELETE FROM records WHERE key = ?", (change.key,))
        value = b"" if isinstance(change, Delete) else change.value
        expires_at = _expiry(change, now)
        checksum = _checksum(change.key, revision, expires_at, value)
        row = (revision, change.key, expires_at, checksum, value)
        connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)
    return list(range(first, first + len(changes)))


def _expiry(change: Change, now: int) -> int | None:
    """When the row of ``change`` is over; at once, if it removes the record."""
    if isinstance(change, Delete):
        return _FOR_GOOD if change.for_good else now
    return None if change.ttl is None else now + change.ttl // MICROSECOND


def _compare(connection: sqlite3.Connection, key: str, expected: int, now: int) -> None:
    found = _find(connection, key)
    present = 0 if found is None or _is_over(found[1], now) else found[0].revision
    if present != expected:
        raise ConflictError(f"record {key} is not at the expected revision")


def _live(connection: sqlite3.Connection, key: str, clock: Callable[[], datetime]) -> Record | None:
    found = _find(connection, key)
    return None if found is None or _is_over(found[1], micros(clock())) else found[0]


def _many(
    connection: sqlite3.Connection, keys: Sequence[str], clock: Callable[[], datetime]
) -> tuple[list[Record], list[str]]:
    """Those that are there, in order; and the keys of those that are damaged."""
    found, damaged = [], []
    connection.execute("BEGIN")
    for key in keys:
        try:
            record = _live(connection, key, clock)
        except CorruptError:
            damaged.append(key)
            continue
        if record is not None:
            found.append(record)
    connection.execute("COMMIT")
    return found, damaged


def _keys(
    connection: sqlite3.Connection, prefix: str, clock: Callable[[], datetime]
) -> tuple[list[str], list[str]]:
    """The keys below ``prefix``, ascending; and what stands in the place of one that was damaged.

    No row is touched: the indexes have it all.
    """
    after, end = _range_below(prefix)
    bounds = {"after": after, "end": end, "now": micros(clock())}
    rows = connection.execute(_KEYS, bounds).fetchall()
    keys = [row[0].decode("ascii", "backslashreplace") for row in rows]
    found = [key for key in keys if is_record_key(key)]
    damaged = [] if len(found) == len(keys) else sorted(set(keys) - set(found))
    return found, damaged


def _page(connection: sqlite3.Connection, after: str, end: str | bytes) -> list[_Found]:
    rows = connection.execute(_PAGE, (after, end, PAGE_RECORDS)).fetchall()
    return [_checked(row[0].decode("ascii", "backslashreplace"), row[1:]) for row in rows]


def _extent(connection: sqlite3.Connection) -> Extent:
    [(created, last, keys)] = connection.execute(_EXTENT).fetchall()
    return Extent(created=created.decode(), last=last, keys=keys)


def _changes(
    connection: sqlite3.Connection, after: int, limit: int, clock: Callable[[], datetime]
) -> tuple[Changes, list[str]]:
    """The changes behind ``after``; and the keys of those that are damaged."""
    connection.execute("BEGIN")
    rows = connection.execute(_CHANGED, (after, limit)).fetchall()
    last = number(connection, _LAST)
    connection.execute("COMMIT")
    now = micros(clock())
    changes, damaged = [], []
    for row in rows:
        key = row[0].decode("ascii", "backslashreplace")
        try:
            changes.append(_changed(_checked(key, row[1:]), now))
        except CorruptError:
            damaged.append(key)
    is_end = len(rows) < limit
    position = max(after, last) if is_end else rows[-1][1]
    return Changes(changes=changes, position=position, is_end=is_end), damaged


def _changed(found: _Found, now: int) -> Changed:
    record, expires_at = found
    return Changed(
        key=record.key,
        revision=record.revision,
        value=None if _is_over(expires_at, now) else record.value,
        at=moment_of(record.revision),
    )


def _sweep_some(connection: sqlite3.Connection, before: int) -> int:
    return connection.execute(_EXPIRED, (before, SWEPT_AT_ONCE)).rowcount


def _find(connection: sqlite3.Connection, key: str) -> _Found | None:
    """The row of ``key``. Raises CorruptError where it is damaged."""
    try:
        row = connection.execute(_FIND, (key,)).fetchone()
    except sqlite3.DatabaseError as error:
        if primary_code(error) == sqlite3.SQLITE_CORRUPT:  # the page that it lies on; others may do
            raise CorruptError(SPOILT) from error
        raise
    return None if row is None else _checked(key, row)


def _checked(key: str, row: tuple[object, ...]) -> _Found:
    """The record of ``row``. Raises CorruptError."""
    match row:
        case (int(revision), None | int() as expires_at, int(checksum), bytes(value)) if (
            checksum == _checksum(key, revision, expires_at, value)
        ):
            return Record(key=key, value=value, revision=revision), expires_at
    raise CorruptError("the stored record does not match its checksum")


def _checksum(key: str, revision: int, expires_at: int | None, value: bytes) -> int:
    return zlib.crc32(value, zlib.crc32(f"{key} {revision} {expires_at}\n".encode()))


def _range_below(prefix: str) -> tuple[str, str | bytes]:
    """The bounds, themselves excluded, of the keys below ``prefix``: a slash follows a dot."""
    return (f"{prefix}.", f"{prefix}/") if prefix else ("", _ABOVE_ALL_KEYS)


def _is_over(expires_at: int | None, now: int) -> bool:
    return expires_at is not None and expires_at <= now
