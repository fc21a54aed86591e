"""``o.<op>``: the id that an ``Op-Id`` stands for where the change makes up one of its own.

A repeat of the request finds the id that the first one chose, for as long as the record lives.
Another request under the same ``Op-Id`` is a conflict (`holdfast.domain.op_id`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.op_id import is_repeat, join_op_id, op_token, split_op_id
from holdfast.errors import ConflictError
from holdfast.repository.ledger.ledger import Ledger, RecordKind

if TYPE_CHECKING:
    from holdfast.stores.record_ports import RecordStore

OP_TTL: Final = timedelta(hours=24)


class OpRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``stands_for`` is the id of what a repeated request has begun before, or what it has done.

    ``removed``: it was there, and is not to be made again. ``request`` is a digest of what was
    asked; a claim of no request in particular has none.
    """

    stands_for: str
    removed: bool = False
    request: str = ""


OP: Final = RecordKind(noun="Op-Id", form=OpRecord, prefix="o", ttl=lambda _record: OP_TTL)


class Ops:
    """The ids that ``Op-Id``s of the last day stand for."""

    def __init__(self, records: RecordStore) -> None:
        """The store of their records."""
        self._ledger = Ledger(records)

    async def claim(self, op_id: str | None, fresh: str) -> tuple[str, bool]:
        """The id that ``op_id`` stands for (``fresh`` if it is new), and whether it did before.

        Without an ``op_id`` it is ``fresh``. Raises ConflictError when it was given to another
        request.
        """
        if op_id is None:
            return fresh, False
        text, request = split_op_id(op_id)
        name = op_token(op_id)
        try:
            await self._ledger.begin(OP, name, OpRecord(stands_for=fresh, request=request))
        except ConflictError:
            record = (await self._ledger.get(OP, name)).record
            return record.stands_for, is_repeat(join_op_id(text, record.request), op_id)
        return fresh, False

    async def note_removed(self, op_id: str | None, made: str) -> None:
        """Note that ``made``, which the request ``op_id`` made, is about to be removed.

        To be called before it is, so that no repeat can bring it back. Raises ConflictError.
        """

        def removed(record: OpRecord) -> OpRecord:
            if record.stands_for != made or record.removed:
                return record
            return msgspec.structs.replace(record, removed=True)

        held = None if op_id is None else await self._ledger.find(OP, op_token(op_id))
        if held is not None:  # else it is so long ago that it will not be repeated
            await self._ledger.update(held, removed)

    async def was_removed(self, op_id: str) -> bool:
        """Whether what the request ``op_id`` made has been removed."""
        held = await self._ledger.find(OP, op_token(op_id))
        return held is not None and held.record.removed
