"""What one run has met, in a temporary database of SQLite: memory does not grow with the store.

Nothing in it is the only copy of anything, so nothing is synced or journalled. Every method blocks;
they are called one after another, from whatever threads.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import batched
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest
from holdfast.stores.ports import SurveyedBlob

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

CACHE_KIB: Final = 32 * 1024
_KEY_BYTES: Final = 16
_ASKED_AT_ONCE: Final = 1000
_SETTINGS: Final = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA locking_mode = EXCLUSIVE",
)
_SCHEMA: Final = (
    """
    CREATE TABLE candidates (
      digest BLOB PRIMARY KEY, mark TEXT, generation TEXT, size INTEGER, seen_at REAL,
      is_needed INTEGER DEFAULT 0
    ) WITHOUT ROWID
    """,
    "CREATE TABLE records (key BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE copies (name TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE roots (digest BLOB PRIMARY KEY) WITHOUT ROWID",
)


class Spool:
    """The blobs that may go, and of one source after the other the records met and their roots."""

    def __init__(self, directory: Path | None = None, *, cache_kib: int = CACHE_KIB) -> None:
        """In a file without a name in ``directory``; None: where temporary files are.

        Raises OSError, sqlite3.Error.
        """
        with (
            tempfile.NamedTemporaryFile(dir=directory, prefix="holdfast-collect-") as file,
            ExitStack() as closed_after,
        ):
            self._db = sqlite3.connect(file.name, autocommit=True, check_same_thread=False)
            closed_after.callback(self._db.close)
            for statement in (*_SETTINGS, f"PRAGMA cache_size = -{cache_kib}", *_SCHEMA):
                self._db.execute(statement)
            closed_after.pop_all()

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    # --- what may go ---

    def add(self, blobs: Iterable[SurveyedBlob]) -> None:
        """Blobs that go unless they are needed; of two of one digest the latter counts."""
        rows = [
            (bytes.fromhex(one.digest), one.mark, one.generation, one.size, one.seen_at.timestamp())
            for one in blobs
        ]
        self._many(
            "INSERT OR REPLACE INTO candidates (digest, mark, generation, size, seen_at)"
            " VALUES (?, ?, ?, ?, ?)",
            rows,
        )

    def need(self, digests: Iterable[Digest]) -> None:
        """These blobs are needed."""
        rows = [(bytes.fromhex(digest),) for digest in digests]
        self._many("UPDATE candidates SET is_needed = 1 WHERE digest = ?", rows)

    def needed(self) -> tuple[int, int]:
        """How many of the blobs are needed, and their bytes."""
        return self._counts("SELECT count(*), total(size) FROM candidates WHERE is_needed")

    def unneeded(self, after: Digest | None, limit: int) -> list[SurveyedBlob]:
        """Up to ``limit`` blobs that nothing needs, behind ``after`` in order of the digests."""
        rows = self._db.execute(
            "SELECT digest, mark, generation, size, seen_at FROM candidates"
            " WHERE NOT is_needed AND digest > ? ORDER BY digest LIMIT ?",
            (bytes.fromhex(after or ""), limit),
        )
        return [
            SurveyedBlob(
                digest=Digest(digest.hex()),
                mark=mark,
                generation=generation,
                size=size,
                pinned=False,
                seen_at=datetime.fromtimestamp(seen_at, UTC),
            )
            for digest, mark, generation, size, seen_at in rows
        ]

    # --- copies ---

    def name(self, copies: Iterable[str]) -> None:
        """Records name these copies."""
        self._many("INSERT OR IGNORE INTO copies VALUES (?)", [(copy,) for copy in copies])

    def unnamed(self, copies: Sequence[str]) -> list[str]:
        """Those of ``copies`` that no record names."""
        named: set[str] = set()
        for some in batched(copies, _ASKED_AT_ONCE):
            marks = ", ".join("?" * len(some))
            rows = self._db.execute(f"SELECT name FROM copies WHERE name IN ({marks})", some)  # noqa: S608
            named.update(name for (name,) in rows)
        return [copy for copy in copies if copy not in named]

    # --- roots ---

    def begin_source(self) -> None:
        """Forget the records and the roots of the source before; what they need stays marked."""
        self._db.execute("DELETE FROM records")
        self._db.execute("DELETE FROM roots")

    def meet(self, lasting: Iterable[str], roots: Iterable[Digest]) -> None:
        """Keys of records that never go away, and the roots that they and others name."""
        self._many("INSERT OR IGNORE INTO records VALUES (?)", [(_hash(key),) for key in lasting])
        self._many(
            "INSERT OR IGNORE INTO roots VALUES (?)", [(bytes.fromhex(root),) for root in roots]
        )

    def met(self) -> int:
        """How many keys were met that never go away."""
        [(count,)] = self._db.execute("SELECT count(*) FROM records").fetchall()
        return int(count)

    def roots(self, after: Digest | None, limit: int) -> list[Digest]:
        """Up to ``limit`` roots behind ``after``, in order."""
        rows = self._db.execute(
            "SELECT digest FROM roots WHERE digest > ? ORDER BY digest LIMIT ?",
            (bytes.fromhex(after or ""), limit),
        )
        return [Digest(digest.hex()) for (digest,) in rows]

    def _counts(self, query: str) -> tuple[int, int]:
        [(first, second)] = self._db.execute(query).fetchall()
        return int(first), int(second)

    def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if rows:
            self._db.execute("BEGIN")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=_KEY_BYTES).digest()
