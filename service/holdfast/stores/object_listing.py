"""Listing the records of a JetStream Object Store bucket, page by page.

Records and chunks lie mixed in one stream. A server that is asked for the next records only looks
at all its subjects to say how many there are, for each page anew. So small blobs are read past
together with their chunks; only where chunks are large the next record is asked for, one at a time.
A whole pass thereby costs as much as the bucket is large, and a page as much as a page.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.domain.limits import KIB
from holdfast.errors import InvalidError, UnavailableError
from holdfast.stores.object_meta import name_at, to_entry
from holdfast.stores.ports import BlobInfo, BlobListing, ForeignObject
from holdfast.transport.jetstream_messages import SUBJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_SCAN_PER_PAGE: Final = 8192
_BATCH: Final = 512
_BATCH_BYTES: Final = 512 * KIB
_LARGE_BYTES: Final = 64 * KIB
"""From this size on a blob's chunks are passed over by asking for the next record."""

_ROWS_AT_ONCE: Final = 64
"""So many records are decoded before others have their turn."""

_LAG_SECONDS: Final = 0.05
_LAG_LOOKS: Final = 40


class _Step(NamedTuple):
    """Some messages in order; ``is_last``: the replica that was asked has none behind them."""

    messages: Sequence[StoredMessage]
    is_last: bool


class ObjectListing:
    """The records in one bucket, in the order in which they were written."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._js = jetstream
        self._stream = f"OBJ_{bucket}"
        self._records = f"$O.{bucket}.M."

    async def page(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See ``BlobStore.list_blobs``."""
        position = _parse_cursor(cursor)
        entries: list[BlobInfo | ForeignObject] = []
        after: list[str] = []
        is_large = False
        scanned = looks = 0
        while len(entries) < limit and scanned < _SCAN_PER_PAGE:
            wanted = limit - len(entries) if not prefix else _BATCH
            step = await (self._skip(position) if is_large else self._read(position, wanted))
            is_large = not is_large  # unless a record tells
            for message in step.messages:
                position = message.sequence + 1
                scanned += 1
                if scanned % _ROWS_AT_ONCE == 0:
                    await asyncio.sleep(0)
                entry = self._row(message, prefix)
                if entry is None:
                    continue
                is_large = entry.size >= _LARGE_BYTES
                if not prefix or (isinstance(entry, BlobInfo) and entry.digest.startswith(prefix)):
                    entries.append(entry)
                    after.append(str(position))
                    if len(entries) == limit:
                        break
            else:
                if step.is_last and await self._is_end(position):
                    return BlobListing(entries=entries, after=after, cursor=None)
                if not step.messages:
                    looks += 1
                    await self._wait_for_replica(looks)
        return BlobListing(entries=entries, after=after, cursor=str(position))

    def _row(self, message: StoredMessage, prefix: str) -> BlobInfo | ForeignObject | None:
        """The row for one message; None for what a listing leaves out."""
        subject = message.headers.get(SUBJECT, "")
        if not message.data or not subject.startswith(self._records):
            return None
        if prefix and not name_at(subject).startswith(prefix):
            return None
        return to_entry(message.data, subject)

    async def _read(self, position: int, wanted: int) -> _Step:
        """Whatever lies from ``position`` on, of a size to be read past."""
        query = {
            "batch": min(_BATCH, max(wanted * 2, 2)),
            "max_bytes": _BATCH_BYTES,
            "seq": position,
            "next_by_subj": ">",
        }
        messages, pending = await self._js.direct_batch(self._stream, query)
        return _Step(messages, is_last=not pending)

    async def _skip(self, position: int) -> _Step:
        """The next record."""
        message = await self._js.direct_next(self._stream, f"{self._records}>", position)
        return _Step([message] if message is not None else [], is_last=message is None)

    async def _is_end(self, position: int) -> bool:
        """Whether no record lies at ``position`` or behind. The leader says: a replica may lag."""
        records = f"{self._records}>"
        following = await self._js.surely(
            self._stream, lambda: self._js.next_message(self._stream, records, position)
        )
        return following is None

    async def _wait_for_replica(self, looks: int) -> None:
        """Before the ``looks``-th further look. Raises UnavailableError when it lags for long."""
        if looks > _LAG_LOOKS:
            msg = "the replica that was asked lacks the newest blobs"
            raise UnavailableError(msg)
        await asyncio.sleep(_LAG_SECONDS)


def _parse_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 1
    if not cursor.isdecimal() or not cursor.isascii() or int(cursor) < 1 or len(cursor) > 18:
        msg = "not a cursor of this listing"
        raise InvalidError(msg)
    return int(cursor)
