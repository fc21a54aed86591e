"""Keepers of blobs beside their pins, all of which are asked.

A family of records that needs blobs of users is a `Keeper`: a deletion of a blob asks all of them
after it has read the blob's record, and is told of what was announced before that.

Why: docs/decisions.md, "A deletion asks after it has read the record".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest


class Keeper(Protocol):
    """Records that name blobs. They are announced before their blobs are touched."""

    async def keeps(self, digest: Digest) -> bool:
        """Whether a record needs the blob, or may: also one that is being made, or unreadable.

        Raises UnavailableError.
        """

    async def kept_for(self, digest: Digest, limit: int) -> Sequence[str]:
        """Up to ``limit`` of what needs the blob, to be read by people. Raises UnavailableError."""


class Keepers:
    """All of them as one."""

    def __init__(self, keepers: Sequence[Keeper]) -> None:
        """In the order in which they are told of."""
        self._keepers = keepers

    async def keeps(self, digest: Digest) -> bool:
        """See Keeper."""
        for keeper in self._keepers:
            if await keeper.keeps(digest):
                return True
        return False

    async def kept_for(self, digest: Digest, limit: int) -> Sequence[str]:
        """See Keeper."""
        found: list[str] = []
        for keeper in self._keepers:
            if len(found) < limit:
                found += await keeper.kept_for(digest, limit - len(found))
        return found
