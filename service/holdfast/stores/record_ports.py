"""The interface of stores of records, as `holdfast.stores.ports` has that of stores of blobs.

The errors that every store there may raise may come here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime, timedelta

CHANGES_LIMIT: Final = 500
MAX_CHANGES: Final = 10_000

MAX_BATCH: Final = 1000
"""Changes in one batch, as many as a nats-server takes."""

MAX_GET_MANY: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A small value under a key. ``revision`` rises with each change and is never 0."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """A write in a batch. ``expected`` as in `RecordStore.put`; None: without a condition.

    With ``ttl`` the record goes away by itself, as in `RecordStore.put`; ``grave`` is as there.
    """

    key: str
    value: bytes
    expected: int | None
    ttl: timedelta | None = None
    grave: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """A removal in a batch, of the record at ``expected``; None: without a condition.

    With ``for_good`` the key is never used again. The store then keeps its note of the removal for
    ever, should what lies below its records come back, and may list the key as long.
    """

    key: str
    expected: int | None = None
    for_good: bool = False


Change = Put | Delete


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The extent of a store of records.

    ``created`` names this incarnation of the store: one that was made anew has another. ``last`` is
    the revision of the latest change that the store has taken, 0 before the first. ``keys`` is how
    many keys have a record or a note of a removal.
    """

    created: str
    last: int
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """The last change of a record, ``at`` the store's time. A grave has a value, a removal None."""

    key: str
    revision: int
    value: bytes | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """A page of changes, in ascending order of their revisions.

    Everything up to and with the revision ``position`` has been read. ``is_end``: at a moment
    during the call there was nothing behind it, by the word of the one that answered, perhaps a
    replica which lags: compare ``position`` with `Extent.last`.
    """

    changes: Sequence[Changed]
    position: int
    is_end: bool


class RecordStore(Protocol):
    """Small records that change by compare-and-set.

    Keys are tokens of ``[A-Za-z0-9_=-]`` joined by dots, at most 2,048 characters. A read has the
    latest, never a stale copy, but for `get`, `get_many` and `changes`. A method that is given a
    key or a prefix that is none raises InvalidError.
    """

    async def get(self, key: str, *, sure: bool = False) -> Record:
        """The record; a server that others have deposed a moment ago may tell of a former one.

        What is decided by that fails its compare-and-set. With ``sure`` it is what is recorded at
        this moment, for decisions that have none. Raises NotFoundError of what is surely not
        there, and CorruptError where a store finds damage.
        """

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        expected: int,
        ttl: timedelta | None = None,
        grave: bool = False,
    ) -> int:
        """Write and return the new revision, if the present one is ``expected`` (0: no record).

        Raises ConflictError when it is not. With ``ttl`` the record goes away by itself, not
        before that time (whole seconds), unless it is written again. Other programs that read the
        store say of a ``grave`` that it was deleted; here it is a record like any other. Its value
        is not empty, else InvalidError.
        """

    async def delete(self, key: str, *, expected: int) -> None:
        """Remove the record, if its revision is ``expected``. Raises ConflictError."""

    async def batch(self, changes: Sequence[Change]) -> list[int]:
        """Make all of ``changes`` or, if a condition of one does not hold, none; new revisions.

        1 to ``MAX_BATCH`` changes of different keys, else InvalidError. The revisions are in the
        order of the changes; of a `Delete` it is 0. A reader that got one of the changes by `get`
        gets all of them. Raises ConflictError when a condition does not hold, CorruptError when
        that cannot be told because the record is damaged. A change without a condition mends it.
        """

    async def get_many(self, keys: Sequence[str]) -> list[Record]:
        """The records under ``keys`` (at most ``MAX_GET_MANY``, else InvalidError), as ordered.

        Each once; those that are surely not there are left out. So is one that is damaged, for it
        must not hide the others: `get` raises CorruptError for it. A record that was changed a
        moment ago may come in its previous revision: what is decided by it fails its
        compare-and-set.
        """

    async def list_keys(self, prefix: str) -> list[str]:
        """The keys below the tokens of ``prefix``, ascending; all keys if it is empty.

        No value is read. The key that is ``prefix`` itself is not below it. A key that is there
        all the while is listed. One that was deleted or has expired may still be listed, until
        the store has cleaned up after it, and then never again: `get` tells. One that was deleted
        ``for_good`` may be listed for ever.
        """

    def list_records(self, prefix: str) -> AsyncIterator[Record]:
        """Every record whose key starts with the tokens of ``prefix``, each once."""

    async def extent(self) -> Extent:
        """The extent of the store: every change that was acknowledged before is counted."""

    async def count(self, prefix: str) -> int:
        """The number of keys below the tokens of ``prefix`` with a record or a note of a removal.

        Told as the extent is. Records that the store knows of and cannot read count, too.
        """

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> Changes:
        """The last change of each key, of those whose revision is greater than ``after``.

        At most ``limit`` (1 to ``MAX_CHANGES``, else InvalidError), and perhaps fewer; a key that
        changes meanwhile may come with each of its changes, in order. A reader that goes on from
        `Changes.position` until ``is_end``, with a ``position`` that is no less than an
        `Extent.last`, lacks nothing that was acknowledged before that extent was asked for.

        An expiry leaves no change, or one without a value. So does a deletion, after its note has
        gone (after a day on disk and a minute on JetStream; never where it was ``for_good``). A
        damaged record, or one removed behind the store's back, leaves none.
        """

    async def check(self) -> None:
        """Whether the store is there. Raises UnavailableError with what to change."""

    async def aclose(self) -> None:
        """Release the store's resources. May be repeated."""
