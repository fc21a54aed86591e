"""A disk store under a temporary directory, and a look behind its back."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

from holdfast.bootstrap.sources import SOURCES
from holdfast.stores.disk.database import DATABASE, create_record_store
from holdfast.stores.disk.files import create_disk_store
from holdfast.stores.disk.format import MAX_HEADER_BYTES, decode_blob_header
from holdfast.stores.disk.journal import LOGS_FORM, DiskJournalStore, create_journal_store
from holdfast.stores.disk.records import DiskRecordStore
from holdfast.stores.disk.store import DiskBlobStore

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from holdfast.domain.digest import Digest
    from holdfast.stores.disk.files import Files

_ids = count(1)


def new_id() -> str:
    """An identifier that no other call in this process returned."""
    return f"id{next(_ids):08d}"


class FakeClock:
    """A time of day that passes when a test says so; ahead of that of the file system."""

    def __init__(self, now: datetime = datetime(2100, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, duration: timedelta) -> None:
        """Move on."""
        self.now += duration


BEFORE_ANY_FILE = datetime(1980, 1, 1, tzinfo=UTC)
"""By this clock every file has just been changed, so none is remembered as verified."""


def blob_store(
    root: Path, *, files: Files | None = None, now: datetime = BEFORE_ANY_FILE
) -> DiskBlobStore:
    """A store in ``root``, which is made one if it is none."""
    create_disk_store(root)
    sources = replace(SOURCES, clock=FakeClock(now))
    return DiskBlobStore(root, sources=sources, files=files)


@asynccontextmanager
async def record_store(
    root: Path, *, files: Files | None = None, clock: FakeClock | None = None
) -> AsyncGenerator[DiskRecordStore]:
    """A store in ``root``, which is made one if it is none."""
    create_record_store(root)
    async with aclosing(DiskRecordStore(root, clock=clock or FakeClock(), files=files)) as store:
        yield store


@asynccontextmanager
async def journal_store(
    root: Path, *, files: Files | None = None, clock: Callable[[], datetime] = SOURCES.clock
) -> AsyncGenerator[DiskJournalStore]:
    """A store of logs in ``root``, which is made one if it is none."""
    create_journal_store(root)
    async with aclosing(DiskJournalStore(root, clock=clock, files=files)) as store:
        yield store


def in_logs(root: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """As `in_database`, of logs."""
    with closing(sqlite3.connect(root / LOGS_FORM.file)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def in_database(root: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """What comes of a statement that is carried out behind the store's back."""
    with closing(sqlite3.connect(root / DATABASE)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def damage_record(root: Path, key: str) -> None:
    """Alter the value of a record, and not its checksum."""
    in_database(root, "UPDATE records SET value = CAST(x'00' || value AS BLOB) WHERE key = ?", key)


def blob_path(root: Path, digest: Digest) -> Path:
    """Where a blob is."""
    return root / "blobs" / digest[:2] / digest


def alter_blob(root: Path, digest: Digest, mutate: Callable[[bytes], bytes]) -> None:
    """Change the bytes of a blob and leave its header."""
    path = blob_path(root, digest)
    content = path.read_bytes()
    _, offset = decode_blob_header(content[:MAX_HEADER_BYTES])
    path.write_bytes(content[:offset] + mutate(content[offset:]))


def leftover_files(root: Path) -> list[Path]:
    """Files that belong to no blob."""
    temporary = [path for name in ("tmp", "staging") for path in (root / name).rglob("*")]
    return [path for path in temporary if path.is_file()]
