"""``o.<op>``: what an ``Op-Id`` stands for where the change makes up an id of its own.

A repeat of the request finds the id that the first one chose, for as long as the record lives.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import ConflictError

if TYPE_CHECKING:
    from holdfast.stores.ports import RecordStore

OPS: Final = "o"
OP_TTL: Final = timedelta(hours=24)


class OpRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Which upload, snapshot or restore a repeated request has begun before."""

    upload: str


async def claim_op(records: RecordStore, op_id: str, fresh: str) -> tuple[str, bool]:
    """The id that ``op_id`` stands for (``fresh`` if it is new), and whether it did before."""
    key = f"{OPS}.{_token(op_id)}"
    value = msgspec.json.encode(OpRecord(upload=fresh))
    try:
        await records.put(key, value, expected=0, ttl=OP_TTL)
    except ConflictError:
        record = await records.get(key)
        return msgspec.json.decode(record.value, type=OpRecord).upload, True
    return fresh, False


def _token(op_id: str) -> str:
    """Any text as one key token."""
    return base64.urlsafe_b64encode(op_id.encode()).decode().rstrip("=")
