"""A snapshot that this client uploads: begun, kept alive, committed, or forgotten again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Never, TypeVar

from holdfast.deadline import first_to_end
from holdfast.errors import ConflictError, HoldfastError, NotFoundError
from holdfast.protocol.snapshots import (
    BEGIN_SNAPSHOT,
    COMMIT_SNAPSHOT,
    DELETE_SNAPSHOT,
    BeginSnapshot,
    CommitSnapshot,
    DeleteSnapshot,
    SnapshotRecord,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from typing import Any

    from holdfast.client.requests import Requester

T = TypeVar("T")

COMMIT_ATTEMPT_SECONDS: Final = 60.0
"""A worker looks at every pack that the snapshot needs, and touches old ones."""

COMMIT_SECONDS: Final = 300.0
_RENEWALS_PER_LEASE: Final = 3
_TIMEOUTS_PER_LEASE: Final = 2
_DEFAULT_LEASE_SECONDS: Final = 15.0
_FORGET_SECONDS: Final = 5.0
_COMMITS: Final = 3


class PendingSnapshot:
    """A pending snapshot of this client's. ``record`` is as it was begun."""

    def __init__(self, requester: Requester, record: SnapshotRecord) -> None:
        """Made by ``begin``."""
        self._requester = requester
        self.record = record

    @classmethod
    async def begin(
        cls, requester: Requester, app: str, labels: Mapping[str, str]
    ) -> PendingSnapshot:
        """Announce it. Raises InvalidError, UnavailableError, OutcomeUnknownError."""
        request = BeginSnapshot(app=app, labels=dict(labels))
        return cls(requester, await requester.ask(BEGIN_SNAPSHOT, request))

    async def keep_alive(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, the lease being renewed meanwhile.

        Raises what it raises; ConflictError or NotFoundError when the snapshot was given up or
        removed by somebody else, and ``work`` is then cancelled.
        """
        return await first_to_end(work, self._renew())

    async def _renew(self) -> Never:
        seconds = self.record.lease_seconds or _DEFAULT_LEASE_SECONDS
        while True:
            await asyncio.sleep(seconds / _RENEWALS_PER_LEASE)
            try:
                await self._requester.ask(
                    BEGIN_SNAPSHOT,
                    BeginSnapshot(key=self.record.key),
                    timeout_seconds=seconds / _TIMEOUTS_PER_LEASE,
                )
            except (ConflictError, NotFoundError):
                raise
            except HoldfastError:
                continue  # the next one may get through; in the end the pool gives it up

    async def commit(self, request: CommitSnapshot) -> SnapshotRecord:
        """The record: ``ok``, or still ``pending`` with what is ``missing``.

        Raises ConflictError, NotFoundError (given up or removed meanwhile), OutcomeUnknownError.
        """
        for left in reversed(range(_COMMITS)):
            try:
                return await self._requester.ask(
                    COMMIT_SNAPSHOT,
                    request,
                    timeout_seconds=COMMIT_SECONDS,
                    attempt_seconds=COMMIT_ATTEMPT_SECONDS,
                )
            except ConflictError:
                if not left:
                    raise
                # A renewal that was under way may have come between; a snapshot given up stays so.
                await self._requester.ask(BEGIN_SNAPSHOT, BeginSnapshot(key=self.record.key))
        raise AssertionError

    async def forget(self) -> None:
        """Remove it, if a worker can be told; else its lease ends it."""
        with suppress(HoldfastError):
            await self._requester.ask(
                DELETE_SNAPSHOT,
                DeleteSnapshot(key=self.record.key),
                timeout_seconds=_FORGET_SECONDS,
            )
