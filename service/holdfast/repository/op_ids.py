"""``o.<op>``: what an ``Op-Id`` stands for where the change makes up an id of its own.

A repeat of the request finds the id that the first one chose, for as long as the record lives.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from holdfast.stores.ports import RecordStore

OPS: Final = "o"
OP_TTL: Final = timedelta(hours=24)


class OpRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which upload, snapshot or restore a repeated request has begun before.

    ``removed``: it was there, and is not to be made again.
    """

    upload: str
    removed: bool = False


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


async def note_removed(records: RecordStore, op_id: str, made: str) -> None:
    """Note that ``made``, which the request ``op_id`` made, is about to be removed.

    To be called before it is, so that no repeat can bring it back. Raises ConflictError.
    """
    key = f"{OPS}.{_token(op_id)}"
    try:
        present = await records.get(key)
    except NotFoundError:
        return  # so long ago that it will not be repeated
    record = msgspec.json.decode(present.value, type=OpRecord)
    if record.upload == made and not record.removed:
        value = msgspec.json.encode(msgspec.structs.replace(record, removed=True))
        await records.put(key, value, expected=present.revision, ttl=OP_TTL)


async def was_removed(records: RecordStore, op_id: str) -> bool:
    """Whether what the request ``op_id`` made has been removed."""
    try:
        present = await records.get(f"{OPS}.{_token(op_id)}")
    except NotFoundError:
        return False
    return msgspec.json.decode(present.value, type=OpRecord).removed


def _token(op_id: str) -> str:
    """Any text as one key token."""
    return base64.urlsafe_b64encode(op_id.encode()).decode().rstrip("=")
