"""``snapshot.follow``: the commands of a log as they are appended."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.deadline import first_to_end
from holdfast.handlers.endpoint import AnyEndpoint, BytesReply, Call, Endpoint, Messages
from holdfast.handlers.states import lineage_of, log_entry, wire_lineage
from holdfast.protocol.states import ENTRIES_TYPE, FOLLOW_LOG, FollowEnd, FollowHead, FollowLog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from holdfast.repository.states.groups import LoggedCommand
    from holdfast.repository.states.replays import Following, Replays

HEARTBEAT_SECONDS: Final = 2
LEASE_SECONDS: Final = 60
MAX_MESSAGE_BYTES: Final = 512 * 1024
MAX_TOLD_BYTES: Final = 16 * 1024 * 1024
"""After so much it is asked for again: whoever reads slowly has no more of it waiting."""


class FollowHandlers:
    """Answers ``snapshot.follow``."""

    def __init__(
        self,
        replays: Replays,
        *,
        monotonic: Callable[[], float],
        heartbeat_seconds: int = HEARTBEAT_SECONDS,
        lease_seconds: int = LEASE_SECONDS,
        max_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        """``max_bytes`` are those of groups in one message, unless one has more."""
        self._replays = replays
        self._monotonic = monotonic
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._max_bytes = max_bytes
        self._stopping = asyncio.Event()

    async def follow(self, request: FollowLog, _: Call) -> Messages[FollowHead]:
        """``snapshot.follow``."""
        lineage = lineage_of(request.lineage)
        await self._replays.check(request.name, request.from_index, lineage=lineage)
        return Messages(ENTRIES_TYPE, self._messages(request))

    async def drain(self, _seconds: float) -> None:
        """End all of them now: others carry them on."""
        self._stopping.set()

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (Endpoint(FOLLOW_LOG, self.follow, lane="watches"),)

    async def _messages(self, request: FollowLog) -> AsyncGenerator[BytesReply[FollowHead]]:
        """A head, then commands as they come with heartbeats between them, and an end."""
        numbers = count()
        until = self._monotonic() + self._lease_seconds
        lineage = lineage_of(request.lineage)
        async with self._replays.follow(
            request.name, request.from_index, lineage=lineage
        ) as following:

            def told(entries: Sequence[LoggedCommand], **more: Any) -> BytesReply[FollowHead]:
                head = FollowHead(
                    part=next(numbers),
                    next_index=following.next_index,
                    lineage=wire_lineage(following.lineage),
                    **more,
                )
                body = msgspec.json.encode([log_entry(entry) for entry in entries])
                return BytesReply(head=head, data=body)

            yield told((), heartbeat=self._heartbeat_seconds, lease=self._lease_seconds)
            credit, room = request.credit, MAX_TOLD_BYTES
            while (end := self._why_over(until, credit, room)) is None:
                seconds = min(self._heartbeat_seconds, max(until - self._monotonic(), 0))
                entries = await self._next(following, seconds)
                message = told(entries)
                credit -= len(entries)
                room -= len(memoryview(message.data))
                yield message
            yield told((), end=end)

    async def _next(self, following: Following, seconds: float) -> Sequence[LoggedCommand]:
        """Further commands; none once ``seconds`` are over, or this worker is about to stop."""

        async def stopped() -> Sequence[LoggedCommand]:
            await self._stopping.wait()
            return ()

        return await first_to_end(following.next(seconds, self._max_bytes), stopped())

    def _why_over(self, until: float, credit: int, room: int) -> FollowEnd | None:
        if self._stopping.is_set():
            return "drain"
        if credit <= 0 or room <= 0:
            return "credit"
        return "lease" if self._monotonic() >= until else None
