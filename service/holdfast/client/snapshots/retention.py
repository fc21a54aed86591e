"""``client.retention``: which snapshots are kept, by policies and by holds.

async with await holdfast.connect() as hf:
    await hf.retention.set_policy(KeepSnapshots(daily=7, weekly=4), app="blog")
    report = await hf.retention.prune("blog", dry_run=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.client.long_requests import ask_long
from holdfast.client.pages import pages
from holdfast.protocol.retention import (
    GET_POLICY,
    HOLD_SNAPSHOT,
    PRUNE_SNAPSHOTS,
    SET_POLICY,
    GetPolicy,
    HoldSnapshot,
    KeepSnapshots,
    PruneReport,
    PruneSnapshots,
    SetPolicy,
    SnapshotPolicy,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from holdfast.client.requests import Requester
    from holdfast.protocol.snapshots import SnapshotRecord

_PRUNE_SECONDS: Final = 300.0


class SnapshotRetention:
    """The verbs about how long snapshots are kept. A ``key`` is a record's.

    Besides what a method names, all raise InvalidError, ForbiddenError, RateLimitedError and
    UnavailableError; those that change something also OutcomeUnknownError.
    """

    def __init__(self, requester: Requester) -> None:
        """Made by the client."""
        self._requester = requester

    async def prune(
        self,
        app: str,
        keep: KeepSnapshots | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> PruneReport:
        """Forget the snapshots of ``app`` that ``keep``, or without it its policy, does not keep.

        With ``labels`` only of those that have them. ``dry_run`` only says what would be done. Its
        ``stopped`` says why not all that is superfluous was removed.
        """
        request = PruneSnapshots(app=app, keep=keep, labels=dict(labels or {}), dry_run=dry_run)
        return await ask_long(self._requester, PRUNE_SNAPSHOTS, request, _PRUNE_SECONDS)

    def prune_all(
        self,
        keep: KeepSnapshots | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> AsyncGenerator[PruneReport]:
        """As ``prune``, of each app; a report for some of them at a time."""
        request = PruneSnapshots(keep=keep, labels=dict(labels or {}), dry_run=dry_run)
        return pages(self._requester, PRUNE_SNAPSHOTS, request, seconds=_PRUNE_SECONDS)

    async def hold(self, key: str, reason: str = "") -> SnapshotRecord:
        """Keep a snapshot from all policies. Raises NotFoundError, ConflictError."""
        return await self._requester.ask(HOLD_SNAPSHOT, HoldSnapshot(key=key, reason=reason))

    async def release(self, key: str) -> SnapshotRecord:
        """Let policies decide about a snapshot again. Raises NotFoundError, ConflictError."""
        return await self._requester.ask(HOLD_SNAPSHOT, HoldSnapshot(key=key, hold=False))

    async def policy(self, app: str | None = None) -> SnapshotPolicy:
        """The policy of ``app``, or of all apps without one of their own."""
        return await self._requester.ask(GET_POLICY, GetPolicy(app=app))

    async def set_policy(
        self,
        keep: KeepSnapshots | None,
        *,
        app: str | None = None,
        if_revision: int | None = None,
    ) -> SnapshotPolicy:
        """Make ``keep`` the policy of ``app``, or of all apps without one; None: it has none.

        With ``if_revision`` only while its record has that revision. Raises ConflictError.
        """
        request = SetPolicy(app=app, keep=keep, if_revision=if_revision)
        return await self._requester.ask(SET_POLICY, request)
