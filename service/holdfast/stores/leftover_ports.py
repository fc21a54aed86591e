"""What a store offers to whoever looks for bytes that are no blob's.

Writers that are killed leave them. Whoever removes some claims them first, looks for records that
name them after that, and ends the claim last: a writer that has made them a blob meanwhile, and
whoever counts on that blob, sees the claim, or that the bytes are gone. Where bytes and record are
not stored one after the other no claim is needed.

Every method may raise UnavailableError and OutcomeUnknownError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCopy:
    """Bytes that lie under one identifier: of a blob's copy, or of parts that are none yet.

    ``begun_at`` is when the first of them was written, by the store's clock. They are ``chunks``
    messages or files, of ``size`` bytes together at the most.
    """

    begun_at: datetime
    chunks: int
    size: int


class Leftovers(Protocol):
    """The copies in one store, whether or not a record names them."""

    async def copies(self, offset: int) -> Sequence[str]:
        """Some of the identifiers from place ``offset`` on; none at the end.

        Copies that come and go meanwhile move the others, so that one may be passed over.
        """

    async def look(self, copy: str) -> StoredCopy | None:
        """What lies there; None if nothing does."""

    def named(self, after: int) -> AsyncIterator[Sequence[str]]:
        """The copies that records name which were written after the revision ``after``.

        Up to the end at one moment after this was called, by the word of a leader that is believed.
        Records of other programs count. Raises CorruptError: one is unreadable.
        """

    async def claim(self, copy: str, by: str) -> None:
        """Tell all that the copy may go, in the name ``by``; others may claim it, too."""

    async def disclaim(self, copy: str, by: str) -> None:
        """Take the claim back. Those of others stay."""

    async def remove(self, copy: str) -> None:
        """Remove the copy, and then every claim of it. Repeatable."""
