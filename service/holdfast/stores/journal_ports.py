"""The interface of stores of logs, as `holdfast.stores.ports` has that of stores of blobs.

A log is entries of bytes, one behind the other, each appended by compare-and-set on the one before.
The errors that every store there may raise may come here, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

PAGE_ENTRIES: Final = 256
PAGE_BYTES: Final = 4 * 1024 * 1024
MAX_PAGE_ENTRIES: Final = 1000
MAX_MESSAGE_ID_CHARS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """The entry of one append.

    ``sequence`` rises within a log, with gaps, is never 0 and never used again, also not after the
    log was removed. ``previous`` is the one that the append expected, 0 of the first entry: who
    reads a log from its beginning to its end and meets another has found that some are missing.
    ``at`` is the store's time, and ``message_id`` the append's.
    """

    sequence: int
    previous: int
    at: datetime
    message_id: str
    value: bytes


class DamagedEntryError(CorruptError):
    """The entry of a log at ``sequence`` is not what was appended, or cannot be read.

    Where it is the last, an append ``behind_damage`` that expects this sequence goes on behind it.
    """

    def __init__(self, log: str, sequence: int) -> None:
        super().__init__(f"the entry of the log {log} at sequence {sequence} is damaged")
        self.sequence = sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPage:
    """Some entries of a log, in order.

    ``is_end``: at a moment during the call there was none behind them, or none at all; by the word
    of the replica that answered, unless it was to be sure.
    """

    entries: Sequence[JournalEntry]
    is_end: bool


class Growth(Protocol):
    """One log, watched for entries that anybody appends."""

    async def wait(self, after: int) -> None:
        """Return once there is an entry behind the sequence ``after``, or may be one.

        It returns promptly where the appending process lives to tell, and otherwise after some
        seconds: then, too, the log is to be read.
        """


class JournalStore(Protocol):
    """Logs of entries. A log is there once it has an entry; an empty one is as one that never was.

    A log's name is as a key of `RecordStore`; InvalidError where it is none. Sequences rise across
    all logs of a store. A method tells the latest, but for what `read` says.
    """

    catch_up_seconds: float
    """So long the store may tell less than it has, once its servers have come back."""

    @property
    def session(self) -> object:
        """Another object once the store was out of reach: it may have lost what it had before."""

    async def append(
        self, log: str, value: bytes, *, expected: int, message_id: str, behind_damage: bool = False
    ) -> int:
        """Add an entry behind ``expected`` (0: the log has none), durably; its sequence.

        A caller without an answer, or with OutcomeUnknownError, sends the same again with the same
        ``message_id`` (1 to ``MAX_MESSAGE_ID_CHARS`` printable ASCII, of this append alone): it is
        answered by the entry that is there, also when others are behind it, unless that was trimmed
        since. Raises ConflictError when the log's last entry is another, and this one is not in it;
        TooLargeError; CorruptError where damage hides that, and where the last entry is found to be
        damaged, unless this is to end the log that has it: ``behind_damage``.
        """

    async def last(self, log: str) -> JournalEntry | None:
        """The log's last entry. Raises DamagedEntryError where that is damaged."""

    async def first_from(self, log: str, sequence: int) -> JournalEntry | None:
        """The first entry at or behind ``sequence``. Raises CorruptError where that is damaged."""

    async def first_since(self, log: str, moment: datetime) -> JournalEntry | None:
        """The first entry that was stored at ``moment``, by the store's time, or later.

        Raises CorruptError where that is damaged.
        """

    async def read(
        self,
        log: str,
        after: int,
        *,
        limit: int = PAGE_ENTRIES,
        max_bytes: int = PAGE_BYTES,
        sure: bool = False,
    ) -> JournalPage:
        """Entries behind the sequence ``after``, none of them left out.

        At most ``limit`` (1 to ``MAX_PAGE_ENTRIES``, else InvalidError) of ``max_bytes`` together,
        or one that is larger; perhaps fewer, but none only at the end. Where a store has replicas
        any of them may answer, and one that lags ends before the end, unless ``sure``. Raises
        CorruptError when the first of them is damaged; those before a damaged one come without it.
        """

    async def trim(self, log: str, through: int) -> None:
        """Remove the entries up to and with the sequence ``through``, but never the last.

        May be repeated, and does no harm however late it comes.
        """

    async def remove(self, log: str, through: int) -> None:
        """Remove the entries up to and with the sequence ``through``, the last one included."""

    def follow(self, log: str) -> AbstractAsyncContextManager[Growth]:
        """Watch the log for as long as the context lasts.

        A reader that enters it, reads to the end and waits behind the last entry misses nothing.
        """

    async def now(self) -> datetime:
        """The time by the clock that stamps entries."""

    async def has_little_room(self) -> bool:
        """Whether it is nearly full: then entries that nobody has to read go first."""

    async def check(self) -> None:
        """Whether the store is there. Raises UnavailableError with what to change."""

    async def aclose(self) -> None:
        """Release the store's resources. May be repeated."""
