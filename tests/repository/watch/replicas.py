"""A store of names as a log: each replica has read some of it, and any of them may answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.repository.watch.events import Event, Events
from holdfast.stores.ports import Extent

CREATED = "2026-03-01"


@dataclass
class Replicas:
    """An `EventSource`. The name at index ``n`` of ``log`` took the step ``n + 1``.

    ``lag`` says how far behind the next answer is, ``limit`` how many records it has.
    """

    log: list[str] = field(default_factory=list)
    lag: Callable[[], int] = lambda: 0
    limit: Callable[[], int] = lambda: 500
    created: str = CREATED

    async def extent(self) -> Extent:
        """That of the leader."""
        return Extent(created=self.created, last=len(self.log), keys=len(set(self.log)))

    async def read(self, after: int, floor: int) -> Events:
        """What a replica has, which may lag. Each record keeps all its steps."""
        read = max(len(self.log) - self.lag(), 0)
        steps: dict[str, list[int]] = {}
        for revision, name in enumerate(self.log[:read], start=1):
            steps.setdefault(name, []).append(revision)
        records = sorted(steps.items(), key=lambda record: record[1][-1])
        behind = [(name, taken) for name, taken in records if taken[-1] > after]
        page = behind[: self.limit()]
        is_end = len(page) == len(behind)
        return Events(
            events=[
                Event(revision=revision, subject=name, state="ok", at="")
                for name, taken in page
                for revision in taken
                if revision > floor
            ],
            position=max(after, read) if is_end else page[-1][1][-1],
            is_end=is_end,
        )
