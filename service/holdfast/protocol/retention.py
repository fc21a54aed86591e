"""``snapshot.prune`` and what goes with it: which snapshots are kept, by policies and by holds."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, field

from holdfast.domain.retention import SPAN_PATTERN, ZONE_OF_ALL
from holdfast.protocol.message import (
    Reply,
    Request,
    ToldCount,
    WireCount,
    WireCursor,
    WireKey,
    WireTime,
)
from holdfast.protocol.operation import AnyOperation, Operation
from holdfast.protocol.snapshots import SnapshotRecord, WireApp, WireLabels

MAX_LABEL_SETS: Final = 64

WireKept = Annotated[int, Meta(ge=0, le=1_000_000)]
WireSpan = Annotated[
    str,
    Meta(
        pattern=f"^(?:|{SPAN_PATTERN})$(?!\n)",
        max_length=32,
        description="Years, months, days and hours: 1y2m3d4h.",
    ),
]
WireZone = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_+/-]+$(?!\n)",
        min_length=1,
        max_length=64,
        description="Name of a time zone, such as Europe/Berlin.",
    ),
]
WireReason = Annotated[
    str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*$(?!\n)")
]


class KeepSnapshots(Request, frozen=True, kw_only=True):
    """The snapshots of an app to keep, if ``ok``; all of them, where nothing is stated.

    The last so many, and the newest of each of the last so many hours, days, ISO weeks, months and
    years that have one, by the clocks of ``time_zone``; while these are fewer, the oldest too.
    Those younger than ``within``, counted from the newest. Those with all labels of one set.
    """

    last: WireKept = 0
    hourly: WireKept = 0
    daily: WireKept = 0
    weekly: WireKept = 0
    monthly: WireKept = 0
    yearly: WireKept = 0
    within: WireSpan = ""
    labels: Annotated[list[WireLabels], Meta(max_length=MAX_LABEL_SETS)] = field(
        default_factory=list
    )
    time_zone: WireZone = ZONE_OF_ALL


class KeptSnapshots(Reply, frozen=True, kw_only=True):
    """The snapshots a policy keeps: see ``KeepSnapshots``."""

    last: ToldCount = 0
    hourly: ToldCount = 0
    daily: ToldCount = 0
    weekly: ToldCount = 0
    monthly: ToldCount = 0
    yearly: ToldCount = 0
    within: str = ""
    labels: list[dict[str, str]] = field(default_factory=list)
    time_zone: str = ZONE_OF_ALL


class PruneSnapshots(Request, frozen=True, kw_only=True):
    """Forget the snapshots that ``keep``, or without it the policy, does not keep.

    Those of ``app``, or of each app; with ``labels`` only those that have them all. The newest of
    an app stays, and what is held. ``dry_run`` only says what would be done. ``cursor`` goes on
    behind the app where another page ended.
    """

    app: WireApp | None = None
    labels: WireLabels = field(default_factory=dict)
    keep: KeepSnapshots | None = None
    dry_run: bool = False
    cursor: WireCursor | None = None


class PrunedSnapshot(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A snapshot, whether it is kept, and why. ``removed``: it is gone."""

    key: WireKey
    created_at: WireTime
    kept: bool
    removed: bool
    reasons: list[str]


class PruneReport(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The outcome of a prune, or of a dry run.

    ``snapshots`` are the first of ``kept`` and ``superfluous``, those not kept in front, the newest
    first. ``removed`` counts those that are gone. ``damaged`` cannot be read, and stay. ``stopped``
    says of apps why not all that is superfluous was removed: ask again. ``cursor`` is there while
    apps may follow.
    """

    snapshots: list[PrunedSnapshot]
    kept: ToldCount
    superfluous: ToldCount
    removed: ToldCount
    damaged: list[WireKey] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    cursor: WireCursor | None = None


class HoldSnapshot(Request, frozen=True, kw_only=True):
    """Keep a snapshot from all policies, or (``hold`` false) do so no more."""

    key: WireKey
    hold: bool = True
    reason: WireReason = ""


class GetPolicy(Request, frozen=True, kw_only=True):
    """The policy that holds for ``app``; without it that of all apps without one of their own."""

    app: WireApp | None = None


class SetPolicy(Request, frozen=True, kw_only=True):
    """Change the policy of ``app``, or that of all apps without one; without ``keep`` it has none.

    Only while its record is at ``if_revision``, where that is said.
    """

    app: WireApp | None = None
    keep: KeepSnapshots | None = None
    if_revision: WireCount | None = None


class SnapshotPolicy(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The policy of an app; without ``keep`` there is none, and nothing is removed.

    ``default``: it is that of all apps without one of their own. ``revision`` is that of the app's
    own record: 0 where there never was one.
    """

    app: str | None
    keep: KeptSnapshots | None
    default: bool
    revision: ToldCount


PRUNE_SNAPSHOTS: Final = Operation(
    "snapshot.prune",
    PruneSnapshots,
    PruneReport,
    "Forget what a policy does not keep.",
    mutates=True,
)
HOLD_SNAPSHOT: Final = Operation(
    "snapshot.hold", HoldSnapshot, SnapshotRecord, "Keep a snapshot from policies.", mutates=True
)
GET_POLICY: Final = Operation(
    "snapshot.policy", GetPolicy, SnapshotPolicy, "The policy of an app's snapshots."
)
SET_POLICY: Final = Operation(
    "snapshot.set_policy",
    SetPolicy,
    SnapshotPolicy,
    "Change what is kept of an app's snapshots.",
    mutates=True,
)

RETENTION_OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    PRUNE_SNAPSHOTS,
    HOLD_SNAPSHOT,
    GET_POLICY,
    SET_POLICY,
)
