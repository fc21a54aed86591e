"""The record of a deployment, ``config`` in the records: what ``holdfast admin init`` decided.

Workers read it before they serve: a store in a form they do not know, or under other names than
they were told, is refused rather than filled with a second deployment's blobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.jetstream.readiness import NotReadyError

if TYPE_CHECKING:
    from holdfast.stores.record_ports import RecordStore

KEY: Final = "config"
FORMAT: Final = 1
GRACE_SECONDS: Final = 24 * 3600


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the buckets, and ``grace_seconds``: for how long what nothing refers to stays.

    ``snapshots`` and ``names`` are empty in a record from before there were such buckets.
    """

    blobs: str
    packs: str
    snapshots: str = ""
    names: str = ""
    format: int = FORMAT
    grace_seconds: int = GRACE_SECONDS


async def write_deployment(records: RecordStore, wanted: Deployment) -> str:
    """Write the record unless it is there, and complete one from before; a sentence about it.

    Raises ConflictError when somebody else changes it at the same time, UnavailableError when
    another deployment is recorded, NotReadyError: it may be repeated.
    """
    try:
        await _put(records, wanted, 0)
    except ConflictError:
        found, revision = await _read(records)
        _check(found, wanted)
        missing = _missing(found, wanted)
        if not missing:
            return "found the deployment's record"
        await _put(records, msgspec.structs.replace(found, **missing), revision)
        return f"added to the deployment's record: {', '.join(missing.values())}"
    return "wrote the deployment's record"


async def _put(records: RecordStore, deployment: Deployment, expected: int) -> None:
    try:
        await records.put(KEY, msgspec.json.encode(deployment), expected=expected)
    except (UnavailableError, OutcomeUnknownError) as error:
        raise NotReadyError(error.detail) from error


async def check_deployment(records: RecordStore, wanted: Deployment) -> Deployment:
    """What is recorded, which fits and is complete.

    Raises UnavailableError with what to change, NotReadyError, CorruptError.
    """
    found = await find_deployment(records, wanted)
    missing = _missing(found, wanted)
    if missing:
        msg = (
            f"the store is of an older version and lacks {', '.join(missing.values())};"
            " `holdfast admin upgrade` adds what is missing"
        )
        raise UnavailableError(msg)
    return found


async def find_deployment(records: RecordStore, wanted: Deployment) -> Deployment:
    """What is recorded, which fits as far as it goes.

    Raises UnavailableError with what to change, NotReadyError, CorruptError.
    """
    found, _ = await _read(records)
    _check(found, wanted)
    return found


async def _read(records: RecordStore) -> tuple[Deployment, int]:
    try:
        record = await records.get(KEY)
        return msgspec.json.decode(record.value, type=Deployment), record.revision
    except NotFoundError as error:
        msg = "the store is not set up; `holdfast admin init` does that"
        raise UnavailableError(msg) from error
    except UnavailableError as error:
        raise NotReadyError(error.detail) from error
    except msgspec.MsgspecError as error:
        msg = "the deployment's record is unreadable"
        raise CorruptError(msg) from error


def _check(found: Deployment, wanted: Deployment) -> None:
    if found.format > FORMAT:
        msg = f"the store has format {found.format}, and this version knows {FORMAT}: upgrade it"
        raise UnavailableError(msg)
    there, needed = _buckets(found), _buckets(wanted)
    if there | _missing(found, wanted) != needed:
        msg = (
            f"the records here belong to the buckets {', '.join(there.values())},"
            f" not {', '.join(needed.values())}: change the store's URL or the prefix"
        )
        raise UnavailableError(msg)


def _missing(found: Deployment, wanted: Deployment) -> dict[str, str]:
    """The buckets, by the names of their fields, that ``found`` does not have yet."""
    there = _buckets(found)
    return {field: name for field, name in _buckets(wanted).items() if field not in there}


def _buckets(deployment: Deployment) -> dict[str, str]:
    """Those that are recorded, by the names of their fields."""
    fields = ("blobs", "packs", "snapshots", "names")
    return {field: name for field in fields if (name := getattr(deployment, field))}
