"""Whether a store has as many keys as its changes told of.

A follower hears nothing of a record that a server loses, nor of one that comes back after it was
deleted: its revision is an old one. Only the count of keys shows either. It cannot be compared with
the keys that have a record alone: a removal leaves a note, whose key is counted until it goes away
untold.

So there are bounds. Keys that had a record before the store was asked, and were not removed in the
round, are counted: there are no fewer. No more than have a record now, and notes beside: those that
there were in the round before, and those of this one's removals. As notes go away the second bound
follows, because the first says how many there still can be. Records that go away by themselves are
none of this store's.

A count outside of them is believed when the next round has it again: in between a note may have
gone that was never read. Keys of which no change tells (of a damaged row on disk, say) are counted
while the index is built, and allowed for from there on.
"""

from __future__ import annotations

from typing import Final

_DOUBTS: Final = 2


class Census:
    """The bounds, from round to round, of one index from when it was built."""

    def __init__(self) -> None:
        self._records = 0
        self._notes = 0
        self._untold: int | None = None
        self._doubts = 0

    def is_right(self, keys: int, *, records: int, removed: int) -> bool:
        """Whether the store may have ``keys`` keys. The first round counts as right.

        ``records``: how many keys have a record at the end of the round, as far as the index knows;
        ``removed``: of how many changes since the last round there was no value.
        """
        if self._untold is None:
            self._untold = max(keys - records - removed, 0)
        fewest = max(self._records - removed, 0)
        most = records + self._notes + removed + self._untold
        is_within = fewest <= keys <= most
        self._records = records
        self._notes = min(self._notes, max(keys - fewest, 0)) + removed
        self._doubts = 0 if is_within else self._doubts + 1
        return self._doubts < _DOUBTS
