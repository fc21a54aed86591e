"""``once.<link>``: the first use of a single-use link, by compare-and-set.

One of several first requests is served. A download that was cut off goes on by ranges, for an hour
from the first request on; the record outlives the link.

Why: docs/decisions.md, "One use is a download with all its ranges".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.op_id import is_repeat
from holdfast.domain.sigv4 import MAX_LINK_SECONDS
from holdfast.errors import ForbiddenError
from holdfast.repository.ledger.ledger import Ledger, RecordKind

if TYPE_CHECKING:
    from holdfast.stores.record_ports import RecordStore

RANGES_FOR: Final = timedelta(hours=1)
USE_TTL: Final = timedelta(seconds=MAX_LINK_SECONDS) + RANGES_FOR


class LinkUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``first_at`` is when the link was used first, by the request ``op_id``."""

    first_at: str
    op_id: str | None = None


LINK_USE: Final = RecordKind(
    noun="use of the link", form=LinkUse, prefix="once", ttl=lambda _record: USE_TTL
)


class LinkUses:
    """The single-use links that were used."""

    def __init__(self, records: RecordStore) -> None:
        """The store of their records."""
        self._ledger = Ledger(records)

    async def use(self, link: str, *, ranged: bool, op_id: str | None, now: datetime) -> datetime:
        """When the link was used first, which is now unless it was before.

        A repeat with the ``op_id`` of the first use is that again. Raises ForbiddenError (it was
        used: not ``ranged``, or for too long), UnavailableError, OutcomeUnknownError.
        """
        use = partial(_used, LinkUse(first_at=now.isoformat(), op_id=op_id), ranged, now)
        held = await self._ledger.make(LINK_USE, link, use)
        return datetime.fromisoformat(held.record.first_at)


def _used(first: LinkUse, ranged: bool, now: datetime, before: LinkUse | None) -> LinkUse:  # noqa: FBT001
    """The record of a link that is used now. Raises ForbiddenError."""
    if before is None:
        return first
    if is_repeat(before.op_id, first.op_id):
        return before
    if not ranged or now - datetime.fromisoformat(before.first_at) > RANGES_FOR:
        raise ForbiddenError("the link was for one use, and was used")
    return before
