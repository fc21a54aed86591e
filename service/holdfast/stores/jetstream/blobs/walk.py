"""Going over the records of a JetStream Object Store bucket, among the chunks that lie between.

A server that is asked for a batch looks at all its subjects to say how many more there are, for
each batch anew, unless nothing was ever removed. So no batch is asked for but many single messages
at once: for every other sequence the next record at or after it, and where one lies there, for the
sequence after it, too. Where records lie close together that finds all of them; where many chunks
lie between, they are asked for one after the other.

Why: docs/decisions.md, "Listing asks for single records, many at once".
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import UnavailableError
from holdfast.transport.jetstream_messages import SUBJECT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_BATCH: Final = 1024
"""Places that are asked about at once, for half as many records of 12 KiB at the most."""

_FIRST_BATCH: Final = 32
_SCAN_PER_PAGE: Final = 8192
"""Messages that are looked through for one page: most may be chunks."""

_SPARSE: Final = 8
"""Records are close together where there is one in so many messages."""

_LAG_SECONDS: Final = 0.05
_LAG_LOOKS: Final = 40


class RecordWalk:
    """One way through the records of a bucket. ``position`` is where it goes on."""

    def __init__(self, jetstream: JetStream, bucket: str, position: int) -> None:
        self.position = position
        self._scanned = 0
        self.is_at_end = False
        """Whether a believed leader has no record at ``position`` or behind."""
        self._js = jetstream
        self._stream = f"OBJ_{bucket}"
        self._prefix = f"$O.{bucket}.M."
        self._width = _FIRST_BATCH
        self._first = 0
        self._last = 0
        self._looks = 0

    @property
    def goes_on(self) -> bool:
        """Whether more is to be looked through for the same page."""
        return self._scanned < _SCAN_PER_PAGE and not self.is_at_end

    async def step(self, wanted: int = _BATCH // 2) -> list[StoredMessage]:
        """The next records, in order, about ``wanted`` at the most; perhaps none.

        Raises UnavailableError, also when the replica that is asked lags for long.
        """
        if self.position > self._last:
            state = await self._js.state(self._stream)
            self._first, self._last = state.first_sequence, state.last_sequence
        width = min(self._width, 2 * wanted, self._last + 1 - self.position, _BATCH)
        return await (self._ask_each(width) if width > 1 else self._ask_next())

    async def _ask_each(self, width: int) -> list[StoredMessage]:
        """The records in the next ``width`` places, and perhaps one behind."""
        start = max(self.position, self._first)
        # To find the next after what is no more than the first one, a server looks at all subjects.
        is_first = start == self._first
        places = range(start + is_first, start + width, 2)
        queries = [self._next_after(place) for place in places]
        found = await self._records([*queries, {"seq": start}] if is_first else queries)
        # A small blob is a chunk and a record. Where a record is at once, another may be next.
        doubled = [self._next_after(place + 1) for place in places if found and place in found]
        more = await self._records(doubled) if doubled else {}
        if found is None or more is None:
            self._width = 1
            return []
        found |= more
        records = [found[sequence] for sequence in sorted(found)]
        end = records[-1].sequence + 1
        self._width = min(2 * self._width, _BATCH) if len(records) * _SPARSE >= end - start else 1
        self._go_to(end)
        return records

    async def _records(self, queries: Sequence[dict[str, Any]]) -> dict[int, StoredMessage] | None:
        """By their sequences; None if there is none for one of ``queries``.

        A replica may lag, and another have answered for what lies behind.
        """
        messages = await self._js.direct_each(self._stream, queries)
        if len(messages) < len(queries):
            return None
        return {
            message.sequence: message
            for message in messages
            if message.headers.get(SUBJECT, "").startswith(self._prefix)
        }

    def _next_after(self, place: int) -> dict[str, Any]:
        return {"seq": place, "next_by_subj": f"{self._prefix}>"}

    async def _ask_next(self) -> list[StoredMessage]:
        """The next record alone."""
        record = await self._js.direct_at(self._stream, self._next_after(self.position))
        if record is None:
            self.is_at_end = await self._is_end()
            if not self.is_at_end:
                await self._wait_for_replica()
            return []
        is_close = record.sequence - self.position < _SPARSE
        self._go_to(record.sequence + 1)
        self._width = _FIRST_BATCH if is_close else 1
        return [record]

    def _go_to(self, position: int) -> None:
        self._scanned += position - self.position
        self.position = position

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
            raise UnavailableError("the replica that was asked lacks the newest blobs")
        await asyncio.sleep(_LAG_SECONDS)
