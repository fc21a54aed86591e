"""How long this worker has itself seen a record unchanged, by its own monotonic clock.

Leases end by this and by nothing else: clocks of different nodes are never compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Observations:
    """What was seen of records, by key: the revision, and since when."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """``monotonic`` gives seconds that never go back."""
        self._monotonic = monotonic
        self._seen: dict[str, tuple[int, float]] = {}

    def unchanged_seconds(self, key: str, revision: int) -> float:
        """Note that ``key`` has ``revision`` now; for how long it was seen to have it."""
        now = self._monotonic()
        seen, since = self._seen.get(key, (0, now))
        if seen != revision:
            since = now
        self._seen[key] = (revision, since)
        return now - since

    def keep_only(self, keys: Iterable[str]) -> None:
        """Forget all others: their records are gone."""
        self._seen = {key: self._seen[key] for key in keys if key in self._seen}
