"""Going over the records of a JetStream Object Store bucket, among the chunks that lie between.

A server that is asked for the next records only looks at all its subjects to say how many there
are, for each batch anew. So small blobs are read past together with their chunks; only where
chunks are large the next record is asked for, one at a time. A whole pass thereby costs as much as
the bucket is large, and a page as much as a page.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import KIB
from holdfast.errors import UnavailableError
from holdfast.stores.object_meta import to_entry
from holdfast.transport.jetstream_messages import SUBJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_BATCH: Final = 512
_BATCH_BYTES: Final = 512 * KIB
_LARGE_BYTES: Final = 64 * KIB
"""From this size on a blob's chunks are passed over by asking for the next record."""

_LAG_SECONDS: Final = 0.05
_LAG_LOOKS: Final = 40


class Walk:
    """One way through the records of a bucket. ``position`` is where it goes on."""

    def __init__(self, jetstream: JetStream, bucket: str, position: int) -> None:
        self.position = position
        self.scanned = 0
        self.is_at_end = False
        """Whether a believed leader has no record at ``position`` or behind."""
        self.last: dict[str, int] = {}
        """The sequence of the last record that was met, by its subject."""
        self._js = jetstream
        self._stream = f"OBJ_{bucket}"
        self._prefix = f"$O.{bucket}.M."
        self._is_among_large = False
        self._looks = 0

    async def step(self, wanted: int = _BATCH) -> list[StoredMessage]:
        """The next records, in order, about ``wanted`` at the most; perhaps none.

        Raises UnavailableError, also when the replica that is asked lags for long.
        """
        skipping = self._is_among_large
        messages, is_last = await (self._skip() if skipping else self._read(wanted))
        records = [message for message in messages if self._is_record(message)]
        self.last |= {record.headers[SUBJECT]: record.sequence for record in records}
        if messages:
            self.scanned += len(messages)
            self.position = messages[-1].sequence + 1
            self._is_among_large = (
                _is_large(records[-1])
                if skipping
                else sum(len(message.data) for message in messages)
                >= _LARGE_BYTES * max(len(records), 1)
            )
        if is_last:
            self.is_at_end = await self._is_end()
            if not messages and not self.is_at_end:
                await self._wait_for_replica()
        return records

    def _is_record(self, message: StoredMessage) -> bool:
        return message.headers.get(SUBJECT, "").startswith(self._prefix)

    async def _read(self, wanted: int) -> tuple[Sequence[StoredMessage], bool]:
        """Whatever lies here, of a size to be read past, and whether it is the last."""
        query = {
            "batch": min(_BATCH, wanted * 2),
            "max_bytes": _BATCH_BYTES,
            "seq": self.position,
            "next_by_subj": ">",
        }
        messages, pending = await self._js.direct_batch(self._stream, query)
        return messages, not pending

    async def _skip(self) -> tuple[Sequence[StoredMessage], bool]:
        """The next record, and whether it is the last."""
        query = {"seq": self.position, "next_by_subj": f"{self._prefix}>"}
        message = await self._js.direct_at(self._stream, query)
        return ([message], False) if message is not None else ((), True)

    async def _is_end(self) -> bool:
        """The leader says: a replica may lag."""
        following = await self._js.surely(
            self._stream,
            lambda: self._js.next_message(self._stream, f"{self._prefix}>", self.position),
        )
        return following is None

    async def _wait_for_replica(self) -> None:
        self._looks += 1
        if self._looks > _LAG_LOOKS:
            msg = "the replica that was asked lacks the newest blobs"
            raise UnavailableError(msg)
        await asyncio.sleep(_LAG_SECONDS)


def _is_large(record: StoredMessage) -> bool:
    entry = to_entry(record.data, record.subject) if record.data else None
    return entry is not None and entry.size >= _LARGE_BYTES
