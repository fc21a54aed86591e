"""One reader for all who watch one kind: a hundred watchers cost the store no more than one.

The feed reads while somebody watches, and keeps the last batches. A watcher from further back reads
by itself until it has caught up, and so does one that falls behind what is kept.

Why: docs/decisions.md, "Workers relay what one of their readers reads".
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.deadline import look_at, outliving_task
from holdfast.errors import (
    ConflictError,
    HoldfastError,
    InternalError,
    InvalidError,
    UnavailableError,
)
from holdfast.repository.watch.following import (
    MADE_ANEW,
    Batch,
    EventFollower,
    Point,
    store_name,
)

if TYPE_CHECKING:
    from holdfast.repository.watch.events import EventSource

BUSY_SECONDS: Final = 0.05
IDLE_SECONDS: Final = 0.25
_SLOWER: Final = 1.5
MAX_KEPT: Final = 4096
"""Events that are kept for those who are a moment behind."""

MAX_ALONE: Final = 4
"""Watchers further behind that may read at a time."""

log = structlog.get_logger(__name__)


class Feed:
    """The events of one kind, to be watched."""

    def __init__(self, source: EventSource) -> None:
        """Nothing is read before somebody watches."""
        self._source = source
        self._reader: _Reader | None = None
        self._stop = asyncio.Event()
        self._turns = asyncio.Semaphore(MAX_ALONE)

    @property
    def is_stopped(self) -> bool:
        """Whether those who watch are to go."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Have all who watch go, at once."""
        self._stop.set()
        if self._reader is not None:
            self._reader.wake()

    async def begin(self, *, since: int | None = None, cursor: str | None = None) -> Watching:
        """Watch from behind ``since``, from the point of ``cursor``, or from now on.

        Raises InvalidError for what is none, or beyond the end, ConflictError for a cursor of a
        store that was made anew since, UnavailableError once the feed is stopped, and as the store.
        """
        if self.is_stopped:
            raise UnavailableError("this worker stops: ask another")
        if since is not None and cursor is not None:
            raise InvalidError("a watch goes on from `since` or from `cursor`, not from both")
        point = Point.parse(cursor) if cursor is not None else None
        extent = await self._source.extent()
        if point is None:
            if since is not None and since > extent.last:
                raise InvalidError(f"`since` is beyond the end, which is {extent.last}")
            at = extent.last if since is None else since
            point = Point(store_name(extent), at, at)
        elif point.store != store_name(extent):
            raise ConflictError(MADE_ANEW)
        return Watching(self, point, is_near=extent.last - point.floor <= MAX_KEPT)

    def follower(self, point: Point) -> EventFollower:
        """A reader for one watcher alone."""
        return EventFollower(self._source, point)

    async def read_alone(self, follower: EventFollower) -> Batch | None:
        """The follower's batch, once it is its turn."""
        async with self._turns:
            return await follower.read()

    def join(self, point: Point, *, is_near: bool) -> _Reader | None:
        """The common reader for somebody at ``point``; None where it does not reach back so far.

        Where there is none it begins there, if that ``is_near`` the end.
        """
        if self._reader is None or self._reader.error is not None:
            if not is_near:
                return None
            self._reader = _Reader(self.follower(point.at(point.floor)))
        if not self._reader.reaches(point):
            return None
        self._reader.watchers += 1
        return self._reader

    def leave(self, reader: _Reader) -> None:
        """Stop ``reader`` if nobody is left."""
        reader.watchers -= 1
        if not reader.watchers:
            reader.stop()
            if self._reader is reader:
                self._reader = None


