"""Pending snapshots and restores that nobody works on any more become failures."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import OutcomeUnknownError
from holdfast.repository.ledger.lapses import Watched
from holdfast.repository.snapshots.record import RESTORE, SNAPSHOT, StoredT, failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from holdfast.repository.ledger.ledger import Held, Ledger

WORKER_STOPPED: Final = "its worker stopped"
CLIENT_STOPPED: Final = "the client stopped"


def watched_snapshots(
    ledger: Ledger, *, clock: Callable[[], datetime], is_ours: Callable[[str], bool]
) -> list[Watched[Any]]:
    """``is_ours`` says of a record's key whether a job of this worker makes what it is of."""

    async def give_up(held: Held[StoredT]) -> None:
        await ledger.take(held, partial(_given_up, clock()))

    return [
        Watched(
            kind=kind,
            lease_seconds=lambda record: record.lease.seconds,
            is_ours=lambda held: is_ours(held.key),
            give_up=give_up,
        )
        for kind in (SNAPSHOT, RESTORE)
    ]


def _given_up(now: datetime, record: StoredT) -> StoredT:
    reason = WORKER_STOPPED if record.lease.owner else CLIENT_STOPPED
    return failed(record, OutcomeUnknownError.code, reason, now)
