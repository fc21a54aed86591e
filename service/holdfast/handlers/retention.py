"""``snapshot.prune``, ``hold``, ``policy`` and ``set_policy``: requests to calls, and back."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.names import SnapshotKey, check_app
from holdfast.domain.retention import Retention
from holdfast.errors import InvalidError
from holdfast.handlers.endpoint import AnyEndpoint, Call, Endpoint
from holdfast.handlers.pages import cursor_of, cursor_text, fitting
from holdfast.handlers.snapshot_replies import snapshot_reply
from holdfast.protocol.retention import (
    GET_POLICY,
    HOLD_SNAPSHOT,
    PRUNE_SNAPSHOTS,
    SET_POLICY,
    GetPolicy,
    HoldSnapshot,
    KeepSnapshots,
    KeptSnapshots,
    PrunedSnapshot,
    PruneReport,
    PruneSnapshots,
    SetPolicy,
    SnapshotPolicy,
)
from holdfast.protocol.times import wire_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.protocol.snapshots import SnapshotRecord
    from holdfast.repository.snapshots.making import SnapshotLedger
    from holdfast.repository.snapshots.retention.policies import Policies, Policy
    from holdfast.repository.snapshots.retention.prune import Pruned, Pruner

MAX_ROWS: Final = 1000
"""Snapshots after which a page of several apps ends."""

MAX_TOLD: Final = 100
"""Damaged records, and apps with which it was stopped, that a page names."""


class RetentionHandlers:
    """Answers what is asked about keeping snapshots."""

    def __init__(
        self,
        snapshots: SnapshotLedger,
        policies: Policies,
        pruner: Pruner,
        *,
        max_inline_bytes: int,
    ) -> None:
        """``max_inline_bytes`` is what fits in one message."""
        self._snapshots = snapshots
        self._policies = policies
        self._pruner = pruner
        self._max_inline_bytes = max_inline_bytes

    async def prune(self, request: PruneSnapshots, call: Call) -> PruneReport:
        """``snapshot.prune``."""
        keep = _retention(request.keep)
        if keep is not None and keep.keeps_all:
            raise InvalidError("say what to keep, or leave `keep` out to go by the policy")
        await self._snapshots.ops.claim(call.op_id, f"pruned:{request.app or ''}")
        apps = await self._apps(request)
        done: list[Pruned] = []
        cursor = None
        for number, app in enumerate(apps, start=1):
            done.append(
                await self._pruner.prune(
                    app,
                    keep,
                    labels=request.labels,
                    dry_run=request.dry_run,
                    has_time=call.has_time,
                )
            )
            rows = sum(len(pruned.fates) for pruned in done)
            if number < len(apps) and (rows >= MAX_ROWS or not call.has_time()):
                cursor = cursor_of(app)
                break
        return _report(done, cursor, self._max_inline_bytes)

    async def _apps(self, request: PruneSnapshots) -> Sequence[str]:
        if request.app is not None:
            if request.cursor is not None:
                raise InvalidError("a cursor is for a request about all apps")
            return [request.app]
        apps = await (self._pruner.apps() if request.keep is None else self._pruner.all_apps())
        if request.cursor is None:
            return apps
        return apps[bisect_right(apps, check_app(cursor_text(request.cursor))) :]

    async def hold(self, request: HoldSnapshot, call: Call) -> SnapshotRecord:
        """``snapshot.hold``."""
        if request.reason and not request.hold:
            raise InvalidError("a reason is for a hold")
        key = SnapshotKey.parse(request.key)
        await self._snapshots.ops.claim(call.op_id, f"held:{key}")
        reason = request.reason if request.hold else None
        return snapshot_reply(await self._snapshots.hold(key, reason))

    async def policy(self, request: GetPolicy, _: Call) -> SnapshotPolicy:
        """``snapshot.policy``."""
        return _policy(request.app, await self._policies.of(request.app or ""))

    async def set_policy(self, request: SetPolicy, call: Call) -> SnapshotPolicy:
        """``snapshot.set_policy``."""
        await self._snapshots.ops.claim(call.op_id, f"policy:{request.app or ''}")
        changed = await self._policies.change(
            request.app or "", _retention(request.keep), expected=request.if_revision
        )
        return _policy(request.app, changed)

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """The operations and their methods."""
        return (
            Endpoint(PRUNE_SNAPSHOTS, self.prune),
            Endpoint(HOLD_SNAPSHOT, self.hold),
            Endpoint(GET_POLICY, self.policy),
            Endpoint(SET_POLICY, self.set_policy),
        )


def _retention(keep: KeepSnapshots | None) -> Retention | None:
    return None if keep is None else msgspec.convert(keep, Retention, from_attributes=True)


def _policy(app: str | None, policy: Policy) -> SnapshotPolicy:
    keep = policy.keep
    return SnapshotPolicy(
        app=app,
        keep=msgspec.convert(keep, KeptSnapshots, from_attributes=True) if keep else None,
        default=policy.is_default,
        revision=policy.revision,
    )


def _report(done: Sequence[Pruned], cursor: str | None, max_bytes: int) -> PruneReport:
    rows = [row for pruned in done for row in _rows(pruned)]
    damaged = [str(key) for pruned in done for key in pruned.damaged][:MAX_TOLD]
    stopped = [f"{one.app}: {one.stopped}" for one in done if one.stopped is not None][:MAX_TOLD]
    left = max_bytes - len(msgspec.json.encode([damaged, stopped]))
    superfluous = [row for row in rows if not row.kept]
    return PruneReport(
        snapshots=fitting([*superfluous, *(row for row in rows if row.kept)], left),
        kept=len(rows) - len(superfluous),
        superfluous=len(superfluous),
        removed=sum(len(pruned.removed) for pruned in done),
        damaged=damaged,
        stopped=stopped,
        cursor=cursor,
    )


def _rows(pruned: Pruned) -> list[PrunedSnapshot]:
    return [
        PrunedSnapshot(
            key=f"{pruned.app}:{fate.snapshot.id}",
            created_at=wire_time(fate.snapshot.at),
            kept=fate.kept,
            removed=fate.snapshot.id in pruned.removed,
            reasons=list(fate.reasons),
        )
        for fate in pruned.fates
    ]
