"""How far logs are known to go, until their records say so.

A server that cannot read the end of what it has on its disk goes on without it, and a log may end
before commands that were acknowledged. So a worker remembers how far the logs went that it has read
or written, and has their records say so now and then: one that ends before that is damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.states.record import Lineage, StateRecord

WRITE_DOWN_SECONDS: Final = 60.0
"""Seconds between two times that what is remembered is written down."""

MAX_REMEMBERED: Final = 16_384
"""Logs of which it is remembered, those of the last minute."""

type SeenEnd = tuple[Lineage, int]
"""A command that the log of that lineage has had."""


class SeenEnds:
    """The last commands of logs, as this worker has seen them."""

    def __init__(self) -> None:
        self._seen: dict[str, SeenEnd] = {}

    def note(self, record: StateRecord, index: int) -> None:
        """The log of ``record`` has the command ``index``."""
        self._seen[record.name] = record.lineage, index
        if len(self._seen) > MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def of(self, record: StateRecord) -> int:
        """A command that the log of ``record`` has had; 0 where none is remembered."""
        lineage, index = self._seen.get(record.name, (None, 0))
        return index if lineage == record.lineage else 0

    def all(self) -> Sequence[tuple[str, SeenEnd]]:
        """All that are remembered, by the names of their states."""
        return list(self._seen.items())

    def forget(self, name: str, seen: SeenEnd) -> None:
        """The record says what was ``seen``, or nobody needs it any more."""
        if self._seen.get(name) == seen:
            del self._seen[name]
