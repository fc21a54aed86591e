"""How far logs are known to go, until their records say so.

A server that cannot read the end of its files goes on without it, and a log may end before commands
that were acknowledged. So a worker remembers the last command of each log that it read or appended
to, and writes it into the state's record once a minute. A log that ends before it is damaged.

Why: docs/decisions.md, "How far a log went is noted once a minute".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.states.record import Lineage, StateRecord

WRITE_DOWN_SECONDS: Final = 60.0
"""Seconds between two times that a worker writes down what it remembers."""

MAX_REMEMBERED: Final = 16_384
"""Logs of which a worker remembers it: more are not in use within a minute."""

type SeenEnd = tuple[Lineage, int]
"""The lineage of a log, and a command that it has had."""


class SeenEnds:
    """The last commands of logs, as this worker has seen them."""

    def __init__(self) -> None:
        self._seen: dict[str, SeenEnd] = {}
        self._behind: dict[str, tuple[Lineage, float]] = {}

    def note(self, record: StateRecord, index: int) -> None:
        """The log of ``record`` has the command ``index``."""
        _put(self._seen, record.name, (record.lineage, max(index, self.of(record))))

    def of(self, record: StateRecord) -> int:
        """A command that the log of ``record`` has had; 0 where none is remembered."""
        lineage, index = self._seen.get(record.name, (None, 0))
        return index if lineage == record.lineage else 0

    def all(self) -> Sequence[tuple[str, SeenEnd]]:
        """All that are remembered, by the names of their states."""
        return list(self._seen.items())

    def forget(self, name: str, seen: SeenEnd) -> None:
        """The record says what was ``seen``, or never will."""
        if self._seen.get(name) == seen:
            del self._seen[name]

    def behind_seconds(self, record: StateRecord, now: float) -> float:
        """For how long the log of ``record`` has ended before what is known of it, as it does."""
        lineage, since = self._behind.get(record.name, (None, now))
        if lineage != record.lineage:
            _put(self._behind, record.name, (record.lineage, now))
            return 0.0
        return now - since

    def caught_up(self, record: StateRecord) -> None:
        """The log of ``record`` goes as far as is known."""
        self._behind.pop(record.name, None)


def _put[T](found: dict[str, T], name: str, value: T) -> None:
    """Remember that, and not what was put before all others if there are too many."""
    found.pop(name, None)
    found[name] = value
    if len(found) > MAX_REMEMBERED:
        del found[next(iter(found))]