class Watching:
    """Somebody who watches: to be closed, once ``next`` was called."""

    def __init__(self, feed: Feed, point: Point, *, is_near: bool) -> None:
        """Made by ``Feed.begin``."""
        self.point = self.begun = point
        self._feed = feed
        self._is_near = is_near
        self._follower = feed.follower(point)
        self._reading: asyncio.Task[Batch | None] | None = None
        self._reader: _Reader | None = None
        self._number = 0
        self._joined_at = 0

    def close(self) -> None:
        """Watch no more. May be repeated."""
        self._leave()
        if self._reading is not None:
            self._reading.cancel()
            self._reading.add_done_callback(look_at)
            self._reading = None

    def _leave(self) -> None:
        if self._reader is not None:
            self._feed.leave(self._reader)
            self._reader = None

    async def next(self, seconds: float) -> Batch | None:
        """The next batch; None when nothing has come for ``seconds``, or the feed is stopped.

        Raises ConflictError once the store was made anew, and as the store.
        """
        try:
            async with asyncio.timeout(seconds):
                batch = await self._next()
        except TimeoutError:
            return None
        if batch is not None:
            self.point = batch.end
        return batch

    async def _next(self) -> Batch | None:
        while not self._feed.is_stopped:
            if self._reader is None and self._reading is None:
                self._join()
            if self._reader is None:
                batch = await self._read_alone()
            elif self._reader.has(self._number):
                batch = await self._read_along(self._reader)
            else:
                self._leave()
                self._follower, self._is_near = self._feed.follower(self.point), False
                continue
            if batch is not None:
                return batch
        return None

    def _join(self) -> None:
        """Read along with the others, unless these are too far ahead."""
        self._reader = self._feed.join(self.point, is_near=self._is_near)
        if self._reader is not None:
            self._joined_at = self.point.floor
            self._number = self._reader.number_at(self.point)

    async def _read_along(self, reader: _Reader) -> Batch | None:
        batch = await reader.batch(self._number)
        if batch is None:
            return None
        self._number += 1
        return batch.behind(self._joined_at)

    async def _read_alone(self) -> Batch | None:
        """In a task that goes on when nobody waits for it: one that stopped waiting comes back."""
        if self._reading is None:
            self._reading = outliving_task(self._feed.read_alone(self._follower))
        await asyncio.wait([self._reading])
        reading, self._reading = self._reading, None
        batch = reading.result()
        behind = self._follower.point.position - self._follower.point.floor
        self._is_near = self._follower.is_at_end and behind <= MAX_KEPT
        if batch is None:
            self._join()
            if self._reader is None:
                await asyncio.sleep(IDLE_SECONDS)
        return batch


class _Reader:
    """The reader that a feed's watchers share while there are any."""

    def __init__(self, follower: EventFollower) -> None:
        """Begin to read."""
        self.watchers = 0
        self.error: HoldfastError | None = None
        self._follower = follower
        self._batches: deque[Batch] = deque()
        self._first = 0
        self._events = 0
        self._kept_since = follower.point.position
        self._news = asyncio.Event()
        self._task = outliving_task(self._read())

    def stop(self) -> None:
        """Read no more."""
        self._task.cancel()

    def wake(self) -> None:
        """Have those who wait look up."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def reaches(self, point: Point) -> bool:
        """Whether everything behind ``point`` is kept, or still to be read."""
        return point.floor >= self._kept_since

    def number_at(self, point: Point) -> int:
        """The number of the batch with which somebody at ``point`` goes on."""
        passed = sum(batch.end.position <= point.floor for batch in self._batches)
        return self._first + passed

    def has(self, number: int) -> bool:
        """Whether the batch ``number`` is kept, or still to come."""
        return number >= self._first

    async def batch(self, number: int) -> Batch | None:
        """The batch ``number``, once it is there; None if woken before.

        Raises why there will be none.
        """
        if self.error is None and number >= self._first + len(self._batches):
            await self._news.wait()
        if self.error is not None:
            raise type(self.error)(self.error.detail) from self.error
        at = number - self._first
        return self._batches[at] if 0 <= at < len(self._batches) else None

    async def _read(self) -> None:
        try:
            await self._read_on()
        except HoldfastError as error:
            self.error = error
        except Exception:
            log.exception("feed_failed")
            self.error = InternalError()
        self.wake()

    async def _read_on(self) -> None:
        seconds = BUSY_SECONDS
        while True:
            await asyncio.sleep(seconds)
            batch = await self._follower.read()
            if batch is None:
                seconds = min(max(seconds, BUSY_SECONDS) * _SLOWER, IDLE_SECONDS)
            else:
                self._keep(batch)
                seconds = BUSY_SECONDS if batch.end.is_sure else 0

    def _keep(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._events += len(batch.events)
        while self._events > MAX_KEPT and len(self._batches) > 1:
            dropped = self._batches.popleft()
            self._first += 1
            self._events -= len(dropped.events)
            self._kept_since = dropped.end.position
        self.wake()
