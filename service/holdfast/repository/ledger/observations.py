"""The time this worker has itself seen a record unchanged, by its own monotonic clock.

Leases end by this and by nothing else: clocks of different nodes are never compared. Time in which
nobody could look (the store was away, the process was stopped) proves nothing: the record could
not be renewed then either. So only so much counts between two looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class _Seen:
    """A record as it was last seen: at ``at``, after ``unchanged`` seconds that count."""

    revision: int
    at: float
    unchanged: float


class Observations:
    """Records that were seen, by key: the revision, and for how long."""

    def __init__(self, monotonic: Callable[[], float], *, max_gap_seconds: float) -> None:
        """``monotonic`` gives seconds that never go back.

        ``max_gap_seconds`` is what counts at most between two looks at one record: about two of
        the intervals at which it is looked at.
        """
        self._monotonic = monotonic
        self._max_gap_seconds = max_gap_seconds
        self._seen: dict[str, _Seen] = {}

    def unchanged_seconds(self, key: str, revision: int) -> float:
        """Note that ``key`` has ``revision`` now; for how long it was seen to have it."""
        now = self._monotonic()
        seen = self._seen.get(key)
        unchanged = 0.0
        if seen is not None and seen.revision == revision:
            unchanged = seen.unchanged + min(now - seen.at, self._max_gap_seconds)
        self._seen[key] = _Seen(revision, now, unchanged)
        return unchanged

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget all others: their records are gone."""
        self._seen = {key: self._seen[key] for key in keys if key in self._seen}
