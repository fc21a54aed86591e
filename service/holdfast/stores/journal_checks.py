"""Checks of every store of logs, before its medium sees an entry and after one was read."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import MIB
from holdfast.errors import ConflictError, CorruptError, InvalidError, TooLargeError
from holdfast.stores.journal_ports import (
    MAX_MESSAGE_ID_CHARS,
    MAX_PAGE_ENTRIES,
    DamagedEntryError,
    JournalPage,
)
from holdfast.stores.keys import check_record_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holdfast.stores.journal_ports import JournalEntry

MAX_ENTRY_BYTES: Final = 64 * MIB
"""As much as a message of NATS can ever hold; a server takes 1 MiB, unless it is told to."""


def check_append(log: str, value: bytes, expected: int, message_id: str) -> None:
    """Raises InvalidError, TooLargeError unless that can be appended."""
    check_record_key(log)
    check_sequence(expected)
    is_printable = message_id.isascii() and message_id.isprintable() and " " not in message_id
    if not is_printable or not 1 <= len(message_id) <= MAX_MESSAGE_ID_CHARS:
        msg = f"a message id is 1 to {MAX_MESSAGE_ID_CHARS} printable characters of ASCII"
        raise InvalidError(msg)
    if len(value) > MAX_ENTRY_BYTES:
        msg = f"an entry of a log has at most {MAX_ENTRY_BYTES} bytes"
        raise TooLargeError(msg)


def check_read(log: str, after: int, limit: int, max_bytes: int) -> None:
    """Raises InvalidError unless so much can be read at once."""
    check_record_key(log)
    check_sequence(after)
    if not 1 <= limit <= MAX_PAGE_ENTRIES or max_bytes < 1:
        msg = f"1 to {MAX_PAGE_ENTRIES} entries of at least a byte can be read at once"
        raise InvalidError(msg)


def check_sequence(sequence: int) -> None:
    """Raises InvalidError of a sequence below 0."""
    if sequence < 0:
        msg = "a sequence is not negative"
        raise InvalidError(msg)


def checksum_of(log: str, previous: int, message_id: str, value: bytes | memoryview) -> int:
    """The checksum over all that an append says of an entry."""
    return zlib.crc32(value, zlib.crc32(f"{log} {previous} {message_id}\n".encode()))


def damaged(log: str, sequence: int) -> DamagedEntryError:
    """The error of an entry that is not what was appended."""
    return DamagedEntryError(log, sequence)


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
