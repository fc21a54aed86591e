"""One reader of a store's events, from a point on: what it may say that it has seen.

A record that is rewritten moves to the end of the changes. Who reads them page by page, perhaps of
several replicas, may pass the point where it was before it gets to where it is, and only there read
the steps that it took. So a point has two numbers: how far was read, and the **floor**, up to which
every step has been told for sure. They part while more than a page is read, and meet when all is
read that any replica may have shown by then; until that, a step may be told twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import digest_of
from holdfast.errors import ConflictError, InvalidError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.watch.events import Event, EventSource
    from holdfast.stores.ports import Extent

MADE_ANEW: Final = "the store was made anew or set back: list what is there, and watch from now"
_DOUBTS: Final = 20
"""How often a store may have less than it had: a new leader may not know at once what it has."""

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
            msg = "this cursor is none of a watch"
            raise InvalidError(msg)
        return cls(found[3], int(found[1]), int(found[2]))

    @property
    def cursor(self) -> str:
        """What names it to callers."""
        return f"{self.floor}.{self.position}.{self.store}"

    @property
    def is_sure(self) -> bool:
        """Whether all that was read, was told."""
        return self.floor == self.position

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
            start=self.start.at(floor),
            end=Point(self.end.store, max(self.end.floor, floor), max(self.end.position, floor)),
        )

    def point_after(self, event: Event) -> Point:
        """Where to go on from once ``event``, and those before it, were told.

        Nothing is missed from there; in the midst of many pages much may be told twice.
        """
        return self.end.at(event.revision) if self.end.is_sure else self.start


class EventFollower:
    """Reads what is new, again and again."""

    def __init__(self, source: EventSource, point: Point) -> None:
        """Go on from ``point``."""
        self._source = source
        self.point = point
        self._target: int | None = 0 if point.is_sure else None
        self._doubts = 0

    async def read(self) -> Batch | None:
        """What is new; None when nothing is.

        Raises ConflictError when the store is another than that of the point, and as the store.
        """
        extent = await self._source.extent()
        if not self._is_believable(extent):
            return None
        if self._target is None:
            self._target = extent.last
        start, position, events, is_end = self.point, self.point.position, [], True
        if extent.last > position:
            page = await self._source.read(position, start.floor)
            position, is_end = page.position, page.is_end
            events = sorted(page.events, key=lambda event: event.revision)
        if not is_end:
            self._target = None  # whoever showed a page may be ahead of whoever shows the next
        is_sure = self._target is not None and position >= self._target
        self.point = Point(start.store, position if is_sure else start.floor, position)
        if self.point == start:
            return None
        return Batch(events=events, start=start, end=self.point)

    def _is_believable(self, extent: Extent) -> bool:
        """Whether the store has what was read. Raises ConflictError when it never will."""
        has_less = extent.last < self.point.position
        self._doubts = self._doubts + 1 if has_less else 0
        if store_name(extent) != self.point.store or self._doubts > _DOUBTS:
            raise ConflictError(MADE_ANEW)
        return not has_less
