"""The place of a log's command in the journal.

Sequences are of all logs together, so they are searched: from what a save or an earlier search
knows, by where an index should lie if groups came evenly, and by halves. Where a group is damaged
the next one says on which side of it to go on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from holdfast.errors import CorruptError
from holdfast.repository.states.logs import LogPlace, StateLogs, before, beginning

if TYPE_CHECKING:
    from holdfast.repository.states.record import Lineage, StateRecord

MAX_KNOWN: Final = 16_384
"""CommandPlaces that are remembered."""


class CommandPlaces:
    """Finds commands, and remembers where those lie that are likely to be asked for next."""

    def __init__(self, logs: StateLogs) -> None:
        self._logs = logs
        self._known: OrderedDict[tuple[Lineage, int], LogPlace] = OrderedDict()

    def note(self, record: StateRecord, index: int, place: LogPlace) -> None:
        """The command ``index`` of the log is, or will be, in the first group behind ``place``."""
        key = record.lineage, index
        self._known[key] = place
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    async def before(self, record: StateRecord, index: int, end: LogPlace) -> LogPlace:
        """Before the group that has the command ``index``, which is not above that of ``end``.

        Raises CorruptError where the log does not have it.
        """
        known = self._known.get((record.lineage, index))
        if known is not None:
            return known
        low, high = self._bounds(record, index, end)
        is_even = True
        while low.sequence < high.sequence:
            middle = _between(low, high, index) if is_even else (low.sequence + high.sequence) // 2
            is_even = not is_even
            readable = await self._logs.first_readable(record, middle + 1, high.sequence)
            if readable is None:
                high = LogPlace(middle, high.index)
                continue
            entry, head = readable
            found = before(record, entry, head)
            if found.index < index <= head.last:
                return found
            if index > head.last:
                low = LogPlace(entry.sequence, max(head.last, low.index))
            else:
                high = LogPlace(middle, found.index)
        msg = f"the log does not have command {index}: see `state repair`"
        raise CorruptError(msg, index=index)

    def _bounds(self, record: StateRecord, index: int, end: LogPlace) -> tuple[LogPlace, LogPlace]:
        """CommandPlaces between which the group of the command ``index`` lies."""
        saves = [LogPlace(save.sequence, save.last_applied_index) for save in record.saves]
        low = [place for place in saves if place.sequence and place.index < index]
        return max(low, key=lambda place: place.index, default=beginning(record)), end


def _between(low: LogPlace, high: LogPlace, index: int) -> int:
    """The sequence behind which the command ``index`` would lie if groups came evenly."""
    indexes = max(high.index - low.index, 1)
    part = (high.sequence - low.sequence) * max(index - low.index - 1, 0) // indexes
    return min(low.sequence + part, high.sequence - 1)
