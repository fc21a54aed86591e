"""An inventory's finds, in a temporary database: memory does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest
from holdfast.domain.kept import KeptBytes, has_bytes
from holdfast.repository.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.domain.collection import Need
    from holdfast.stores.ports import SurveyedBlob

_SCHEMA: Final = (
    "CREATE TABLE blobs (space, digest BLOB, size INTEGER, damaged INTEGER,"
    " kept TEXT, PRIMARY KEY (space, digest)) WITHOUT ROWID",
    "CREATE TABLE keys (space, key, PRIMARY KEY (space, key)) WITHOUT ROWID",
    "CREATE TABLE groups (id INTEGER PRIMARY KEY, name UNIQUE, items INTEGER, logical INTEGER)",
    "CREATE TABLE uses (space, digest BLOB, user INTEGER, PRIMARY KEY (space, digest, user))"
    " WITHOUT ROWID",
)
_ENTER: Final = (
    "INSERT INTO groups (name, items, logical) VALUES (?, 1, ?) ON CONFLICT (name) DO UPDATE"
    " SET items = items + 1, logical = logical + excluded.logical RETURNING id"
)
_NEED: Final = "INSERT OR IGNORE INTO uses VALUES (?, ?, ?)"
_NEED_FIRST: Final = (
    "INSERT INTO uses SELECT ?1, ?2, ?3 WHERE NOT EXISTS"
    " (SELECT 1 FROM uses WHERE space = ?1 AND digest = ?2)"
)
_TOTALS: Final = """
    SELECT name, items, logical, coalesce(stored, 0), coalesce(shared, 0) FROM groups LEFT JOIN (
      SELECT user, sum(size) AS stored, sum(iif(users > 1, size, 0)) AS shared FROM (
        SELECT user, size, count(*) OVER (PARTITION BY uses.space, uses.digest) AS users
        FROM uses JOIN blobs ON blobs.space = uses.space AND blobs.digest = uses.digest
      ) GROUP BY user
    ) ON user = id ORDER BY 4 DESC, name LIMIT ?
"""
_MISSING: Final = """
    SELECT uses.space, uses.digest, min(name) FROM uses
    JOIN groups ON id = user
    LEFT JOIN blobs ON blobs.space = uses.space AND blobs.digest = uses.digest
    WHERE blobs.digest IS NULL OR blobs.damaged GROUP BY uses.space, uses.digest LIMIT ?
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUse:
    """A group's number of ``items``, their bytes as they are read, and as they are stored.

    A ``stored`` byte counts once, however many items of the group need it; another group needs the
    ``shared`` ones of these, too.
    """

    group: str
    items: int
    logical: int
    stored: int
    shared: int


@dataclass(frozen=True, slots=True)
class Missing:
    """A blob that ``user`` needs, maybe among others, and that was not met, or met as damaged.

    ``in_part``: it was met as a partial one that lacks something of what is needed.
    """

    space: str
    digest: Digest
    user: str
    in_part: bool = False


class Uses(Scratch):
    """The blobs of all spaces, and which group needs which."""

    def __init__(self, *, first_only: bool = False) -> None:
        """See `Scratch`. ``first_only``: of those that need a blob only the first is remembered."""
        self._need = _NEED_FIRST if first_only else _NEED
        super().__init__("inventory", _SCHEMA)

    def meet(self, space: str, blobs: Iterable[SurveyedBlob]) -> None:
        """Blobs that are there."""
        self._many(
            "INSERT OR REPLACE INTO blobs VALUES (?, ?, ?, ?, ?)",
            [
                (
                    space,
                    bytes.fromhex(one.digest),
                    one.size,
                    one.damaged,
                    None if one.kept is None else one.kept.text,
                )
                for one in blobs
            ],
        )

    def has_partial(self, space: str) -> bool:
        """Whether a partial blob was met in a space."""
        query = "SELECT EXISTS (SELECT 1 FROM blobs WHERE space = ? AND kept IS NOT NULL)"
        return bool(self._db.execute(query, (space,)).fetchone()[0])

    def lacking(self, space: str, needs: Iterable[Need]) -> list[Need]:
        """Those of blobs that were met as partial ones, and without all that is needed."""
        return [need for need in needs if not has_bytes(self._kept(space, need), need.ranges)]

    def _kept(self, space: str, need: Need) -> KeptBytes | None:
        """The bytes met of a blob; None: all of them, or none."""
        query = "SELECT kept FROM blobs WHERE space = ? AND digest = ?"
        found = self._db.execute(query, (space, bytes.fromhex(need.digest))).fetchone()
        return None if found is None or found[0] is None else KeptBytes.written(found[0])

    def fresh(self, space: str, keys: Sequence[str] | Sequence[bytes]) -> list[bool]:
        """For each of ``keys``, of records or of pages of roots, whether it is new.

        A record that changes meanwhile comes again.
        """
        insert = "INSERT OR IGNORE INTO keys VALUES (?, ?)"
        with self._at_once():
            return [self._db.execute(insert, (space, key)).rowcount > 0 for key in keys]

    def enter(self, items: Sequence[tuple[str, int]]) -> list[int]:
        """One more item in each group, of so many bytes; the numbers of the groups."""
        with self._at_once():
            return [self._db.execute(_ENTER, item).fetchone()[0] for item in items]

    def need(self, space: str, uses: Iterable[tuple[Digest, int]]) -> None:
        """Blobs, each with the number of a group that needs it."""
        self._many(
            self._need,
            [(space, bytes.fromhex(digest), user) for digest, user in uses],
        )

    def totals(self, limit: int) -> list[GroupUse]:
        """The ``limit`` groups that take the most."""
        return [
            GroupUse(group=name, items=items, logical=logical, stored=stored, shared=shared)
            for name, items, logical, stored, shared in self._db.execute(_TOTALS, (limit,))
        ]

    def missing(self, limit: int) -> list[Missing]:
        """Up to ``limit`` blobs that are needed and were not met, or were damaged."""
        return [
            Missing(space, Digest(digest.hex()), user)
            for space, digest, user in self._db.execute(_MISSING, (limit,))
        ]

    def groups(self) -> int:
        """The number of groups."""
        return int(self._db.execute("SELECT count(*) FROM groups").fetchone()[0])

    def stored(self, space: str) -> tuple[int, int]:
        """The number of blobs met in a space, and their bytes."""
        query = "SELECT count(*), coalesce(sum(size), 0) FROM blobs WHERE space = ?"
        blobs, size = self._db.execute(query, (space,)).fetchone()
        return int(blobs), int(size)
