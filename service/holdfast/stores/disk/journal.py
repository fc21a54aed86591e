"""Logs in a database of SQLite, in a directory of one machine: one row is one entry.

A row carries a checksum over all that it says. Entries that the processes of one machine append to
one store are in the order of its rows, whose numbers are the time of day in microseconds, or one
more than the last. Appends that come while others are being synced go together in the next
transaction, and each is judged by itself.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import zlib
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holdfast.deadline import Gathering
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, HoldfastError, UnavailableError
from holdfast.stores.disk.database import (
    SPOILT,
    DatabaseStore,
    Form,
    create_database,
    micros,
    moment_of,
    number,
    primary_code,
)
from holdfast.stores.disk.files import translated
from holdfast.stores.journal_parts import (
    CheckedJournal,
    Waiters,
    checksum_of,
    not_the_last,
    page_up_to_damage,
)
from holdfast.stores.journal_ports import DamagedEntryError, JournalEntry
from holdfast.stores.keys import check_record_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from datetime import datetime
    from pathlib import Path

    from holdfast.stores.disk.files import Files
    from holdfast.stores.journal_parts import Append, Waiter
    from holdfast.stores.journal_ports import JournalPage

LOOK_EVERY_SECONDS: Final = 0.05
"""Seconds between a follower's looks for entries of other processes."""

LITTLE_ROOM_BYTES: Final = 256 * MIB
REMOVED_AT_ONCE: Final = 1000
MOST_TOGETHER: Final = 256
MOST_BYTES_TOGETHER: Final = 8 * MIB

