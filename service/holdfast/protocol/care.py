"""``blob.scrub``: how far everything has been read back, and what was found damaged."""

from __future__ import annotations

from typing import Final

from msgspec import field

from holdfast.protocol.message import Reply, Request, ToldCount, ToldSize, WireTime
from holdfast.protocol.operation import AnyOperation, Operation


class GetScrub(Request, frozen=True, kw_only=True):
    """How far the scrub has come. With ``start`` another lap begins, or follows the present one."""

    start: bool = False


class ScrubDamage(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """What could not be read back: a blob of ``space``, by its digest, or records.

    ``name`` is the key of a record, and empty where records are lost. ``healed``: the blob was put
    anew from another copy.
    """

    space: str
    name: str
    detail: str
    healed: bool


class ScrubLap(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """One way over everything. Blobs were ``checked``, of so many ``bytes``.

    ``damaged`` are blobs, of which ``healed`` were put anew; ``unreadable`` are records that cannot
    be read, or the times that some were lost. ``found`` are the first few of them.
    """

    began_at: WireTime
    ended_at: WireTime | None
    checked: ToldCount
    bytes: ToldSize
    damaged: ToldCount
    healed: ToldCount
    unreadable: ToldCount
    found: list[ScrubDamage]


class ScrubPlace(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A nats-server whose copies are read, by the workers that are connected to it.

    Of a store on a disk or in memory there is one place. ``lap`` is under way, carried on by
    ``worker``; ``last`` has ended. ``wanted``: another lap was asked for, and has not begun.
    """

    place: str
    worker: str
    wanted: bool
    lap: ScrubLap | None
    last: ScrubLap | None


class ScrubStatus(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """All places; ``here`` is that of the worker that answers. A lap begins ``every_seconds``."""

    here: str
    every_seconds: float
    places: list[ScrubPlace] = field(default_factory=list)


SCRUB_BLOBS: Final = Operation(
    "blob.scrub", GetScrub, ScrubStatus, "How far everything was read back, and what was damaged."
)

CARE_OPERATIONS: Final[tuple[AnyOperation, ...]] = (SCRUB_BLOBS,)
