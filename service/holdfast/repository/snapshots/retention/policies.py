"""Retention of each app's snapshots: ``k.<app>``, and ``k.=`` for apps without one of their own.

They lie in the bucket ``snapshots``, and are never removed: one that was taken back says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.names import check_app, token, untoken
from holdfast.domain.retention import ZONE_OF_ALL, Retention
from holdfast.errors import ConflictError
from holdfast.repository.ledger.ledger import Held, Ledger, RecordKind

if TYPE_CHECKING:
    from holdfast.repository.snapshots.retention.zones import TimeZones

_DEFAULT: Final = "="
"""The name of the default: no app's token is so."""


class PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``app`` is empty for the default. Without ``keep`` there is none.

    ``zones`` is the latest version of the time zones that it was decided by.
    """

    app: str = ""
    keep: Retention | None = None
    zones: str = ""


def _name(app: str) -> str:
    return token(app) or _DEFAULT


POLICY: Final = RecordKind(
    noun="policy", form=PolicyRecord, prefix="k", name=lambda record: _name(record.app)
)


@dataclass(frozen=True, slots=True)
class Policy:
    """An app's policy: its own record, or the default. None: all is kept.

    ``revision`` is that of the app's own record, 0 where there never was one.
    """

    held: Held[PolicyRecord] | None
    revision: int

    @property
    def keep(self) -> Retention | None:
        """The retention; None: all is kept, and nothing was said."""
        return self.held.record.keep if self.held is not None else None

    @property
    def is_default(self) -> bool:
        """Whether it is that of all apps without one."""
        return self.held is not None and not self.held.record.app


class Policies:
    """The policies of one store."""

    def __init__(self, ledger: Ledger, zones: TimeZones) -> None:
        """``ledger`` is that of the snapshots."""
        self._ledger = ledger
        self._zones = zones

    async def of(self, app: str) -> Policy:
        """The policy of ``app`` at this moment. Empty: the default. Raises InvalidError."""
        own = held = await self._find(app)
        if app and (held is None or held.record.keep is None):
            held = await self._find("")
        if held is not None and held.record.keep is None:
            held = None
        return Policy(held, own.revision if own is not None else 0)

    async def apps(self) -> list[str]:
        """The apps that have, or had, a policy of their own."""
        names = [tail[0] for tail in await self._ledger.tails(POLICY.prefix) if len(tail) == 1]
        return [untoken(name) for name in names if name != _DEFAULT]

    async def change(self, app: str, keep: Retention | None, *, expected: int | None) -> Policy:
        """Make ``keep`` the policy of ``app``, or the default; None: it has none any more.

        ``expected`` is the revision of its record, if only that may be replaced. One that is as
        wanted stays. Raises ConflictError, InvalidError.
        """
        if keep is not None:
            keep.check()
            self._zones.find(keep.time_zone)
        present = await self._find(app)
        if present is not None and present.record.keep == keep:
            return await self.of(app)
        wanted = PolicyRecord(app=app, keep=keep, zones=self._zones.version)
        await self._ledger.replace(POLICY, _name(app), wanted, expected=expected)
        return await self.of(app)

    async def note_zones(self, policy: Policy) -> Policy:
        """The same, once its record says that it was decided by zones of this worker's version.

        Raises ConflictError where later ones were noted, or the policy has changed.
        """
        held = policy.held
        if held is None or policy.keep is None or policy.keep.time_zone == ZONE_OF_ALL:
            return policy
        if self._zones.is_older_than(held.record.zones):
            msg = (
                f"time zones of version {held.record.zones} are in use, and this worker has"
                f" {self._zones.version}: upgrade it"
            )
            raise ConflictError(msg)
        if held.record.zones == self._zones.version:
            return policy
        noted = msgspec.structs.replace(held.record, zones=self._zones.version)
        held = await self._ledger.take(held, lambda _: noted)
        return Policy(held, policy.revision if policy.is_default else held.revision)

    async def _find(self, app: str) -> Held[PolicyRecord] | None:
        if app:
            check_app(app)
        return await self._ledger.find(POLICY, _name(app))
