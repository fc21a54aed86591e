"""Writes records of names, a step at a time, as workers do."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from holdfast.domain.blob_names import NameState, name_key
from holdfast.repository.ledger.ledger import Ledger
from holdfast.repository.names.record import MAX_TRANSITIONS, NAME, NameRecord, Transition

if TYPE_CHECKING:
    from holdfast.stores.record_ports import RecordStore

AT = datetime(2026, 3, 1, tzinfo=UTC).isoformat()


class Scribe:
    """Takes steps of names in ``records``; ``taken`` are the revisions of those of each."""

    def __init__(self, records: RecordStore) -> None:
        self._ledger = Ledger(records)
        self.taken: dict[str, list[int]] = {}

    async def step(self, name: str, state: NameState = "ok") -> int:
        """The next step of ``name``; its revision."""
        held = await self._ledger.make(NAME, name_key(name), partial(_next, name, state))
        self.taken.setdefault(name, []).append(held.revision)
        return held.revision


def _next(name: str, state: NameState, record: NameRecord | None) -> NameRecord:
    record = record or NameRecord(name=name, state=state)
    version = record.version + (state == "ok")
    step = Transition(at=AT, state=state, version=version, worker="w1")
    transitions = (*record.transitions, step)[-MAX_TRANSITIONS:]
    return msgspec.structs.replace(record, state=state, version=version, transitions=transitions)
