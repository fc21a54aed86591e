"""A store's methods for finding bytes that are no blob's.

Writers that are killed leave them. A remover of some claims them first, then looks for records
that name them, and removes them if the claim is still there; it ends after that. A writer that has
made them a blob meanwhile, or counts on that blob, takes the claim, or sees that the bytes
are gone, or go. Where bytes and record are not stored one after the other no claim is needed.

Every method may raise UnavailableError and OutcomeUnknownError.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
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


@dataclass(frozen=True, slots=True)
class Naming:
    """Records that were met: the ``copies`` that they name, and their keys."""

    copies: Sequence[str] = ()
    records: Sequence[str] = ()


class Leftovers(Protocol):
    """The copies in one store, whether or not a record names them."""

    async def copies(self, offset: int) -> Sequence[str]:
        """Some of the identifiers from place ``offset`` on; none at the end.

        Copies that come and go meanwhile move the others, so that one may be passed over.
        """

    async def look(self, copy: str) -> StoredCopy | None:
        """The copy there; None if there is none."""

    async def counted(self) -> int:
        """The least number of records of blobs, by the word of a leader.

        A reader that met fewer, with those of what was removed, has read where some are lost.
        """

    def named(self, after: int) -> AsyncIterator[Naming]:
        """The copies that records name which were written after the revision ``after``.

        Up to the end at one moment after this was called, by the word of a leader that is believed.
        Records of other programs count. Raises CorruptError: one is unreadable.
        """

    async def claim(self, copy: str, *, abandoned: Callable[[datetime], bool]) -> str | None:
        """Tell all that the copy may go; the mark of the claim.

        None: another has claimed it, at a time that is not ``abandoned``; or was removing it, which
        is done to the end then.
        """

    async def release(self, copy: str, mark: str) -> None:
        """Take the claim back."""

    async def remove(self, copy: str, mark: str) -> bool:
        """Remove the copy, unless somebody has taken the claim since; whether it was.

        After an error the copy may be going: the next claimant removes it.
        """
