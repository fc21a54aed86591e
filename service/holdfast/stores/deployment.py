"""The record of a deployment, ``config`` in the records, as ``holdfast admin init`` decided.

Workers read it before they serve: a store in a form they do not know, or under other names than
they were told, is refused rather than filled with a second deployment's blobs.

Why: docs/decisions.md, "Collection waits for the last older worker".
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime  # at run time too: msgspec decodes by the annotations
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.collection import RootsNote, higher
from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.stores.jetstream.buckets.readiness import NotReadyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.stores.record_ports import RecordStore

KEY: Final = "config"
FORMAT: Final = 2
"""The format this version writes if no older one is at work: its collector is on."""

OLD_FORMAT: Final = 1
GRACE_SECONDS: Final = 24 * 3600
_ATTEMPTS: Final = 16


class UnfitError(UnavailableError):
    """The record is of another deployment, or of a form that this version does not know."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the buckets, and ``grace_seconds``: for how long unneeded blobs stay.

    ``snapshots``, ``names`` and ``states`` are empty in a record from before there were such
    buckets.
    ``collects_from`` is a time by the clocks of the servers before which nothing is collected, and
    ``roots`` has how far each store of roots had come when a collector read all of it.
    """

    blobs: str
    packs: str
    snapshots: str = ""
    names: str = ""
    states: str = ""
    format: int = OLD_FORMAT
    grace_seconds: int = GRACE_SECONDS
    collects_from: datetime | None = None
    roots: dict[str, RootsNote] = {}


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
    """The deployment's record, which fits and is complete.

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
    """The deployment's record, which fits as far as it goes.

    Raises UnfitError and UnavailableError with what to change, NotReadyError, CorruptError.
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
        raise CorruptError("the deployment's record is unreadable") from error


def _check(found: Deployment, wanted: Deployment) -> None:
    if found.format not in {OLD_FORMAT, FORMAT}:
        msg = f"the store has format {found.format}, and this version knows {FORMAT}: upgrade it"
        raise UnfitError(msg)
    there, needed = _buckets(found), _buckets(wanted)
    if there | _missing(found, wanted) != needed:
        msg = (
            f"the records here belong to the buckets {', '.join(there.values())},"
            f" not {', '.join(needed.values())}: change the store's URL or the prefix"
        )
        raise UnfitError(msg)


def _missing(found: Deployment, wanted: Deployment) -> dict[str, str]:
    """The buckets, by the names of their fields, that ``found`` does not have yet."""
    there = _buckets(found)
    return {field: name for field, name in _buckets(wanted).items() if field not in there}


def _buckets(deployment: Deployment) -> dict[str, str]:
    """Those that are recorded, by the names of their fields."""
    fields = ("blobs", "packs", "snapshots", "names", "states")
    return {field: name for field in fields if (name := getattr(deployment, field))}


async def raise_format(records: RecordStore, collects_from: datetime) -> bool:
    """Let collectors begin, at that time by the servers' clocks; whether they could not before.

    Only once no worker of an older version is left. Raises UnavailableError, CorruptError,
    OutcomeUnknownError.
    """

    def change(found: Deployment) -> Deployment:
        if found.format == FORMAT:
            return found
        return msgspec.structs.replace(found, format=FORMAT, collects_from=collects_from)

    return (await _change(records, change)).format != FORMAT


async def accept_loss(records: RecordStore) -> list[str]:
    """Forget how far the roots had come, so that losses are not missed any more; of which stores.

    Raises UnavailableError, CorruptError, OutcomeUnknownError.
    """

    def change(found: Deployment) -> Deployment:
        return msgspec.structs.replace(found, roots={}) if found.roots else found

    return list((await _change(records, change)).roots)


async def read_deployment(records: RecordStore) -> Deployment:
    """The deployment's record. Raises UnavailableError with what to change, CorruptError."""
    return (await _read(records))[0]


async def note_roots(records: RecordStore, source: str, found: RootsNote) -> None:
    """Note how far the roots of ``source`` have come, at least.

    Raises UnavailableError, CorruptError, OutcomeUnknownError.
    """

    def change(deployment: Deployment) -> Deployment:
        noted = deployment.roots.get(source)
        note = higher(noted, found)
        if note == noted:
            return deployment
        return msgspec.structs.replace(deployment, roots={**deployment.roots, source: note})

    await _change(records, change)


async def _change(records: RecordStore, change: Callable[[Deployment], Deployment]) -> Deployment:
    """Write the record as ``change`` makes it, unless that is the same; what it was before."""
    for _ in range(_ATTEMPTS):
        found, revision = await _read(records)
        changed = change(found)
        if changed is found:
            return found
        with suppress(ConflictError):
            await records.put(KEY, msgspec.json.encode(changed), expected=revision)
            return found
    raise UnavailableError("the deployment's record keeps changing")
