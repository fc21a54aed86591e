"""The parts of all stores of logs: checks before a medium sees an entry and after, and waiters."""

from __future__ import annotations

import asyncio
import zlib
from abc import ABC, abstractmethod
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import MIB
from holdfast.errors import ConflictError, CorruptError, InvalidError, TooLargeError
from holdfast.stores.journal_ports import (
    MAX_MESSAGE_ID_CHARS,
    MAX_PAGE_ENTRIES,
    PAGE_BYTES,
    PAGE_ENTRIES,
    JournalPage,
)
from holdfast.stores.keys import check_record_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from holdfast.stores.journal_ports import JournalEntry

LOOK_SECONDS: Final = 2.0
"""After that long a log is to be read though nobody told that it has grown."""

MAX_ENTRY_BYTES: Final = 64 * MIB
"""As much as a message of NATS can ever hold; a server takes 1 MiB, unless it is told to."""


@dataclass(frozen=True, slots=True)
class Append:
    """The arguments of a `JournalStore.append`."""

    log: str
    value: bytes
    expected: int
    message_id: str
    behind_damage: bool

    def check(self) -> None:
        """Raises InvalidError, TooLargeError unless that can be appended."""
        check_record_key(self.log)
        _check_sequence(self.expected)
        name = self.message_id
        is_printable = name.isascii() and name.isprintable() and " " not in name
        if not is_printable or not 1 <= len(name) <= MAX_MESSAGE_ID_CHARS:
            msg = f"a message id is 1 to {MAX_MESSAGE_ID_CHARS} printable characters of ASCII"
            raise InvalidError(msg)
        if len(self.value) > MAX_ENTRY_BYTES:
            raise TooLargeError(f"an entry of a log has at most {MAX_ENTRY_BYTES} bytes")

    @property
    def checksum(self) -> int:
        """The checksum over all that it says."""
        return checksum_of(self.log, self.expected, self.message_id, self.value)


class CheckedJournal(ABC):
    """The appends and reads of a JournalStore, which begins all of them in the same way.

    It is one without replicas, which loses nothing.
    """

    catch_up_seconds = 0.0

    @property
    def session(self) -> object:
        """See `JournalStore.session`."""
        return self

    async def append(
        self, log: str, value: bytes, *, expected: int, message_id: str, behind_damage: bool = False
    ) -> int:
        """See `JournalStore.append`."""
        one = Append(log, value, expected, message_id, behind_damage)
        one.check()
        return await self._append(one)

    async def read(
        self,
        log: str,
        after: int,
        *,
        limit: int = PAGE_ENTRIES,
        max_bytes: int = PAGE_BYTES,
        sure: bool = False,
    ) -> JournalPage:
        """See `JournalStore.read`."""
        check_record_key(log)
        _check_sequence(after)
        if not 1 <= limit <= MAX_PAGE_ENTRIES or max_bytes < 1:
            msg = f"1 to {MAX_PAGE_ENTRIES} entries of at least a byte can be read at once"
            raise InvalidError(msg)
        return await self._page(log, after, limit, max_bytes, sure=sure)

    async def trim(self, log: str, through: int) -> None:
        """See `JournalStore.trim`."""
        check_record_key(log)
        await self.remove(log, min(through, await self._end(log) - 1))

    @abstractmethod
    async def remove(self, log: str, through: int) -> None:
        """See `JournalStore.remove`."""

    @abstractmethod
    async def _append(self, one: Append) -> int:
        """Add the entry; its sequence."""

    @abstractmethod
    async def _page(
        self, log: str, after: int, limit: int, max_bytes: int, *, sure: bool
    ) -> JournalPage:
        """The entries behind ``after``."""

    @abstractmethod
    async def _end(self, log: str) -> int:
        """The sequence of the last entry, readable or not; 0 if there is none."""


def _check_sequence(sequence: int) -> None:
    if sequence < 0:
        raise InvalidError("a sequence is not negative")


def checksum_of(log: str, previous: int, message_id: str, value: bytes | memoryview) -> int:
    """The checksum over all that an append says of an entry."""
    return zlib.crc32(value, zlib.crc32(f"{log} {previous} {message_id}\n".encode()))


def not_the_last(log: str) -> ConflictError:
    """The error of an append that another was before."""
    return ConflictError(f"the log {log} does not end where it was expected to")


def page_up_to_damage[Row](
    rows: Iterable[Row], decode: Callable[[Row], JournalEntry], *, max_bytes: int, is_end: bool
) -> JournalPage:
    """The page of ``rows``, to ``max_bytes`` or one entry, and to the first that is damaged.

    ``is_end``: there is none behind the rows. Raises CorruptError when the first is damaged.
    """
    entries: list[JournalEntry] = []
    size = 0
    for row in rows:
        try:
            entry = decode(row)
        except CorruptError:
            if not entries:
                raise
            return JournalPage(entries=entries, is_end=False)
        size += len(entry.value)
        if entries and size > max_bytes:
            return JournalPage(entries=entries, is_end=False)
        entries.append(entry)
    return JournalPage(entries=entries, is_end=is_end)


class Waiter:
    """A `Growth`, which is told."""

    def __init__(self) -> None:
        self._last = 0
        self._told = asyncio.Event()

    def tell(self, sequence: int) -> None:
        """There is an entry at ``sequence``."""
        self._last = max(self._last, sequence)
        self._told.set()

    async def wait(self, after: int) -> None:
        """See `Growth.wait`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                while self._last <= after:
                    self._told.clear()
                    await self._told.wait()


class Waiters:
    """All in this process who wait for a log to grow, by log."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Waiter]] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    @asynccontextmanager
    async def watch(self, log: str) -> AsyncIterator[Waiter]:
        """Have it told of the growth of ``log``."""
        waiter = Waiter()
        self._waiting.setdefault(log, []).append(waiter)
        try:
            yield waiter
        finally:
            others = self._waiting[log]
            others.remove(waiter)
            if not others:
                del self._waiting[log]

    def tell(self, log: str, sequence: int) -> None:
        """``log`` has an entry at ``sequence``."""
        for waiter in self._waiting.get(log, ()):
            waiter.tell(sequence)
