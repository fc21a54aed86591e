"""The holder of a live record and its lease, which each of the holder's changes renews.

A lease ends for those who look (`holdfast.repository.ledger.lapses`), not for its holder, whose
clock nobody compares: it holds the record until it finds that another has changed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.repository.ledger.ledger import Held, Ledger

RENEWALS_PER_LEASE: Final = 4
"""Renewals by a record's holder within a lease: one that is late or lost ends no lease."""


class Lease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The holder of a live record. ``beat`` rises, so that others see that it works.

    ``owner`` is a worker's id, or empty when the client does the work.
    """

    owner: str
    seconds: float
    beat: int = 0

    def renewed(self) -> Lease:
        """The lease at its next beat."""
        return msgspec.structs.replace(self, beat=self.beat + 1)


class Carried[RecordT: msgspec.Struct]:
    """A live record that is carried on here for as long as it is still ours.

    It may change meanwhile, by writes of ours of which nothing was heard, and by others who are
    allowed to: that is no reason to stop.
    """

    def __init__(
        self,
        ledger: Ledger,
        held: Held[RecordT],
        check_ours: Callable[[RecordT], None],
        *,
        is_patient: bool = False,
    ) -> None:
        """``check_ours`` raises ConflictError of a record that is another's by now.

        ``is_patient`` as in `Ledger.update`: for work that took long, and has no deadline.
        """
        self._is_patient = is_patient
        self._ledger = ledger
        self._check_ours = check_ours
        self.held = held

    @property
    def record(self) -> RecordT:
        """The record as it was last seen."""
        return self.held.record

    async def renew(self, change: Callable[[RecordT], RecordT] = lambda record: record) -> None:
        """Begin the lease anew, with what ``change`` makes of the record; that may end it.

        Raises ConflictError when it is ours no more, and what `Ledger.update` does.
        """
        kind = self.held.kind

        def renewed(record: RecordT) -> RecordT:
            self._check_ours(record)
            changed = change(record)
            return kind.renewed(changed) if kind.is_live(changed) else changed

        self.held = await self._ledger.update(self.held, renewed, is_patient=self._is_patient)

    async def look(self) -> None:
        """See how the record is. Raises ConflictError when it has ended or is another's."""
        held = await self._ledger.reread(self.held)
        held.check_live()
        self._check_ours(held.record)
        self.held = held
