"""``blob.scrub``, ``blob.doctor``, ``blob.usage``: the state of what is stored, and whose it is."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, field

from holdfast.protocol.message import Reply, Request, ToldCount, ToldSize, WireLimit, WireTime
from holdfast.protocol.operation import AnyOperation, Operation


class GetScrub(Request, frozen=True, kw_only=True):
    """The progress of the scrub. With ``start`` another lap begins, or follows the present one."""

    start: bool = False


class ScrubDamage(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A blob of ``space``, by its digest, or records that could not be read back.

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
    """A nats-server from which workers that are connected to it read everything back.

    A store on a disk or in memory is one place. ``lap`` is under way, carried on by
    ``worker``; ``last`` has ended. ``wanted``: another lap is to follow, and has not begun.
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


class GetDoctor(Request, frozen=True, kw_only=True):
    """The findings about the deployment. They are made anew at most once a minute."""


class DoctorFinding(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """``text`` says what is so, ``advice`` what to do. ``kind`` is a word for programs.

    An ``error`` loses data, has lost some, or keeps something from working; a ``warning`` may come
    to that; a ``note`` is worth knowing. There may be kinds that a client does not know.
    """

    kind: str
    severity: Literal["error", "warning", "note"]
    text: str
    advice: str


class DoctorReport(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The worst first. Unless it is ``done`` the worker is still looking: ask again."""

    done: bool
    findings: list[DoctorFinding] = field(default_factory=list)


class GetUsage(Request, frozen=True, kw_only=True):
    """The bytes that each ``app``, prefix of names, or label takes, of those that take the most.

    By ``prefix`` the names that begin with ``prefix`` are put together by their first ``depth``
    pieces between ``delimiter``.
    """

    by: Literal["app", "prefix", "label"] = "app"
    prefix: Annotated[str, Meta(max_length=512)] = ""
    delimiter: Annotated[str, Meta(min_length=1, max_length=8)] = "/"
    depth: Annotated[int, Meta(ge=1, le=64)] = 1
    limit: WireLimit = 100


class UsageRow(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The usage of one ``group``: its snapshots, or names and their versions, are ``items``.

    ``logical``: their bytes as they are read. ``stored``: bytes of the blobs or packs that they
    need, each counted once. ``shared``: of these, those that another group needs, too; the rest
    comes back once the group is deleted.
    """

    group: str
    items: ToldCount
    logical: ToldSize
    stored: ToldSize
    shared: ToldSize


class UsageSpace(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """All bytes of one space. ``reclaimable`` are those that a collection would remove now.

    It is None where nothing is collected, or something could not be read.
    """

    space: Literal["blobs", "packs"]
    blobs: ToldCount
    stored: ToldSize
    reclaimable: ToldSize | None


class UsageReply(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """Rows, of ``groups`` in all. Unless it is ``done`` the worker is still counting: ask again."""

    done: bool
    measured_at: WireTime | None = None
    spaces: list[UsageSpace] = field(default_factory=list)
    groups: ToldCount = 0
    rows: list[UsageRow] = field(default_factory=list)


SCRUB_STATUS: Final = Operation(
    "blob.scrub", GetScrub, ScrubStatus, "The progress of the scrub, and the damage found."
)

DIAGNOSE: Final = Operation(
    "blob.doctor", GetDoctor, DoctorReport, "The findings about the deployment, with remedies."
)
GET_USAGE: Final = Operation(
    "blob.usage", GetUsage, UsageReply, "The bytes by app, prefix of names or label."
)

CARE_OPERATIONS: Final[tuple[AnyOperation, ...]] = (SCRUB_STATUS, DIAGNOSE, GET_USAGE)
