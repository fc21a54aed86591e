"""The ``Op-Id``s of appends to one log, which are known for two minutes.

They are in the groups themselves, so any worker that has read those minutes knows them. So many are
kept and no more: of a log that gets more in that time the oldest are forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.hlc import Hlc, parse_hlc
from holdfast.domain.op_id import is_repeat, split_op_id
from holdfast.repository.states.record import CarriedOp, Lineage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.repository.states.groups import GroupHead

REMEMBERED: Final = timedelta(minutes=2)
_REMEMBERED_SECONDS: Final = REMEMBERED.total_seconds()
MAX_OP_IDS: Final = 65_536
"""Op-Ids of one log."""

MAX_CARRIED: Final = 256
"""Op-Ids of one log, when it ends."""

MAX_OP_IDS_IN_ALL: Final = 262_144
"""Op-Ids of all logs of one worker: some 64 MiB."""


class AppendedRun(msgspec.Struct, frozen=True, gc=False):
    """Commands that one request has appended: the first index, how many, and their times.

    ``lineage`` is that of the log, None where it has ended since.
    """

    index: int
    count: int
    hlc: Hlc
    last_hlc: Hlc
    lineage: Lineage | None = None


class _Known(msgspec.Struct, frozen=True, gc=False):
    op_id: str
    run: AppendedRun
    until: float


class OpIds:
    """Those of one log, by a clock that only rises."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._forget_at = 0.0

    def __len__(self) -> int:
        """The number known."""
        return len(self._known)

    def note_group(self, group: GroupHead, lineage: Lineage, now: float) -> None:
        """The group was read from the log of that lineage."""
        for op in group.ops:
            hlc = group.first_hlc.advanced(op.place)
            last_hlc = hlc.advanced(op.count - 1)
            run = AppendedRun(group.first + op.place, op.count, hlc, last_hlc, lineage)
            self.note(op.op_id, run, now)

    def note(self, op_id: str, run: AppendedRun, now: float) -> None:
        """The log has what the request has appended."""
        said, _ = split_op_id(op_id)
        self._known[said] = _Known(op_id, run, now + _REMEMBERED_SECONDS)
        self._known.move_to_end(said)
        if now >= self._forget_at or len(self._known) > MAX_OP_IDS:
            self._forget(now)

    def carried(self) -> tuple[CarriedOp, ...]:
        """The newest, for what ends the log to tell."""
        newest = list(self._known.values())[-MAX_CARRIED:]
        return tuple(
            CarriedOp(one.op_id, one.run.index, one.run.count, str(one.run.hlc)) for one in newest
        )

    def note_carried(
        self, ops: Iterable[CarriedOp], now: float, lineage: Lineage | None = None
    ) -> None:
        """Note the ``ops`` of groups that are gone; of a log that has ended, without lineage."""
        for op in ops:
            hlc = parse_hlc(op.hlc)
            run = AppendedRun(op.index, op.count, hlc, hlc.advanced(op.count - 1), lineage)
            self.note(op.op_id, run, now)

    def find(self, op_id: str | None) -> AppendedRun | None:
        """The request's appended run. Raises ConflictError: the id is another request's."""
        if op_id is None:
            return None
        known = self._known.get(split_op_id(op_id)[0])
        return known.run if known is not None and is_repeat(known.op_id, op_id) else None

    def _forget(self, now: float) -> None:
        while self._known:
            oldest = next(iter(self._known.values()))
            if oldest.until > now and len(self._known) <= MAX_OP_IDS:
                self._forget_at = oldest.until
                break
            self._known.popitem(last=False)
