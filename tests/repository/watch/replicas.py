"""A store of names as a log, whose pages are read while others write, of replicas that lag."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.repository.watch.events import Event, Events
from holdfast.stores.record_ports import Extent

if TYPE_CHECKING:
    from holdfast.repository.watch.events import IsNew

CREATED = "2026-03-01"


@dataclass
class Replicas:
    """An `EventSource`. The name at index ``n`` of ``log`` took the step ``n + 1``.

    A page has ``limit`` records. Each place of it is read by itself, in whatever order, of a
    replica that knows the place, and others ``write`` in between.
    """

    log: list[str] = field(default_factory=list)
    limit: Callable[[], int] = lambda: 500
    write: Callable[[], None] = lambda: None
    rng: random.Random | None = None
    created: str = CREATED

    async def extent(self) -> Extent:
        """That of the leader."""
        return Extent(created=self.created, last=len(self.log), keys=len(set(self.log)))

    async def read(self, after: int, is_new: IsNew) -> Events:
        """The records that are found at their places up to the end as it was at first."""
        last = len(self.log)
        places = list(range(after + 1, last + 1))
        if self.rng is not None:
            self.rng.shuffle(places)
        found: dict[int, list[int]] = {}
        for place in places:
            steps = self._steps(place)
            if steps[-1] == place:
                found[place] = steps
            self.write()
        page = sorted(found)[: self.limit()]
        is_end = len(page) == len(found)
        return Events(
            events=[
                Event(revision=revision, subject=self.log[place - 1], state="ok", at="")
                for place in page
                for revision in found[place]
                if is_new(revision)
            ],
            position=max(after, last) if is_end else page[-1],
            is_end=is_end,
        )

    def _steps(self, place: int) -> list[int]:
        """All steps of the name at ``place`` that some replica knows, which knows the place."""
        known = len(self.log) if self.rng is None else self.rng.randint(place, len(self.log))
        name = self.log[place - 1]
        return [n for n, other in enumerate(self.log[:known], start=1) if other == name]
