"""How far logs are known to go, until their records say so.

A server that cannot read the end of its files goes on without it, and a log may end before commands
that were acknowledged. So a worker remembers the last command of each log that it read or appended
to, and writes it into the state's record once a minute. A log that ends before it is damaged.

Why: docs/decisions.md, "How far a log went is noted once a minute".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.repository.states.record import Lineage, StateRecord

WRITE_DOWN_SECONDS: Final = 60.0
"""Seconds between two times that a worker writes down what it remembers."""

MAX_REMEMBERED: Final = 16_384
"""Logs of which a worker remembers it: more are not in use within a minute."""

LAG_SECONDS: Final = 300.0
"""Two looks at a log that ends too early, with more time between them, may have met two lags."""

type SeenEnd = tuple[Lineage, int]
"""The lineage of a log, and a command that it has had."""


@dataclass(slots=True)
class _Lag:
    """A log that ended before its command ``index`` since then, and when it was last seen to."""

    lineage: Lineage
    index: int
    session: object
    since: float
    seen: float


class SeenEnds:
    """The last commands of logs, as this worker has seen them."""

    def __init__(self) -> None:
        self._seen: dict[str, SeenEnd] = {}
        self._lags: dict[str, _Lag] = {}

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

    def behind_seconds(
        self, record: StateRecord, index: int, *, session: object, now: float
    ) -> float:
        """For how long the log of ``record`` has ended before the command ``index``, as it does.

        ``session`` is the journal's: what was seen in another one does not count.
        """
        lag = self._lags.get(record.name)
        if (
            lag is None
            or lag.lineage != record.lineage
            or lag.index > index
            or lag.session is not session
            or now - lag.seen > LAG_SECONDS
        ):
            lag = _Lag(record.lineage, index, session, now, now)
            _put(self._lags, record.name, lag)
        lag.seen = now
        return now - lag.since

    def goes_to(self, record: StateRecord, index: int) -> None:
        """The log of ``record`` ends with the command ``index``: it has those up to there."""
        lag = self._lags.get(record.name)
        if lag is not None and lag.index <= index:
            del self._lags[record.name]


def _put[T](found: dict[str, T], name: str, value: T) -> None:
    """Remember that, and not what was put before all others if there are too many."""
    found.pop(name, None)
    found[name] = value
    if len(found) > MAX_REMEMBERED:
        del found[next(iter(found))]
