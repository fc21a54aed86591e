"""Writes that the record of their name tells of no more, ``w.<op>``, for their repeats.

A record keeps its last steps. Where many write a name, the step by which a repeat is known may be
gone while its caller still waits for an answer, and the repeat would be made over what others wrote
since. So a young step is written down here before the record that has it no more. That costs only
names that are written more than ``MAX_TRANSITIONS`` times in ``REMEMBERED``.

Why: docs/decisions.md, "Announcements and the steps that end them share the Op-Id".
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.op_id import is_repeat, op_token, split_op_id
from holdfast.errors import ConflictError
from holdfast.repository.ledger.ledger import Ledger, RecordKind
from holdfast.repository.names.record import MAX_TRANSITIONS, NameRecord, Transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.stores.record_ports import RecordStore

REMEMBERED: Final = timedelta(minutes=10)
"""A write's repeat is known for so long, however many others came since."""

_KEPT: Final = timedelta(hours=1)
"""Longer than that, for clocks of workers differ."""


class PastWrite(msgspec.Struct, frozen=True, kw_only=True):
    """The step that carried a write of ``name`` out."""

    name: str
    step: Transition


PAST_WRITE: Final = RecordKind(noun="write", form=PastWrite, prefix="w", ttl=lambda _record: _KEPT)


class PastWrites:
    """Those of all workers."""

    def __init__(self, records: RecordStore, clock: Callable[[], datetime]) -> None:
        """``records`` is not the bucket of the names: records here go away by themselves."""
        self._ledger = Ledger(records)
        self._clock = clock

    async def note(self, before: NameRecord | None, after: NameRecord) -> None:
        """To be awaited before ``after`` is written in the place of ``before``."""
        for step in before.transitions if before is not None else ():
            is_done = step.state in {"ok", "deleted"} and bool(split_op_id(step.op)[1])
            if is_done and step not in after.transitions and self._is_young(step):
                past = PastWrite(name=after.name, step=step)
                with suppress(ConflictError):  # it was noted before
                    await self._ledger.begin(PAST_WRITE, op_token(step.op), past)

    def _is_young(self, step: Transition) -> bool:
        return self._clock() - datetime.fromisoformat(step.at) < REMEMBERED

    async def find(self, record: NameRecord | None, op: str) -> Transition | None:
        """The step that carried ``op`` out, which ``record`` may tell of no more.

        Raises ConflictError when the same Op-Id was used for another request.
        """
        if record is None or len(record.transitions) < MAX_TRANSITIONS:
            return None
        if not self._is_young(record.transitions[0]):
            return None
        held = await self._ledger.find(PAST_WRITE, op_token(op))
        if held is None or held.record.name != record.name:
            return None
        step = held.record.step
        return step if is_repeat(step.op, op) else None
