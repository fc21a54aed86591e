"""The databases of the disk store: how SQLite is opened, locked, waited for and closed.

A change is one transaction in the write-ahead log, and synced before it is acknowledged; a crash
leaves all of it or nothing. Reading waits for nobody. Three things are added to what SQLite does:

- A writer has locked the directory, for one transaction at most. SQLite before 3.51.3 may lose what
  was committed when a checkpoint of one connection meets a write of another (the "WAL-reset bug").
  Here both happen under that lock only: a commit makes checkpoints, closing none.
- A process that opens a database takes the whole log for durable, even what a failed sync has lost
  but for the kernel's memory; what is added behind that would be lost with it. So the log is
  written once more before the first change after an opening, or after a commit that failed.
- A process that was forked is refused. SQLite would take its parent's locks for its own.

Nobody else may open the database's files in a process that uses it: closing any descriptor of them
drops the locks of the whole process.

Why: docs/decisions.md, "Writers of records take turns under a lock of ours", and "The log is
written once more before it is added to".
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.errors import (
    ConflictError,
    CorruptError,
    HoldfastError,
    OutcomeUnknownError,
    QuotaExceededError,
    UnavailableError,
)
from holdfast.stores.disk.files import MARKER, Files, take_lock, translated
from holdfast.stores.disk.mounts import refuse_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

DATABASE: Final = "records.sqlite"
PATIENCE_SECONDS: Final = 10.0
"""Seconds a change waits for those of others, which take milliseconds unless one is stopped."""

CHECKPOINT_PAGES: Final = 1000
MAX_LOG_BYTES: Final = 64 * 1024 * 1024
"""To this length the write-ahead log is cut again, once a reader that was stopped let it grow."""

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
MICROSECOND: Final = timedelta(microseconds=1)
_NOT_MADE: Final = (0, 0)
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
  revision INTEGER PRIMARY KEY AUTOINCREMENT,
  key TEXT NOT NULL UNIQUE,
  expires_at INTEGER,
  checksum INTEGER NOT NULL,
  value BLOB NOT NULL
)
"""
_ADDED: Final = (
    "CREATE INDEX IF NOT EXISTS ending ON records (key, expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS extent (created TEXT NOT NULL, keys INTEGER NOT NULL)",
    """
    INSERT INTO extent SELECT lower(hex(randomblob(16))), (SELECT COUNT(*) FROM records)
    WHERE NOT EXISTS (SELECT 1 FROM extent)
    """,
    """
    CREATE TRIGGER IF NOT EXISTS counted_in AFTER INSERT ON records
    BEGIN UPDATE extent SET keys = keys + 1; END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS counted_out AFTER DELETE ON records
    BEGIN UPDATE extent SET keys = keys - 1; END
    """,
)
"""Parts a store of the first version lacks. ``ending`` tells what is over without a look at a row.
To count a million rows takes a while, so the database does it as they come and go."""


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a kind of database.

    ``identity`` is its ``application_id`` and ``user_version``. ``added`` is what one of the first
    version lacks, and ``last`` the name of the last thing that is made.
    """

    file: str
    identity: tuple[int, int]
    schema: tuple[str, ...]
    last: str
    added: tuple[str, ...] = ()


RECORDS_FORM: Final = Form(DATABASE, (0x686F6C64, 1), (_SCHEMA,), "counted_out", _ADDED)

_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""With the last of them our statements, which are right, meet a table that is another."""

LOCKED: Final = (
    "the records on disk are being changed by a process that does not finish; it may be stopped"
)
SPOILT: Final = (
    "the database of records is damaged; stop the workers and bring back a copy, or what "
    "`.recover` of `sqlite3` finds"
)
_NOT_FOUND: Final = (
    "no store of records was found at the configured path; mount it, or create it once"
)
_OLD_FORM: Final = (
    "the records have an older form, a directory for each, which this version does not read: go on "
    "with the version that wrote them, or move `records` and `snapshots` out of the disk store and "
    "run `holdfast admin init`; the blobs stay"
)
OLDER: Final = (
    "the records were made by an older version; `holdfast admin upgrade` with the same store"
    " completes them"
)
_OTHER_FORM: Final = "the records have another format; use the version of holdfast that wrote them"
_FORKED: Final = "the records on disk were opened before this process was forked; start it anew"

type _Identity = tuple[int, int]

log = structlog.get_logger(__name__)

_processes: Final[set[int]] = set()
"""This process and those it was forked from, if they have opened a database."""


