"""Snapshots that a policy does not keep are removed, by any worker, without a leader or a lock.

A run begins with a barrier: it writes the app's *fence*, ``g.<app>``. The store's time stamp of
that is the present. Each removal writes the fence once more, by compare-and-set, in one batch with
the removal of the record as it was listed. So a run ends where another begins, or where somebody
deletes a snapshot of the app: whatever was counted on is there when a snapshot is removed.

Why: docs/decisions.md, "Runs of a policy end where another begins".
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from holdfast.domain.names import SnapshotKey, check_labels, token
from holdfast.domain.retention import MAX_CLOCK_OFF, Dated, Fate, Retention, decide
from holdfast.errors import ConflictError, CorruptError, HoldfastError, NotFoundError
from holdfast.repository.ledger.ledger import Held, Ledger, RecordKind
from holdfast.repository.snapshots.record import SNAPSHOT, StoredSnapshot, snapshot_name
from holdfast.stores.record_ports import MAX_GET_MANY, Put

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from holdfast.repository.ledger.ops import Ops
    from holdfast.repository.snapshots.listing import SnapshotListing
    from holdfast.repository.snapshots.retention.policies import Policies, Policy
    from holdfast.repository.snapshots.retention.zones import TimeZones
    from holdfast.sources import Sources

REMOVED_PER_LOOK: Final = 16
"""Removals between two looks at what they count on."""

_LOOKS_AT_ONCE: Final = 16
_DRY: Final = "="
"""The name of the fence of runs that remove nothing."""

log = structlog.get_logger(__name__)


class FenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The last run of a policy over an app, or deletion of one of its snapshots."""

    run: str


FENCE: Final = RecordKind(noun="fence", form=FenceRecord, prefix="g")


def fence_against(app: str, new_id: str) -> Put:
    """The fence that ends all runs over ``app`` under way, in a batch with what they must not miss.

    ``new_id`` is a fresh one.
    """
    value = msgspec.json.encode(FenceRecord(run=new_id))
    return Put(key=FENCE.key(token(app)), value=value, expected=None)


@dataclass(kw_only=True)
class Pruned:
    """The fates of an app's snapshots, the newest first.

    ``removed`` are the ids of those that are gone, ``damaged`` those whose records cannot be read.
    ``stopped`` says why those that are not kept were not all removed.
    """

    app: str
    fates: Sequence[Fate] = ()
    removed: set[str] = field(default_factory=set)
    damaged: Sequence[SnapshotKey] = ()
    stopped: str | None = None


@dataclass(slots=True, kw_only=True)
class PruneTotals:
    """A worker's policies in sum: ``runs`` over an app, and snapshots ``removed``.

    ``failed`` are those that could not be carried out, or were stopped.
    """

    runs: int = 0
    failed: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class _Listed:
    """Records as they were listed, by their ids."""

    held: Mapping[str, Held[StoredSnapshot]]
    dated: Sequence[Dated]
    damaged: Sequence[SnapshotKey]


