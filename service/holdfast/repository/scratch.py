"""A temporary database of SQLite: memory does not grow with what is written down in it.

Nothing in it is the only copy of anything, so nothing is synced or journalled: after an error it is
of no use any more.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CACHE_KIB: Final = 32 * 1024
_SETTINGS: Final = (
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
    "PRAGMA locking_mode = EXCLUSIVE",
)


class Scratch:
    """Its methods block, and are called one after another, from whatever threads."""

    def __init__(self, use: str, schema: Sequence[str], cache_kib: int = CACHE_KIB) -> None:
        """In a file without a name, where temporary files are. Raises OSError, sqlite3.Error."""
        with (
            tempfile.NamedTemporaryFile(prefix=f"holdfast-{use}-") as file,
            ExitStack() as closed_after,
        ):
            self._db = sqlite3.connect(file.name, autocommit=True, check_same_thread=False)
            closed_after.callback(self._db.close)
            for statement in (*_SETTINGS, f"PRAGMA cache_size = -{cache_kib}", *schema):
                self._db.execute(statement)
            closed_after.pop_all()

    def close(self) -> None:
        """Give the file back. May be repeated."""
        self._db.close()

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        """Write all that is written inside in one transaction: that is faster."""
        self._db.execute("BEGIN")
        yield
        self._db.execute("COMMIT")

    def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Run the statement for each of ``rows``, at once."""
        if rows:
            with self._at_once():
                self._each(statement, rows)

    def _each(self, statement: str, rows: Sequence[tuple[object, ...]]) -> int:
        """Run the statement for each of ``rows``: the number that it concerned."""
        return max(self._db.executemany(statement, rows).rowcount, 0)
