"""The record of a deployment, ``config`` in the records: what ``holdfast admin init`` decided.

Workers read it before they serve: a store in a form they do not know, or under other names than
they were told, is refused rather than filled with a second deployment's blobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import ConflictError, CorruptError, NotFoundError, UnavailableError

if TYPE_CHECKING:
    from holdfast.stores.ports import RecordStore

KEY: Final = "config"
FORMAT: Final = 1
GRACE_SECONDS: Final = 24 * 3600


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """``grace_seconds``: how long the collector leaves alone what nothing refers to."""

    blobs: str
    packs: str
    format: int = FORMAT
    grace_seconds: int = GRACE_SECONDS


async def write_deployment(records: RecordStore, wanted: Deployment) -> str:
    """Write the record unless it is there; a sentence about it.

    Raises ConflictError when another deployment is recorded.
    """
    try:
        await records.put(KEY, msgspec.json.encode(wanted), expected=0)
    except ConflictError:
        await check_deployment(records, wanted)
        return "found the deployment's record"
    return "wrote the deployment's record"


async def check_deployment(records: RecordStore, wanted: Deployment) -> None:
    """Whether the record fits. Raises UnavailableError with what to change, CorruptError."""
    try:
        record = await records.get(KEY)
        found = msgspec.json.decode(record.value, type=Deployment)
    except NotFoundError as error:
        msg = "the store is not set up; `holdfast admin init` does that"
        raise UnavailableError(msg) from error
    except msgspec.MsgspecError as error:
        msg = "the deployment's record is unreadable"
        raise CorruptError(msg) from error
    if found.format > FORMAT:
        msg = f"the store has format {found.format}, and this version knows {FORMAT}: upgrade it"
        raise UnavailableError(msg)
    if (found.blobs, found.packs) != (wanted.blobs, wanted.packs):
        msg = (
            f"the records here belong to the buckets {found.blobs} and {found.packs}, "
            f"not {wanted.blobs} and {wanted.packs}: change the store's URL or the prefix"
        )
        raise UnavailableError(msg)
