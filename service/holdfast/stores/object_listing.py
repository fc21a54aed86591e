"""Listing the records of a JetStream Object Store bucket, page by page."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import CorruptError, InvalidError, UnavailableError
from holdfast.stores.object_meta import decode_meta, meta_subject, to_entry
from holdfast.stores.ports import BlobListing

if TYPE_CHECKING:
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_SCAN_PER_PAGE: Final = 8192
_LAG_SECONDS: Final = 0.05
_LAG_LOOKS: Final = 40


class ObjectListing:
    """The records in one bucket, in the order in which they were written."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._js = jetstream
        self._bucket = bucket
        self._stream = f"OBJ_{bucket}"

    async def page(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See ``BlobStore.list_blobs``."""
        position = _parse_cursor(cursor)
        entries: list[Any] = []
        scanned = looks = 0
        while len(entries) < limit and scanned < _SCAN_PER_PAGE:
            query = {
                "batch": limit if not prefix else 1000,
                "seq": position,
                "next_by_subj": f"$O.{self._bucket}.M.>",
            }
            messages, pending = await self._js.direct_batch(self._stream, query)
            for message in messages:
                position = message.sequence + 1
                scanned += 1
                entry = _listed(message, self._bucket, prefix)
                if entry is not None:
                    entries.append(entry)
                    if len(entries) == limit:
                        break
            else:
                if not pending and await self._is_end(position):
                    return BlobListing(entries=entries, cursor=None)
                if not messages:
                    looks += 1
                    await self._wait_for_replica(looks)
        return BlobListing(entries=entries, cursor=str(position))

    async def _is_end(self, position: int) -> bool:
        """Whether no record lies at ``position`` or behind. The leader says: a replica may lag."""
        records = f"$O.{self._bucket}.M.>"
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


def _listed(message: StoredMessage, bucket: str, prefix: str) -> Any:
    """The row for one record; None for what a listing leaves out."""
    if not message.data:
        return None
    try:
        meta = decode_meta(message.data)
    except CorruptError:
        return None
    if meta.deleted or (prefix and not (meta.is_ours and meta.name.startswith(prefix))):
        return None
    if meta.is_ours and message.subject != meta_subject(bucket, meta.name):
        return None  # it says that it is another blob, whose own record is listed
    return to_entry(meta)


def _parse_cursor(cursor: str | None) -> int:
    if cursor is None:
        return 1
    if not cursor.isdecimal() or not cursor.isascii() or int(cursor) < 1 or len(cursor) > 18:
        msg = "not a cursor of this listing"
        raise InvalidError(msg)
    return int(cursor)
