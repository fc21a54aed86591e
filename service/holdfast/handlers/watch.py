"""``blob.watch``: what becomes of names, blobs and snapshots, as CloudEvents."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from holdfast.handlers.endpoint import AnyEndpoint, BytesReply, Call, Endpoint, Messages
from holdfast.protocol.times import as_utc
from holdfast.protocol.watch import (
    EVENTS_TYPE,
    WATCH,
    WatchChanges,
    WatchEnd,
    WatchEvent,
    WatchHead,
    WatchKind,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    from holdfast.repository.watch.events import Event
    from holdfast.repository.watch.feed import Feed, Watching
    from holdfast.repository.watch.following import Batch, Point

HEARTBEAT_SECONDS: Final = 2
"""A watcher whose worker dies goes on after little more than twice that."""

LEASE_SECONDS: Final = 60
MAX_EVENTS: Final = 128
"""In one message: encoding them takes the event loop for less than a millisecond."""

MAX_BYTES: Final = 256 * 1024
"""Of events in one message, but for the last of them."""

NO_EVENTS: Final = b"[]"
_NOUNS: Final[Mapping[WatchKind, str]] = {
    "names": "name",
    "blobs": "blob",
    "snapshots": "snapshot",
}


class _Part(NamedTuple):
    """Events of a batch as one body; how many are told with it, and the point behind them."""

    body: bytes
    told: int
    point: Point


class WatchHandlers:
    """Answers ``blob.watch``."""

    def __init__(
        self,
        feeds: Mapping[WatchKind, Feed],
        *,
        source: str,
        monotonic: Callable[[], float],
        heartbeat_seconds: int = HEARTBEAT_SECONDS,
        lease_seconds: int = LEASE_SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """``source`` is the deployment, as its events say it."""
        self._feeds = feeds
        self._source = source
        self._monotonic = monotonic
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._max_bytes = max_bytes
        self._parts: WeakKeyDictionary[Batch, dict[tuple[WatchKind, str], list[_Part]]] = (
            WeakKeyDictionary()
        )

    async def watch(self, request: WatchChanges, _: Call) -> Messages[WatchHead]:
        """``blob.watch``."""
        feed = self._feeds[request.kind]
        watching = await feed.begin(since=request.since, cursor=request.cursor)
        return Messages(EVENTS_TYPE, self._messages(request, feed, watching))

    async def drain(self, _seconds: float) -> None:
        """End all watches now: others carry them on."""
        for feed in self._feeds.values():
            feed.stop()

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (Endpoint(WATCH, self.watch, lane="watches"),)

    async def _messages(
        self, request: WatchChanges, feed: Feed, watching: Watching
    ) -> AsyncGenerator[BytesReply[WatchHead]]:
        """A head, then events as they come with heartbeats between them, and an end."""
        numbers = count()

        def told(point: Point, body: bytes = NO_EVENTS, **more: Any) -> BytesReply[WatchHead]:
            part, position = next(numbers), point.floor
            head = WatchHead(part=part, position=position, cursor=point.cursor, **more)
            return BytesReply(head=head, data=body)

        told_at = self._monotonic()
        until = told_at + self._lease_seconds
        point, credit = watching.point, request.credit
        yield told(point, heartbeat=self._heartbeat_seconds, lease=self._lease_seconds)
        with closing(watching):
            while True:
                is_spent = _is_spent(credit, request, point, watching.begun)
                if end := _why_over(feed, until - self._monotonic(), is_spent=is_spent):
                    break
                due = min(told_at + self._heartbeat_seconds, until)
                batch = await watching.next(max(due - self._monotonic(), 0))
                if batch is not None:
                    for part in self._parts_of(batch, request):
                        point, told_at = part.point, self._monotonic()
                        yield told(point, part.body)
                        credit -= part.told
                        if _is_spent(credit, request, point, watching.begun):
                            break
                    else:
                        point = batch.end
                if self._monotonic() >= told_at + self._heartbeat_seconds:
                    told_at = self._monotonic()
                    yield told(point)
        yield told(point, end=end)

    def _parts_of(self, batch: Batch, request: WatchChanges) -> list[_Part]:
        """The events of ``batch`` for ``request``: written once for all who ask the same."""
        parts = self._parts.setdefault(batch, {})
        asked = (request.kind, request.prefix)
        if asked not in parts:
            events = [one for one in batch.events if one.subject.startswith(request.prefix)]
            parts[asked] = list(self._written(batch, request.kind, events))
        return parts[asked]

    def _written(self, batch: Batch, kind: WatchKind, events: Sequence[Event]) -> Iterator[_Part]:
        lines: list[bytes] = []
        size = 0
        for number, event in enumerate(events, start=1):
            point = batch.point_after(event)
            lines.append(msgspec.json.encode(self._event(kind, event, point)))
            size += len(lines[-1])
            is_last = number == len(events)
            if is_last or len(lines) == MAX_EVENTS or size >= self._max_bytes:
                body = b"[" + b",".join(lines) + b"]"
                yield _Part(body, len(lines), batch.end if is_last else point)
                lines, size = [], 0

    def _event(self, kind: WatchKind, event: Event, point: Point) -> WatchEvent:
        return WatchEvent(
            id=f"{kind}.{point.store}.{event.revision}",
            source=self._source,
            type=f"holdfast.{_NOUNS[kind]}.{event.state}",
            subject=event.subject,
            time=as_utc(event.at),
            sequence=f"{event.revision:020d}",
            position=str(point.floor),
            data=dict(event.data),
        )


def _is_spent(credit: int, request: WatchChanges, point: Point, begun: Point) -> bool:
    """Whether the watch ends. Not before it is further, or it would be asked for again in vain."""
    return credit <= 0 and (request.credit == 0 or point.is_beyond(begun))


def _why_over(feed: Feed, seconds_left: float, *, is_spent: bool) -> WatchEnd | None:
    if feed.is_stopped:
        return "drain"
    if is_spent:
        return "credit"
    return "lease" if seconds_left <= 0 else None
