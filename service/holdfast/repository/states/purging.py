"""Which groups of a trimmed log may leave the journal.

Young ones stay, since a worker that is new to the log reads their Op-Ids there. Where there is
little room they go as well, and the state's record tells of their Op-Ids.

Why: docs/decisions.md, "Logs of states".
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from holdfast.domain.blob_names import name_key
from holdfast.errors import CorruptError
from holdfast.repository.states.groups import decode_head
from holdfast.repository.states.op_ids import MAX_CARRIED, REMEMBERED, OpIds
from holdfast.repository.states.record import TrimmedOps

if TYPE_CHECKING:
    from holdfast.repository.states.record import CarriedOp, StateRecord
    from holdfast.stores.journal_ports import JournalStore

OP_IDS_KEPT: Final = 2 * REMEMBERED
"""Groups that are younger are in the journal, trimmed or not, while there is room."""


@dataclass(frozen=True, slots=True)
class Removable:
    """Groups up to the sequence ``through`` may go once the record tells of ``ops``."""

    through: int
    ops: tuple[TrimmedOps, ...]


async def removable(journal: JournalStore, record: StateRecord, through: int) -> Removable:
    """Those of the trimmed groups, which are up to the sequence ``through``.

    Raises CorruptError.
    """
    now = await journal.now()
    known = _young_ops(record, now)
    has_little_room = await journal.has_little_room()
    kept = REMEMBERED if has_little_room else OP_IDS_KEPT
    young = await journal.first_since(name_key(record.name), now - kept)
    old = through if young is None else min(through, young.sequence - 1)
    if not has_little_room or old < record.closed_through:
        return Removable(old, known)
    space = MAX_CARRIED - sum(len(ops.ops) for ops in known)
    last, ops = await _young(journal, record, old, through, space)
    return Removable(last, (*known, *told_of(ops.carried(), now)))


def told_of(ops: tuple[CarriedOp, ...], now: datetime) -> tuple[TrimmedOps, ...]:
    """``ops`` as the record tells of them when they are trimmed at the journal's time ``now``."""
    return (TrimmedOps(at=now.isoformat(), ops=ops),) if ops else ()


async def carried_ops(journal: JournalStore, record: StateRecord) -> tuple[CarriedOp, ...]:
    """Trimmed appends that the record tells of, and of which repeats may still come."""
    if not record.trimmed_ops:
        return ()
    young = _young_ops(record, await journal.now())
    return tuple(op for trimmed in young for op in trimmed.ops)


def _young_ops(record: StateRecord, now: datetime) -> tuple[TrimmedOps, ...]:
    """Those of the last minutes before ``now``, by the journal's time."""
    moment = now - REMEMBERED
    return tuple(one for one in record.trimmed_ops if datetime.fromisoformat(one.at) >= moment)


async def _young(
    journal: JournalStore, record: StateRecord, after: int, through: int, space: int
) -> tuple[int, OpIds]:
    """The last of the groups behind ``after`` whose Op-Ids fit ``space``, and these."""
    ops = OpIds()
    is_end = after >= through
    with suppress(CorruptError):  # nothing behind a damaged one is removed
        while not is_end:
            page = await journal.read(name_key(record.name), after)
            is_end = page.is_end
            for entry in page.entries:
                head = decode_head(entry)
                if entry.sequence > through or len(ops) + len(head.ops) > space:
                    return after, ops
                ops.note_group(head, record.lineage, 0)
                after = entry.sequence
    return after, ops
