"""``o.<op>``: what an ``Op-Id`` stands for where the change makes up an id of its own.

A repeat of the request finds the id that the first one chose, for as long as the record lives.
Another request under the same ``Op-Id`` is a conflict (`holdfast.domain.op_id`).
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.op_id import is_repeat, join_op_id, split_op_id
from holdfast.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from holdfast.stores.ports import RecordStore

OPS: Final = "o"
OP_TTL: Final = timedelta(hours=24)


class OpRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which upload, snapshot or restore a repeated request has begun before.

    ``removed``: it was there, and is not to be made again. ``request`` is a digest of what was
    asked; older records have none.
    """

    upload: str
    removed: bool = False
    request: str = ""


async def claim_op(records: RecordStore, op_id: str, fresh: str) -> tuple[str, bool]:
    """The id that ``op_id`` stands for (``fresh`` if it is new), and whether it did before.

    Raises ConflictError when it was given to another request.
    """
    text, request = split_op_id(op_id)
    key = _key(op_id)
    value = msgspec.json.encode(OpRecord(upload=fresh, request=request))
    try:
        await records.put(key, value, expected=0, ttl=OP_TTL)
    except ConflictError:
        found = await records.get(key)
        record = msgspec.json.decode(found.value, type=OpRecord)
        return record.upload, is_repeat(join_op_id(text, record.request), op_id)
    return fresh, False


async def note_removed(records: RecordStore, op_id: str, made: str) -> None:
    """Note that ``made``, which the request ``op_id`` made, is about to be removed.

    To be called before it is, so that no repeat can bring it back. Raises ConflictError.
    """
    key = _key(op_id)
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
        present = await records.get(_key(op_id))
    except NotFoundError:
        return False
    return msgspec.json.decode(present.value, type=OpRecord).removed


def _key(op_id: str) -> str:
    """Where an ``Op-Id`` is kept, whatever the request: any text as one key token."""
    text, _ = split_op_id(op_id)
    return f"{OPS}.{base64.urlsafe_b64encode(text.encode()).decode().rstrip('=')}"