def create_record_store(root: Path) -> None:
    """Make ``root`` a store of records, as an operator does once, and no worker ever does.

    May be repeated, and completes a store of an older version; what is stored stays. Raises
    UnavailableError, QuotaExceededError.
    """
    create_database(root, RECORDS_FORM)


def create_database(root: Path, form: Form) -> None:
    """Make ``root`` a store with a database of that ``form``, as `create_record_store`."""
    with translated():
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_old_form(root)
        with suppress(FileExistsError):
            os.close(os.open(root / form.file, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    with _errors_reported(), closing(_connect(root / form.file)) as connection:
        if _identity_of(connection) == _NOT_MADE:
            connection.execute("BEGIN IMMEDIATE")
            _execute(connection, form.schema + form.added)
            connection.execute(f"PRAGMA application_id = {form.identity[0]}")
            connection.execute(f"PRAGMA user_version = {form.identity[1]}")
            connection.execute("COMMIT")
        _check_form(connection, form)
        is_of_older = not is_complete(connection, form)
    if is_of_older:
        with closing(Database(root, Files(), form)) as database:
            complete = partial(_execute, statements=form.added)
            database.change(complete, time.monotonic() + PATIENCE_SECONDS)
    with translated():
        Files().sync_directory(root)


class Database:
    """The database under ``root``. Every method blocks, and may be called from any thread."""

    def __init__(self, root: Path, files: Files, form: Form = RECORDS_FORM) -> None:
        self._root = root
        self._path = root / form.file
        self._form = form
        self._files = files
        self._guard = Lock()  # for the two below; never held while a file is touched
        self._idle: list[tuple[_Identity, sqlite3.Connection]] = []
        self._closed = False
        self._log_is_durable = False

    def read[Found](self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        """The result of ``work``. Raises UnavailableError, CorruptError."""
        with self._connection() as connection:
            return work(connection)

    def change[Done](self, work: Callable[[sqlite3.Connection], Done], deadline: float) -> Done:
        """Do ``work`` in one transaction, durably; nothing of it where it raises.

        ``deadline`` is by `time.monotonic`. Raises UnavailableError and QuotaExceededError of what
        surely was not done, OutcomeUnknownError, CorruptError.
        """
        with self._locked(deadline), self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._make_log_durable()
            done = work(connection)
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._log_is_durable = False
                raise _unconfirmed(error) from error
            return done

    def close(self) -> None:
        """Close all connections; those in use, once they are not. May be repeated."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """One that nobody else uses meanwhile. Turns the errors of SQLite into ours."""
        identity = self._identity()
        with ExitStack() as closed_after, _errors_reported():
            connection = self._take(identity) or self._open()
            closed_after.callback(connection.close)
            try:
                yield connection
            except (ConflictError, CorruptError):  # a record says so; the connection is as before
                connection.rollback()
                self._give_back(identity, connection, closed_after)
                raise
            self._give_back(identity, connection, closed_after)

    @contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        """Keep others from changing anything. The lock goes away with the process."""
        self._identity()
        with translated():
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            take_lock(descriptor, deadline, LOCKED)
            yield
        finally:
            os.close(descriptor)

    def _make_log_durable(self) -> None:
        """Nobody else writes to it: the caller has begun a transaction that may."""
        if not self._log_is_durable:
            with translated(), suppress(FileNotFoundError):
                self._files.rewrite(self._path.with_name(f"{self._path.name}-wal"))
            self._log_is_durable = True

    def _identity(self) -> _Identity:
        """The file that is the database now: another may be mounted, or come from a copy.

        Raises UnavailableError, CorruptError.
        """
        try:
            status = self._path.lstat()
        except OSError as error:
            _refuse_old_form(self._root)
            raise UnavailableError(_NOT_FOUND) from error
        if not stat.S_ISREG(status.st_mode):
            raise CorruptError("the database is not a regular file")
        return status.st_dev, status.st_ino

    def _take(self, identity: _Identity) -> sqlite3.Connection | None:
        """One that is open, and of that file."""
        _refuse_forked()
        with self._guard:
            idle = self._idle
            found = idle.pop()[1] if idle and idle[-1][0] == identity else None
            if found is None:
                self._idle = []  # what is there is of a file that is no longer in its place
        if found is None:
            for _, connection in idle:
                connection.close()
        return found

    def _give_back(
        self, identity: _Identity, connection: sqlite3.Connection, closed_after: ExitStack
    ) -> None:
        with self._guard:
            if not self._closed:
                self._idle.append((identity, connection))
                closed_after.pop_all()

    def _open(self) -> sqlite3.Connection:
        self._log_is_durable = False
        with ExitStack() as closed_after:
            connection = closed_after.enter_context(closing(_connect(self._path)))
            _check_form(connection, self._form)
            closed_after.pop_all()
        return connection


class DatabaseStore:
    """A store that is one database under ``root``, used off the event loop."""

    def __init__(self, root: Path, files: Files | None, form: Form) -> None:
        self._root = root
        self._database = Database(root, files or Files(), form)
        self._turn = asyncio.Lock()  # so that of a process one thread at most waits for others

    async def aclose(self) -> None:
        """Release the store's resources. May be repeated."""
        await asyncio.to_thread(self._database.close)

    async def _read[Found](self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        return await asyncio.to_thread(self._database.read, work)

    async def _write[Done](self, work: Callable[[sqlite3.Connection], Done]) -> Done:
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._turn.acquire()
        except TimeoutError as error:
            raise UnavailableError(LOCKED) from error
        try:
            return await asyncio.to_thread(self._database.change, work, deadline)
        finally:
            self._turn.release()

    async def _log_damage(self, event: str) -> None:
        """Log the fault of the database, if any, as ``event``. Its values are not looked at."""
        damage = await self._read(_damage_of)
        if damage is not None:
            log.error(event, root=str(self._root), damage=damage)


def number(connection: sqlite3.Connection, query: str, *values: object) -> int:
    """The one number that the query gives."""
    [found] = connection.execute(query, values).fetchone()
    told: int = found
    return told


def micros(moment: datetime) -> int:
    """The microseconds since 1970 until ``moment``."""
    return (moment - _EPOCH) // MICROSECOND


def moment_of(microseconds: int) -> datetime:
    """The moment so many ``microseconds`` after the beginning of 1970."""
    return _EPOCH + microseconds * MICROSECOND


def _execute(connection: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        connection.execute(statement)


def is_complete(connection: sqlite3.Connection, form: Form = RECORDS_FORM) -> bool:
    """Whether `create_database` of this version has seen the database."""
    find = "SELECT 1 FROM sqlite_schema WHERE name = ?"
    return connection.execute(find, (form.last,)).fetchone() is not None


def _damage_of(connection: sqlite3.Connection) -> str | None:
    [told] = connection.execute("PRAGMA integrity_check(1)").fetchone()
    return None if told == b"ok" else told.decode("utf-8", "replace")


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to the database, which is there. Raises sqlite3.Error, UnavailableError."""
    refuse_network(path.parent)
    _refuse_forked()
    _processes.add(os.getpid())
    with ExitStack() as closed_after:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=PATIENCE_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # each user has it alone
        )
        closed_after.callback(connection.close)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        connection.text_factory = bytes  # what is damaged may be no text
        _check_mode(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
        closed_after.pop_all()
    return connection


def _check_mode(mode: bytes) -> None:
    if mode != b"wal":
        raise UnavailableError("records need a disk whose files processes can share as memory")


def _identity_of(connection: sqlite3.Connection) -> tuple[int, int]:
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [version] = connection.execute("PRAGMA user_version").fetchone()
    return application, version


def _check_form(connection: sqlite3.Connection, form: Form) -> None:
    identity = _identity_of(connection)
    if identity != form.identity:
        raise UnavailableError(_NOT_FOUND if identity == _NOT_MADE else _OTHER_FORM)


def _refuse_forked() -> None:
    if _processes - {os.getpid()}:
        raise UnavailableError(_FORKED)


def _refuse_old_form(root: Path) -> None:
    if (root / MARKER).exists():
        raise UnavailableError(_OLD_FORM)


def primary_code(error: sqlite3.Error) -> int:
    """One of ``sqlite3.SQLITE_…``; 0 of an error that is Python's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


@contextmanager
def _errors_reported() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _reported(error) from error
    except UnicodeDecodeError as error:  # of a message that quotes what was damaged
        raise CorruptError(SPOILT) from error


def _reported(error: sqlite3.Error) -> HoldfastError:
    """The error a caller can act on; nothing was changed."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return QuotaExceededError("the disk store is full")
    if code in _DAMAGED:
        return CorruptError(SPOILT)
    if code == sqlite3.SQLITE_BUSY:
        return UnavailableError(LOCKED)
    name = getattr(error, "sqlite_errorname", "unknown error")
    return UnavailableError(f"the disk store could not be used ({name})")


def _unconfirmed(error: sqlite3.Error) -> HoldfastError:
    """The same of a commit. Only where there was no room the log surely lacks the end of it."""
    if primary_code(error) == sqlite3.SQLITE_FULL:
        return _reported(error)
    return OutcomeUnknownError("the disk did not confirm the change")