LOGS_FORM: Final = Form(
    file="logs.sqlite",
    identity=(0x686F6C67, 1),
    schema=(
        """
        CREATE TABLE entries (
          sequence INTEGER PRIMARY KEY AUTOINCREMENT,
          log TEXT NOT NULL,
          previous INTEGER NOT NULL,
          message_id TEXT NOT NULL,
          checksum INTEGER NOT NULL,
          value BLOB NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX by_log ON entries (log, sequence)",
    ),
    last="by_log",
)
_COLUMNS: Final = "sequence, previous, message_id, checksum, value"
_FROM: Final = f"SELECT {_COLUMNS} FROM entries WHERE log = ? AND sequence >= ? ORDER BY sequence"  # noqa: S608
_END: Final = f"SELECT {_COLUMNS} FROM entries WHERE log = ? ORDER BY sequence DESC LIMIT 1"  # noqa: S608
_BEHIND: Final = """
SELECT sequence, message_id FROM entries WHERE log = ? AND sequence > ? ORDER BY sequence LIMIT 1
"""
_LAST_OF: Final = "SELECT ifnull(max(sequence), 0) FROM entries WHERE log = ?"
_LAST: Final = "SELECT ifnull(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'"
_GROWN: Final = "SELECT log, max(sequence) FROM entries WHERE sequence > ? GROUP BY log"
_REMOVE: Final = """
DELETE FROM entries WHERE sequence IN
(SELECT sequence FROM entries WHERE log = ? AND sequence <= ? ORDER BY sequence LIMIT ?)
"""

type _Row = tuple[Any, ...]


def create_journal_store(root: Path) -> None:
    """Make ``root`` a store of logs, as `create_record_store` makes one of records."""
    create_database(root, LOGS_FORM)


@dataclass(slots=True, eq=False)
class _Waiting:
    """An append that waits for its transaction."""

    append: Append
    done: asyncio.Future[int] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, outcome: int | HoldfastError) -> None:
        if self.done.done():
            return
        if isinstance(outcome, int):
            self.done.set_result(outcome)
        else:
            self.done.set_exception(outcome)


class DiskJournalStore(CheckedJournal, DatabaseStore):
    """A `JournalStore` under ``root``, which ``create_journal_store`` has made.

    Several processes may use one root. ``clock`` is the time of day.
    """

    def __init__(
        self, root: Path, *, clock: Callable[[], datetime], files: Files | None = None
    ) -> None:
        super().__init__(root, files, LOGS_FORM)
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._gathering = Gathering(self._take, 1)
        self._waiters = Waiters()
        self._looking: asyncio.Task[None] | None = None

    async def _append(self, one: Append) -> int:
        waiting = _Waiting(one)
        self._waiting.append(waiting)
        self._gathering.schedule()
        return await waiting.done

    def _take(self) -> Coroutine[Any, Any, None] | None:
        """A transaction of the first that wait."""
        if not self._waiting:
            return None
        count = size = 0
        for one in self._waiting[:MOST_TOGETHER]:
            size += len(one.append.value)
            if count and size > MOST_BYTES_TOGETHER:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return self._append_all(group)

    async def _append_all(self, group: Sequence[_Waiting]) -> None:
        outcomes: Sequence[int | HoldfastError]
        appends = [one.append for one in group]
        try:
            outcomes = await self._write(partial(_apply, group=appends, clock=self._clock))
        except HoldfastError as error:
            outcomes = [error] * len(group)
        for one, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, int):
                self._waiters.tell(one.append.log, outcome)
            one.settle(outcome)

    async def last(self, log: str) -> JournalEntry | None:
        """See `JournalStore.last`."""
        check_record_key(log)
        return await self._one(log, _END, log)

    async def first_from(self, log: str, sequence: int) -> JournalEntry | None:
        """See `JournalStore.first_from`."""
        check_record_key(log)
        return await self._one(log, f"{_FROM} LIMIT 1", log, sequence)

    async def first_since(self, log: str, moment: datetime) -> JournalEntry | None:
        """See `JournalStore.first_since`."""
        return await self.first_from(log, micros(moment))

    async def _page(
        self, log: str, after: int, limit: int, max_bytes: int, *, sure: bool
    ) -> JournalPage:
        del sure  # there are no replicas
        work = partial(_rows, log=log, after=after, limit=limit, max_bytes=max_bytes)
        rows, is_end = await self._read(work)
        return page_up_to_damage(rows, partial(_entry, log), max_bytes=max_bytes, is_end=is_end)

    async def _end(self, log: str) -> int:
        return await self._read(lambda connection: number(connection, _LAST_OF, log))

    async def remove(self, log: str, through: int) -> None:
        """See `JournalStore.remove`."""
        check_record_key(log)
        some = partial(_remove_some, log=log, through=through)
        while await self._write(some) == REMOVED_AT_ONCE:
            pass

    @asynccontextmanager
    async def follow(self, log: str) -> AsyncIterator[Waiter]:
        """See `JournalStore.follow`."""
        check_record_key(log)
        async with self._waiters.watch(log) as waiter:
            seen = await self._read(lambda connection: number(connection, _LAST))
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(seen))
            yield waiter

    async def _look(self, seen: int) -> None:
        """Tell waiters of entries that other processes append behind ``seen``, while any wait."""
        while self._waiters:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            with suppress(UnavailableError, CorruptError):  # readers of the log are told
                for name, sequence in await self._read(partial(_grown, after=seen)):
                    seen = max(seen, sequence)
                    self._waiters.tell(name, sequence)

    async def now(self) -> datetime:
        """See `JournalStore.now`."""
        return self._clock()

    async def has_little_room(self) -> bool:
        """See `JournalStore.has_little_room`."""
        return await asyncio.to_thread(_free_bytes, self._root) < LITTLE_ROOM_BYTES

    async def look_for_damage(self) -> None:
        """Log the fault of the database, if any. An entry's value is not looked at."""
        await self._log_damage("logs_damaged")

    async def check(self) -> None:
        """See `JournalStore.check`."""
        try:
            await self._read(partial(_rows, log="", after=0, limit=1, max_bytes=1))
        except CorruptError as error:
            raise UnavailableError(error.detail) from error

    async def aclose(self) -> None:
        """See `JournalStore.aclose`."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await super().aclose()

    async def _one(self, log: str, query: str, *values: object) -> JournalEntry | None:
        row = await self._read(lambda connection: connection.execute(query, values).fetchone())
        return None if row is None else _entry(log, row)


def _free_bytes(root: Path) -> int:
    with translated():
        return shutil.disk_usage(root).free


# Work on a connection


def _apply(
    connection: sqlite3.Connection, group: Sequence[Append], clock: Callable[[], datetime]
) -> list[int | HoldfastError]:
    """Make each of the appends, or say why not."""
    outcomes: list[int | HoldfastError] = []
    following = max(micros(clock()), 1 + number(connection, _LAST))
    for one in group:
        behind = connection.execute(_BEHIND, (one.log, one.expected)).fetchone()
        last = number(connection, _LAST_OF, one.log)
        if behind is not None and behind[1] == one.message_id.encode():
            outcomes.append(behind[0])
        elif last != one.expected:
            outcomes.append(not_the_last(one.log))
        elif not one.behind_damage and (damage := _damage_at_end(connection, one.log)) is not None:
            outcomes.append(damage)
        else:
            checksum = _checksum(following, one.checksum)
            row = (following, one.log, one.expected, one.message_id, checksum, one.value)
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
            outcomes.append(following)
            following += 1
    return outcomes


def _damage_at_end(connection: sqlite3.Connection, log: str) -> CorruptError | None:
    """The fault of the log's last entry, if there is one."""
    try:
        row = connection.execute(_END, (log,)).fetchone()
        if row is not None:
            _entry(log, row)
    except sqlite3.DatabaseError as error:
        if primary_code(error) != sqlite3.SQLITE_CORRUPT:
            raise
        return CorruptError(f"the end of the log {log} cannot be read: {SPOILT}")
    except CorruptError as error:
        return error
    return None


def _rows(
    connection: sqlite3.Connection, log: str, after: int, limit: int, max_bytes: int
) -> tuple[list[_Row], bool]:
    """Rows behind ``after``, and whether there is none behind them."""
    rows: list[_Row] = []
    size = 0
    with closing(connection.execute(f"{_FROM} LIMIT ?", (log, after + 1, limit + 1))) as found:
        try:
            for row in found:
                if len(rows) == limit or size >= max_bytes:
                    return rows, False
                rows.append(row)
                size += len(row[-1]) if isinstance(row[-1], bytes) else 0
        except sqlite3.DatabaseError as error:
            if primary_code(error) != sqlite3.SQLITE_CORRUPT:
                raise
            if not rows:
                msg = f"behind sequence {after} the log {log} cannot be read: {SPOILT}"
                raise CorruptError(msg) from error
            return rows, False
    return rows, True


def _remove_some(connection: sqlite3.Connection, log: str, through: int) -> int:
    return connection.execute(_REMOVE, (log, through, REMOVED_AT_ONCE)).rowcount


def _grown(connection: sqlite3.Connection, after: int) -> list[tuple[str, int]]:
    """The logs that have entries behind ``after``, and the last sequence of each."""
    rows = connection.execute(_GROWN, (after,)).fetchall()
    return [(name.decode("ascii", "backslashreplace"), sequence) for name, sequence in rows]


def _entry(log: str, row: _Row) -> JournalEntry:
    """The entry of the row. Raises CorruptError."""
    match row:
        case (int(sequence), int(previous), bytes(told), int(checksum), bytes(value)):
            message_id = told.decode("ascii", "backslashreplace")
            said = checksum_of(log, previous, message_id, value)
            if checksum == _checksum(sequence, said):
                return JournalEntry(
                    sequence=sequence,
                    previous=previous,
                    at=moment_of(sequence),
                    message_id=message_id,
                    value=value,
                )
        case _:
            pass
    raise DamagedEntryError(log, row[0])


def _checksum(sequence: int, said: int) -> int:
    """The checksum over the sequence, too, of an entry whose append has the checksum ``said``."""
    return zlib.crc32(b"%d" % sequence, said)