class Pruner:
    """Applies policies."""

    def __init__(
        self,
        ledger: Ledger,
        listing: SnapshotListing,
        ops: Ops,
        policies: Policies,
        zones: TimeZones,
        *,
        sources: Sources,
    ) -> None:
        """``ledger`` is that of the snapshots."""
        self._ledger = ledger
        self._listing = listing
        self._ops = ops
        self._policies = policies
        self._zones = zones
        self._sources = sources
        self.clock_off = timedelta(0)
        self.totals = PruneTotals()
        self.troubles: dict[str, str] = {}

    def advice(self) -> list[str]:
        """The last run's findings about this worker's clock."""
        return [_clock_told(self.clock_off)] if self.clock_off > MAX_CLOCK_OFF else []

    async def run(self) -> None:
        """Apply the policies there are to all apps. A failure with one stops no other."""
        troubles: dict[str, str] = {}
        for app in await self.apps():
            self.totals.runs += 1
            try:
                pruned = await self.prune(app)
            except HoldfastError as error:
                troubles[app] = error.detail
                log.warning("snapshots_not_pruned", app=app, code=error.code, detail=error.detail)
                continue
            self.totals.removed += len(pruned.removed)
            if pruned.stopped is not None:
                troubles[app] = pruned.stopped
                log.warning("snapshots_not_pruned", app=app, detail=pruned.stopped)
            if pruned.removed:
                log.info("snapshots_pruned", app=app, removed=len(pruned.removed))
        self.totals.failed += len(troubles)
        self.troubles = troubles

    async def all_apps(self) -> list[str]:
        """The apps that have, or had, a snapshot, in order."""
        return await self._listing.apps()

    async def apps(self) -> list[str]:
        """Those that a policy may hold for, in order."""
        if (await self._policies.of("")).keep is not None:
            return await self.all_apps()
        return sorted(await self._policies.apps())

    async def prune(
        self,
        app: str,
        keep: Retention | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        dry_run: bool = False,
        has_time: Callable[[], bool] = lambda: True,
    ) -> Pruned:
        """Remove what ``keep``, or else the policy of ``app``, does not keep.

        With ``labels`` only of the snapshots that have them. A dry run only says what it would do.
        Once there is no time any more nothing is begun.
        Raises InvalidError, CorruptError (of a policy).
        """
        check_labels(labels or {})
        if keep is not None:
            keep.check()
        policy = None
        try:
            if keep is None:
                policy = await self._policies.note_zones(await self._policies.of(app))
                keep = policy.keep
            if keep is None:
                return Pruned(app=app, stopped="there is no policy")
            zone = self._zones.find(keep.time_zone)
            fence, now = await self._begin(_DRY if dry_run else token(app))
        except ConflictError as error:
            return Pruned(app=app, stopped=error.detail)
        listed = await self._list(app)
        pruned = Pruned(
            app=app,
            fates=decide(listed.dated, keep, zone=zone, now=now, labels=labels),
            damaged=listed.damaged,
        )
        if self.clock_off > MAX_CLOCK_OFF:
            pruned.stopped = _clock_told(self.clock_off)
        elif not dry_run:
            await self._carry_out(pruned, listed, policy, fence, has_time)
        return pruned

    async def _begin(self, name: str) -> tuple[Held[FenceRecord], datetime]:
        """Write the barrier ``name``, which is the fence of an app; when that was.

        Raises ConflictError: another run has begun since.
        """
        run = FenceRecord(run=self._sources.new_id())
        before = self._sources.clock()
        fence = await self._ledger.make(FENCE, name, lambda _found: run)
        after = self._sources.clock()
        now = await self._ledger.written_at(fence)
        self.clock_off = max(before - now, now - after, timedelta(0))
        return fence, now

    async def _list(self, app: str) -> _Listed:
        """All snapshots of ``app``."""
        held: dict[str, Held[StoredSnapshot]] = {}
        dated: list[Dated] = []
        damaged: list[SnapshotKey] = []
        for keys in batched(await self._listing.of_app(app), MAX_GET_MANY):
            found, unreadable = await self._ledger.get_many(SNAPSHOT, [*map(snapshot_name, keys)])
            damaged += [key for key in keys if snapshot_name(key) in unreadable]
            for one in found.values():
                try:
                    dated.append(_dated(one.record))
                except ValueError:
                    damaged.append(one.record.key)
                else:
                    held[one.record.id] = one
        return _Listed(held, dated, damaged)

    async def _carry_out(
        self,
        pruned: Pruned,
        listed: _Listed,
        policy: Policy | None,
        fence: Held[FenceRecord],
        has_time: Callable[[], bool],
    ) -> None:
        """Remove snapshots that are not kept, the oldest first. ``policy`` has decided that."""
        superfluous = [fate for fate in reversed(pruned.fates) if not fate.kept]
        for some in batched(superfluous, REMOVED_PER_LOOK):
            if not has_time():
                pruned.stopped = "the time of the request is over"
                return
            pruned.stopped = await self._look(pruned.app, policy, some)
            if pruned.stopped is not None:
                return
            for fate in some:
                held = listed.held[fate.snapshot.id]
                await self._ops.note_removed(held.record.op_id, str(held.record.key))
                try:
                    fence = await self._ledger.remove_behind(held, fence)
                except ConflictError:
                    if (await self._ledger.reread(fence)).revision != fence.revision:
                        pruned.stopped = "another run has begun, or a snapshot was deleted"
                        return
                    log.info("snapshot_not_pruned", key=str(held.record.key))  # it has changed
                else:
                    pruned.removed.add(fate.snapshot.id)

    async def _look(self, app: str, policy: Policy | None, fates: Sequence[Fate]) -> str | None:
        """Why ``fates`` may not be carried out any more; None: they may."""
        if policy is not None and await self._policies.of(app) != policy:
            return "the policy has changed"
        counted_on = frozenset().union(*(fate.instead for fate in fates))
        for some in batched(sorted(counted_on), _LOOKS_AT_ONCE):
            found = await asyncio.gather(*(self._is_ok(SnapshotKey(app, one)) for one in some))
            if not all(found):
                return "a snapshot that others were to go for is not ok any more"
        return None

    async def _is_ok(self, key: SnapshotKey) -> bool:
        try:
            held = await self._ledger.get(SNAPSHOT, snapshot_name(key))
        except (NotFoundError, CorruptError):
            return False
        return held.record.state == "ok"


def _dated(record: StoredSnapshot) -> Dated:
    """Raises ValueError where its time is none."""
    at = datetime.fromisoformat(record.created_at)
    if at.tzinfo is None:
        raise ValueError("the time of a record says its zone")
    return Dated(
        id=record.id, at=at, labels=record.labels, state=record.state, held=record.hold is not None
    )


def _clock_told(off: timedelta) -> str:
    return (
        f"this worker's clock is {off.total_seconds():.0f} s off the store's: it removes no"
        " snapshots by a policy"
    )
