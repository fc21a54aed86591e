"""Decides what a collector may remove: by a listing, the roots that were read after it, and time.

Why that is safe is told in docs/decisions.md, "Space comes back without a lock". Every age is the
difference of two times by the clock that stamps the store's own messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from holdfast.domain.kept import LEAST_GAP_BYTES, joined, size_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable
    from datetime import datetime, timedelta

    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Ranges

REPACKED_BELOW: Final = 0.7
"""Of a pack of which a smaller part is needed that part alone is kept. With a half, a fifth of all
that is stored would be dead for good."""


class Need(NamedTuple):
    """A blob that is needed: its bytes in ``ranges``; None: all of them."""

    digest: Digest
    ranges: Ranges | None = None


NewsOf = Callable[[Sequence[bytes]], Awaitable[Sequence[bool]]]
"""Whether each of these keys is asked for the first time."""


YOUNG_SHARE: Final = 0.25
"""A blob younger than this share of the grace time is surely left alone for a while."""


class Reason(StrEnum):
    """Why a blob stays where it is."""

    PINNED = "pinned"
    YOUNG = "young"
    NEEDED = "needed"
    DAMAGED = "damaged"


def why_kept(
    *, pinned: bool, seen_at: datetime, listed_from: datetime, grace: timedelta
) -> Reason | None:
    """Why a listing alone keeps a blob; None: it goes unless a root needs it.

    The listing began at ``listed_from``, so a blob that counts as old was last put or touched more
    than ``grace`` before it, and a writer that counts on it has announced it since, or touches it.
    """
    if pinned:
        return Reason.PINNED
    return None if listed_from - seen_at > grace else Reason.YOUNG


def left_of(needed: Ranges, size: int) -> Ranges | None:
    """The ranges to keep of a blob with ``size`` stored bytes of which ``needed`` is needed.

    None: it is left as it is, for too much of it is needed. Empty: it goes, also an empty blob.
    """
    if not needed:
        return ()
    kept = joined(needed, gap=LEAST_GAP_BYTES)
    return kept if size_of(kept) < REPACKED_BELOW * size else None


def to_touch(
    needed: Iterable[Digest],
    *,
    vouched: Container[Digest],
    found: Container[Digest],
    young: Container[Digest],
) -> list[Digest]:
    """The blobs of ``needed`` to touch once the root that needs them is announced.

    All but those that the parent, read again and ``ok``, vouches for, and those that are ``young``:
    put less than a quarter of the grace time before the announcement. Blobs ``found`` by a put are
    touched although the parent has them, too.
    """
    return [one for one in needed if one not in young and (one not in vouched or one in found)]


class ClaimState(StrEnum):
    """The verdict of a claim on a copy that no record names, and that somebody wants to remove."""

    CLAIMED = "claimed"
    GOING = "going"
    REVOKED = "revoked"


class Standing(Enum):
    """The state of a copy that a record names."""

    WHOLE = "all there"
    CLAIMED = "all there once the claim is taken"
    GONE = "not all there, or being removed"


def standing(*, chunks: int, expected: int, claim: ClaimState | None) -> Standing:
    """The state of a copy with so many chunks ``expected``, and this claim at that moment.

    Once a claim is taken it is looked at anew: for there may have been another.
    """
    if chunks != expected or claim is ClaimState.GOING:
        return Standing.GONE
    return Standing.WHOLE if claim is None else Standing.CLAIMED


def is_abandoned(at: datetime, *, listed_from: datetime, grace: timedelta) -> bool:
    """Whether it pays to look for the record of a copy that was begun ``at`` that time.

    So it does to go on with a claim of then.
    """
    return listed_from - at > grace


def may_go(copy: str, *, named: Container[str], uploading: Container[str]) -> bool:
    """Whether a copy that was claimed goes.

    ``uploading`` are those that uploads name which may go on, and then ``named`` those of records.
    Both were read to their ends after the claim.
    """
    return copy not in named and copy not in uploading


class RootsNote(Struct, frozen=True, kw_only=True):
    """The state of a store of roots when all of them were read.

    ``created`` names its incarnation, ``last`` is the revision of its latest change. ``keys`` are
    those that never go away: a removed root leaves a note for good.
    """

    created: str
    last: int
    keys: int


def loss(noted: RootsNote | None, found: RootsNote) -> str | None:
    """The loss of a store of roots since it was ``noted``, in a sentence; None: nothing."""
    if noted is None:
        return None
    if found.created != noted.created:
        return "the bucket was made anew"
    if found.last < noted.last:
        return f"its last change was {noted.last} and is {found.last}"
    if found.keys < noted.keys:
        return f"it had {noted.keys} records and has {found.keys}"
    return None


def higher(noted: RootsNote | None, found: RootsNote) -> RootsNote:
    """The note to keep, of two of one incarnation: it only rises."""
    if noted is None or noted.created != found.created:
        return found
    return RootsNote(
        created=found.created, last=max(noted.last, found.last), keys=max(noted.keys, found.keys)
    )
