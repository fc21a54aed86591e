"""Reading a stream's messages from a sequence on, among gaps of any size.

A server that is asked for a batch looks at all its subjects to say how many more there are, once
anything was removed, and meanwhile nothing can be written; at the end it still reads a whole block.
So no batch is asked for but many single messages at once: the rest is cut into stretches, and in
each the next message behind the last one is asked for until all are read. Each answer is a message,
however far they lie apart.

A record that is written again moves to the end, and may be missed before that. So the end is where
at one moment there is nothing more: the leader is asked after the reading. Where others write too
fast for that, a batch is asked for after all, from where the reading began: it is read and counted
at one moment by one server, and what others have told before may be from further on.

Any replica answers. One that has a message has all that came before it, so what it tells of the
place between is right; one that lags has no message to give, and then fewer are asked for, at last
one, and of the leader.

Why: docs/decisions.md, "Changes of a bucket are read as single messages, and polled".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holdfast.domain.limits import MIB
from holdfast.errors import UnavailableError

if TYPE_CHECKING:
    from holdfast.transport.jetstream import JetStream
    from holdfast.transport.jetstream_messages import StoredMessage

_STRETCHES: Final = 512
"""Asked for at once, for as many messages of 12 KiB at the most."""

_IN_STRETCH: Final = 4
"""Messages that a stretch should have: one request in five then finds what another has found."""

_LONGEST_STRETCH: Final = 1 << 20
_FEWER: Final = 4
_LOOKS: Final = 4
"""Looks for the end before a batch is asked for."""

_BATCH_BYTES: Final = 8 * MIB
"""A server gives up a client that is 64 MiB behind."""


class StreamReader:
    """Reads one stream, and remembers only how far its messages lie apart."""

    def __init__(self, jetstream: JetStream, stream: str) -> None:
        self._js = jetstream
        self._stream = stream
        self._stretch = 2 * _IN_STRETCH

    async def read(self, start: int, limit: int) -> tuple[list[StoredMessage], int, bool]:
        """Up to ``limit`` messages from sequence ``start`` on, in order; to where; is it the end?

        All up to and with that sequence were read, and there were no more at a moment during this,
        if so it is, on the server that answered. Raises UnavailableError.
        """
        messages: list[StoredMessage] = []
        first = start
        for _ in range(_LOOKS):
            last = (await self._js.state(self._stream)).last_sequence
            if last < start:
                return messages, start - 1, True
            wanted = limit - len(messages)
            some = await self._many(start, last, wanted) or await self._next(start, last)
            if not some:
                return messages, last, True
            messages += some
            start = some[-1].sequence + 1
            if len(messages) == limit:
                return messages, start - 1, False
        query = {"seq": first, "batch": limit, "max_bytes": _BATCH_BYTES}
        messages, pending = await self._js.direct_batch(self._stream, query)
        return messages, messages[-1].sequence if messages else first - 1, not pending

    async def _many(self, start: int, last: int, limit: int) -> list[StoredMessage]:
        """Messages from ``start`` on; fewer than ``limit`` only where they end, or are in doubt."""
        messages: list[StoredMessage] = []
        width = _STRETCHES
        while start <= last and len(messages) < limit and width:
            width = min(width, -(-(limit - len(messages)) // _IN_STRETCH))
            some = await self._some(start, last, width)
            if some is None:
                width //= _FEWER
                continue
            messages += some
            start = some[-1].sequence + 1
        return messages[:limit]

    async def _some(self, start: int, last: int, width: int) -> list[StoredMessage] | None:
        """All messages in the next ``width`` stretches, and perhaps one behind; None if unsure.

        There is one for each place that is asked about, unless a replica lags or the last ones were
        removed. The order of the answers tells what belongs to which place: what a place has been
        told is no more than the next one has.
        """
        end = min(start + width * self._stretch, last + 1)
        places = range(start, end, self._stretch)
        ends = {place: min(place + self._stretch, end) for place in places}
        found: dict[int, StoredMessage] = {}
        while ends:
            told = await self._js.direct_each(self._stream, [_next_after(place) for place in ends])
            if len(told) < len(ends):
                return None
            told.sort(key=lambda message: message.sequence)
            found |= {message.sequence: message for message in told}
            behind = [message.sequence + 1 for message in told]
            ends = {
                place: stop
                for place, stop in zip(behind, ends.values(), strict=True)
                if place < stop
            }
        messages = [found[sequence] for sequence in sorted(found)]
        between = (messages[-1].sequence + 1 - start) // len(messages)
        self._stretch = min(max(between, 1) * _IN_STRETCH, _LONGEST_STRETCH)
        return messages

    async def _next(self, start: int, last: int) -> list[StoredMessage]:
        """The next message alone; none if a believed leader, which has ``last``, has none."""

        async def ask_leader() -> StoredMessage | None:
            if (await self._js.state(self._stream)).last_sequence < last:
                raise UnavailableError("the store's leader has not caught up yet")
            return await self._js.next_message(self._stream, ">", start)

        found = await self._js.direct_at(self._stream, _next_after(start))
        found = found or await self._js.believed(self._stream, ask_leader)
        return [] if found is None else [found]


def _next_after(place: int) -> dict[str, Any]:
    return {"seq": place, "next_by_subj": ">"}
