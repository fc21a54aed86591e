"""``scrub.<place>``: the progress of the scrub from one place, and its findings.

A place is a nats-server, to which workers are connected: what they read is answered by it, or by
those that it knows of. Stores on a disk or in memory are one place. A lap goes over everything, and
one that has mended something is followed by another at once: there may be more of it.

Why: docs/decisions.md, "Progress of the scrub is one record, with a lease".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

from holdfast.domain.names import token
from holdfast.repository.ledger.lease import Lease
from holdfast.repository.ledger.ledger import RecordKind

ONE_PLACE: Final = "store"
"""The name of the place where no nats-server is read, or one without a name of its own."""

MAX_TOLD: Final = 20
"""Damages of a lap that are told one by one; the rest are only counted."""

KEPT: Final = timedelta(days=180)
"""The record of a place stays for so long after it was last written."""


class Damage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that could not be read back: a blob of the store ``space``, or records of it."""

    space: str
    name: str
    detail: str
    healed: bool = False


class Lap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of what a lap read and found damaged. Times are by the store's clock.

    ``damaged`` are blobs, of which ``healed`` were put anew from another copy; ``unreadable`` are
    records that cannot be read, or are lost.
    """

    began_at: datetime
    ended_at: datetime | None = None
    checked: int = 0
    bytes: int = 0
    damaged: int = 0
    healed: int = 0
    unreadable: int = 0
    told: tuple[Damage, ...] = ()


class ScrubRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``lap`` is under way at ``stage``, where it goes on at ``cursor``; ``last`` has ended.

    A stage that follows the order of writing reads the blobs up to ``until``, the last change when
    it began. In the stage of logs ``cursor`` is the key of a record and the command to go on with.
    ``wanted``: another lap is to follow.
    """

    place: str
    lease: Lease
    stage: int = 0
    cursor: str | None = None
    until: int = 0
    lap: Lap | None = None
    last: Lap | None = None
    wanted: bool = False


def is_due(record: ScrubRecord, now: datetime, every: timedelta) -> bool:
    """Whether there is something to do: a lap to carry on, or to begin."""
    if record.lap is not None or record.wanted or record.last is None:
        return True
    return now - record.last.began_at >= every


def taken(record: ScrubRecord, lease: Lease, now: datetime) -> ScrubRecord:
    """The record as its new holder has it: the lap that is under way, or one that begins."""
    if record.lap is not None:
        return msgspec.structs.replace(record, lease=lease)
    return msgspec.structs.replace(
        record, lease=lease, stage=0, cursor=None, until=0, lap=Lap(began_at=now), wanted=False
    )


def ended(record: ScrubRecord, at: datetime) -> ScrubRecord:
    """The record once its lap has been all the way."""
    if record.lap is None:
        return record
    last = msgspec.structs.replace(record.lap, ended_at=at)
    wanted = record.wanted or last.healed > 0
    return msgspec.structs.replace(record, stage=0, cursor=None, lap=None, last=last, wanted=wanted)


SCRUB: Final = RecordKind(
    noun="scrub",
    form=ScrubRecord,
    prefix="scrub",
    renewed=lambda record: msgspec.structs.replace(record, lease=record.lease.renewed()),
    name=lambda record: token(record.place),
    ttl=lambda _record: KEPT,
)
