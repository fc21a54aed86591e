"""Pages of a list of names, in the order of their UTF-8 bytes, with common prefixes.

As S3 has it (ListObjectsV2): names that have the delimiter behind the prefix are told once, as what
they have in common up to and with it. They are passed over by one look into the table, however many
they are. A page looks at a bounded number of names; where few of them fit, it is short.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.blob_names import MAX_BLOB_NAME_BYTES, check_name_labels
from holdfast.domain.limits import MAX_LIST_LIMIT
from holdfast.errors import InvalidError
from holdfast.repository.names.index.rows import IndexedName, listed, record_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from holdfast.repository.names.index.table import Table
    from holdfast.repository.names.record import Keep

MAX_LOOKED_AT: Final = 10_000
"""Names that one page looks at: some 50 ms."""

_ABOVE_ALL: Final = b"\xff"
"""No UTF-8 has this byte."""

_TOLD: Final = b"t"
_LOOKED_AT: Final = b"l"
_NOT_A_CURSOR: Final = "not a cursor of this list"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesPage:
    """Names and common prefixes, each ascending. ``cursor``: more may follow; None at the end."""

    names: Sequence[IndexedName]
    prefixes: Sequence[str]
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list's request. All bytes are UTF-8; ``start`` is the first name that may be told."""

    prefix: bytes
    delimiter: bytes
    labels: Mapping[str, str]
    start: bytes
    limit: int
    now: datetime


def make_listing(
    *,
    prefix: str,
    delimiter: str,
    labels: Mapping[str, str],
    start_after: str,
    cursor: str | None,
    limit: int,
    now: datetime,
) -> Listing:
    """A list of names with that prefix and all of ``labels``, behind ``start_after`` or ``cursor``.

    A ``cursor`` counts instead of ``start_after``. With a ``delimiter`` names that have it behind
    the prefix are told once, as a common prefix; a start within one goes on behind it. Names and
    prefixes are ``limit`` (1 to 1,000) together, or fewer. What has expired ``now`` is left out.
    Raises InvalidError.
    """
    if not 1 <= limit <= MAX_LIST_LIMIT:
        raise InvalidError(f"a page has 1 to {MAX_LIST_LIMIT} names")
    check_name_labels(labels)
    head, parting = _utf8(prefix), _utf8(delimiter)
    if cursor is None:
        start = _behind(_utf8(start_after), head, parting)
    else:
        start = _start_at(cursor, head, parting)
    return Listing(
        prefix=head,
        delimiter=parting,
        labels=labels,
        start=max(head, start),
        limit=limit,
        now=now,
    )


def read_page(table: Table, listing: Listing, keep: Callable[[str], Keep]) -> NamesPage:
    """The page that ``listing`` asks for. ``keep`` says when a name expires."""
    names: list[IndexedName] = []
    prefixes: list[str] = []
    cursor = b""
    stop = _above(listing.prefix)
    rows = table.names_between(listing.start, stop)
    for _ in range(MAX_LOOKED_AT):
        row = next(rows, None)
        if row is None:
            return NamesPage(names=names, prefixes=prefixes, cursor=None)
        record = record_of(row)
        entry = listed(record, listing.now, keep(record.name))
        if entry is None or not listing.labels.items() <= entry.labels.items():
            cursor = _LOOKED_AT + row[0]
            continue
        if len(names) + len(prefixes) == listing.limit:
            break
        shared = _shared(row[0], listing.prefix, listing.delimiter)
        if shared is None:
            names.append(entry)
        else:
            prefixes.append(shared.decode())
            rows = table.names_between(_above(shared), stop)
        cursor = _TOLD + (shared or row[0])
    return NamesPage(names=names, prefixes=prefixes, cursor=_encoded(cursor))


def _shared(name: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """The common prefix as which ``name`` is told; None if it is told itself."""
    found = name.find(delimiter, len(prefix)) if delimiter else -1
    return None if found < 0 else name[: found + len(delimiter)]


def _behind(told: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    """The start of a list after ``told``: behind the common prefix that it is in."""
    if not told:
        return b""
    shared = _shared(told, prefix, delimiter) if told.startswith(prefix) else None
    return told + b"\0" if shared is None else _above(shared)


def _start_at(cursor: str, prefix: bytes, delimiter: bytes) -> bytes:
    """The start after a cursor. Raises InvalidError for one that is not this list's."""
    plain = _decoded(cursor)
    kind, last = plain[:1], plain[1:]
    if not last.startswith(prefix) or not 0 < len(last) <= MAX_BLOB_NAME_BYTES:
        raise InvalidError(_NOT_A_CURSOR)
    if kind == _LOOKED_AT:
        return last + b"\0"
    if kind == _TOLD:
        return _behind(last, prefix, delimiter)
    raise InvalidError(_NOT_A_CURSOR)


def _above(prefix: bytes) -> bytes:
    """The lowest bound above every name with this prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else _ABOVE_ALL


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidError("names, prefixes and delimiters are UTF-8") from error


def _encoded(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


def _decoded(cursor: str) -> bytes:
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidError(_NOT_A_CURSOR) from error
    if _encoded(plain) != cursor:
        raise InvalidError(_NOT_A_CURSOR)
    return plain
