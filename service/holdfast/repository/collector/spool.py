"""The finds of one run, in a temporary database: memory does not grow with the store."""

from __future__ import annotations

import hashlib
from array import array
from datetime import UTC, datetime
from itertools import batched, chain
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.domain.digest import Digest
from holdfast.domain.kept import Range, Ranges, joined
from holdfast.repository.scratch import CACHE_KIB, Scratch
from holdfast.stores.ports import SurveyedBlob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.domain.collection import Need

_KEY_BYTES: Final = 16
_MOST_PENDING: Final = 65_536
"""Ranges of one blob that are read before they are joined: roots may need the same ones."""

_ASKED_AT_ONCE: Final = 1000
_SCHEMA: Final = (
    """
    CREATE TABLE candidates (
      number INTEGER PRIMARY KEY, digest BLOB UNIQUE, mark TEXT, generation TEXT, size INTEGER,
      seen_at REAL, is_needed INTEGER DEFAULT 0
    )
    """,
    "CREATE TABLE needs (number INTEGER, ranges BLOB)",
    "CREATE TABLE parts (key BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE records (key BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE copies (name TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE listed (key BLOB PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE roots (digest BLOB PRIMARY KEY) WITHOUT ROWID",
)


class Candidate(NamedTuple):
    """A blob that may go, but for what is ``needed`` of it; None: all is.

    The kept bytes of a partial blob are not told.
    """

    number: int
    blob: SurveyedBlob
    needed: Ranges | None


class Spool(Scratch):
    """The blobs that may go, and of one source after the other the records met and their roots."""

    def __init__(self, *, cache_kib: int = CACHE_KIB) -> None:
        """See `Scratch`."""
        super().__init__("collect", _SCHEMA, cache_kib)

    # --- what may go ---

    def add(self, blobs: Iterable[SurveyedBlob]) -> None:
        """Blobs that go unless they are needed; of two of one digest the latter counts."""
        rows = [
            (bytes.fromhex(one.digest), one.mark, one.generation, one.size, one.seen_at.timestamp())
            for one in blobs
        ]
        self._many(
            "INSERT INTO candidates (digest, mark, generation, size, seen_at)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE SET mark = excluded.mark,"
            " generation = excluded.generation, size = excluded.size, seen_at = excluded.seen_at",
            rows,
        )

    def need(self, needs: Iterable[Need]) -> None:
        """Note ``needs`` of blobs; some of these may be no candidates."""
        whole: list[tuple[bytes]] = []
        some: list[tuple[bytes, bytes]] = []
        for digest, ranges in needs:
            if ranges is None:
                whole.append((bytes.fromhex(digest),))
            else:
                some.append((_written(ranges), bytes.fromhex(digest)))
        self._many("UPDATE candidates SET is_needed = 1 WHERE digest = ?", whole)
        self._many(
            "INSERT INTO needs SELECT number, ? FROM candidates WHERE digest = ? AND NOT is_needed",
            some,
        )

    def news(self, keys: Sequence[bytes]) -> list[bool]:
        """For each of these parts of roots, whether it is new."""
        return [
            self._db.execute("INSERT OR IGNORE INTO parts VALUES (?)", (key,)).rowcount > 0
            for key in keys
        ]

    def settle(self) -> None:
        """All that is needed is known. To be called once, before `candidates`."""
        self._db.execute("CREATE INDEX needs_of ON needs (number, ranges)")

    def candidates(self, after: int, limit: int) -> list[Candidate]:
        """Up to ``limit`` of the blobs, behind the number ``after``, from 0, in their order."""
        rows = self._db.execute(
            "SELECT number, digest, mark, generation, size, seen_at, is_needed FROM candidates"
            " WHERE number > ? ORDER BY number LIMIT ?",
            (after, limit),
        ).fetchall()
        return [
            Candidate(
                number,
                SurveyedBlob(
                    digest=Digest(digest.hex()),
                    mark=mark,
                    generation=generation,
                    size=size,
                    pinned=False,
                    seen_at=datetime.fromtimestamp(seen_at, UTC),
                ),
                None if is_needed else self._needed_of(number),
            )
            for number, digest, mark, generation, size, seen_at, is_needed in rows
        ]

    def _needed_of(self, number: int) -> Ranges:
        found: Ranges = ()
        pending: list[Range] = []
        for (written,) in self._db.execute("SELECT ranges FROM needs WHERE number = ?", (number,)):
            pending += _read(written)
            if len(pending) > _MOST_PENDING:
                found, pending = joined((*found, *pending)), []
        return joined((*found, *pending))

    # --- copies ---

    def name(self, copies: Iterable[str], records: Iterable[str]) -> None:
        """Records of blobs, with these keys and some of others', name these copies."""
        self._many("INSERT OR IGNORE INTO copies VALUES (?)", [(copy,) for copy in copies])
        rows = [(_hash(key),) for key in records]
        self._many("INSERT OR IGNORE INTO listed VALUES (?)", rows)

    def listed(self) -> int:
        """The number of blobs' records met."""
        return int(self._db.execute("SELECT count(*) FROM listed").fetchone()[0])

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
        """The number of keys met that never go away."""
        return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

    def roots(self, after: Digest | None, limit: int) -> list[Digest]:
        """Up to ``limit`` roots behind ``after``, in order."""
        rows = self._db.execute(
            "SELECT digest FROM roots WHERE digest > ? ORDER BY digest LIMIT ?",
            (bytes.fromhex(after or ""), limit),
        )
        return [Digest(digest.hex()) for (digest,) in rows]


def _written(ranges: Ranges) -> bytes:
    return array("I", chain.from_iterable(ranges)).tobytes()


def _read(written: bytes) -> Iterator[Range]:
    ends = array("I", written)
    return zip(ends[::2], ends[1::2], strict=True)


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=_KEY_BYTES).digest()
