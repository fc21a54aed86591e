"""One reader of a store's events, from a point on, and the point it may say it has told.

A record that is rewritten moves to the end of the changes. A reader may so pass the place
where it was before it gets to where it is, and only there meet the steps that it took. So a point
has two numbers: how far was read, and the **floor**, up to which every step has been told. They are
one where the store had nothing behind what was read, after it was read. While others keep writing,
the floor follows some reads behind: a record would have to move in each of them, at the moment when
its place is read. Steps behind the floor are told where they are met, perhaps twice.

Why: docs/decisions.md, "A cursor has two numbers".
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.watch.events import Event, Events, EventSource
    from holdfast.stores.record_ports import Extent

MADE_ANEW: Final = "the store was made anew or set back: list what is there, and watch from now"
PATIENCE: Final = 20
"""Reads to the end of what there is, after which no record is believed to have evaded all."""

_DOUBTS: Final = 20
"""Looks in a row that may find less than before: a new leader may not know at once what it has."""

_CURSOR: Final = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.([0-9a-f]{16})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Point:
    """All steps up to ``floor`` have been told, and all changes up to ``position`` read.

    ``store`` names the incarnation of the store that both are of.
    """

    store: str
    floor: int
    position: int

    @classmethod
    def parse(cls, cursor: str) -> Point:
        """The point that ``cursor`` names. Raises InvalidError."""
        found = _CURSOR.fullmatch(cursor)
        if found is None or int(found[1]) > int(found[2]):
            raise InvalidError("the cursor is not that of a watch")
        return cls(found[3], int(found[1]), int(found[2]))

    @property
    def cursor(self) -> str:
        """Its name to callers."""
        return f"{self.floor}.{self.position}.{self.store}"

    @property
    def is_sure(self) -> bool:
        """Whether every step up to what was read has been told."""
        return self.floor == self.position

    def is_beyond(self, other: Point) -> bool:
        """Whether a reader from here is further than one from ``other``."""
        return self.floor > other.floor or self.position > other.position

    def raised_to(self, floor: int) -> Point:
        """The same for somebody to whom every step up to ``floor`` was told."""
        return Point(self.store, max(self.floor, floor), max(self.position, floor))

    def at(self, revision: int) -> Point:
        """The point where all steps up to ``revision`` have been told."""
        return Point(self.store, revision, revision)


def store_name(extent: Extent) -> str:
    """The incarnation of a store, shortened."""
    return digest_of(extent.created.encode())[:16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Batch:
    """Events in the order of their revisions, and the points before and after them."""

    events: Sequence[Event]
    start: Point
    end: Point

    def behind(self, floor: int) -> Batch:
        """The same for somebody to whom every step up to ``floor`` was told."""
        if floor <= self.start.floor:
            return self
        return Batch(
            events=[event for event in self.events if event.revision > floor],
            start=self.start.raised_to(floor),
            end=self.end.raised_to(floor),
        )

    def point_after(self, event: Event) -> Point:
        """The point to go on from once ``event`` and those before it were told.

        Nothing is missed from there; while others keep writing some may be told twice.
        """
        return self.end.at(event.revision) if self.end.is_sure else self.start


class EventFollower:
    """Reads new events, again and again."""

    def __init__(self, source: EventSource, point: Point) -> None:
        """Go on from ``point``."""
        self._source = source
        self.point = point
        self._ends: deque[int] = deque()
        self._told: set[int] = set()
        self._doubts = 0

    @property
    def is_at_end(self) -> bool:
        """Whether all was read that there was at the last read."""
        return self.point.is_sure or bool(self._ends)

    async def read(self) -> Batch | None:
        """The next batch; None when nothing is new.

        Raises ConflictError when the store is another than that of the point, and as the store.
        """
        start = self.point
        extent = await self._source.extent()
        if not self._is_believable(extent):
            return None
        if extent.last == start.position:
            self._move(start.position, is_sure=True)
            return None if start.is_sure else Batch(events=(), start=start, end=self.point)
        page = await self._source.read(start.position, self._is_new)
        left = await self._source.extent()
        self._note(page)
        # A leader that has less than was read has not caught up, and knows nothing of it.
        self._move(page.position, is_sure=left.last == page.position)
        events = sorted(page.events, key=lambda event: event.revision)
        return Batch(events=events, start=start, end=self.point)

    def _is_new(self, revision: int) -> bool:
        """Whether the step was not told, for all that is known."""
        return revision > self.point.floor and revision not in self._told

    def _note(self, page: Events) -> None:
        """Remember ends in a row; and what was told, but for the many before the first end."""
        if not page.is_end:
            self._ends.clear()
            return
        self._ends.append(page.position)
        self._told.update(event.revision for event in page.events)

    def _move(self, position: int, *, is_sure: bool) -> None:
        floor = self.point.floor
        if is_sure:
            floor = position
            self._ends.clear()
        elif len(self._ends) > PATIENCE:
            floor = self._ends.popleft()
        self.point = Point(self.point.store, floor, position)
        self._told = {revision for revision in self._told if revision > floor}

    def _is_believable(self, extent: Extent) -> bool:
        """Whether the store has what was read. Raises ConflictError when it never will."""
        has_less = extent.last < self.point.position
        self._doubts = self._doubts + 1 if has_less else 0
        if store_name(extent) != self.point.store or self._doubts > _DOUBTS:
            raise ConflictError(MADE_ANEW)
        return not has_less
