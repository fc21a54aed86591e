"""The place of the one chunk of a small blob, remembered for a moment.

With it a read costs one request instead of two. It is a hint: a read at a remembered place
compares the subject and the digest of what is there, and asks for the record if anything is odd.
So bytes are never wrong; but a blob that another worker deletes is served until its chunk is gone
(one that is kept has it moved), and where that cannot be moved or removed for as long as the place
is remembered. Nothing else is decided by it: whether a blob is there already, the leader says.

Why: docs/decisions.md, "Where a small blob lies is remembered for four seconds".
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.domain.digest import Digest
    from holdfast.stores.ports import BlobInfo

REMEMBERED_SECONDS: Final = 4.0
"""Seconds since the record was asked for, however often the place is used meanwhile."""

MAX_REMEMBERED: Final = 16_384
"""Places of one store: some 16 MiB."""

_LATELY: Final = 8
_LOOK_FROM: Final = 0.2


def has_place(info: BlobInfo) -> bool:
    """Whether the place of the blob may be remembered: it is whole, and one chunk."""
    return info.chunks == 1 and info.kept is None


class ChunkPlace(NamedTuple):
    """The chunk of ``info`` lies at ``sequence``, unless the record's index is out of date."""

    info: BlobInfo
    sequence: int


class Places:
    """The places that a store remembers, oldest first out."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """``monotonic`` gives seconds that only rise."""
        self._monotonic = monotonic
        self._places: OrderedDict[Digest, tuple[float, ChunkPlace | None]] = OrderedDict()

    def now(self) -> float:
        """To be taken before a record is asked for that will be remembered."""
        return self._monotonic()

    def remember(self, info: BlobInfo, sequence: int, *, known_at: float) -> None:
        """The blob was there at ``known_at`` or later, its only chunk at ``sequence``.

        Passed over where the blob has been forgotten since then, or is partial.
        """
        if not has_place(info):
            return
        at, place = self._places.get(info.digest, (-math.inf, None))
        if known_at <= at and (known_at < at or place is None):
            return
        self._keep(info.digest, known_at, ChunkPlace(info, sequence))

    def remember_record(self, info: BlobInfo, put_at: int, *, known_at: float) -> None:
        """As `remember`: ``put_at`` is the sequence of the record that made the blob.

        In a batch its chunk came just before; another copy, which took its place, lies behind. A
        place before the chunk does as well, if the server has to search a little.
        """
        if info.chunks == 1 and not info.damaged and not info.deleted:
            at = max(put_at - 1, 1)
            with suppress(CorruptError):  # the index, which is no more than a hint
                at = info.index.locate(0)[1] if info.index is not None else at
            self.remember(info, at, known_at=known_at)

    def find(self, digest: Digest) -> ChunkPlace | None:
        """The place of the blob's chunk, if known of late."""
        known_at, place = self._places.get(digest, (0.0, None))
        if place is None or self._monotonic() - known_at >= REMEMBERED_SECONDS:
            return None
        return place

    def forget(self, digest: Digest) -> None:
        """The blob is gone, or elsewhere. Answers to earlier requests are not remembered."""
        self._keep(digest, self._monotonic(), None)

    def _keep(self, digest: Digest, known_at: float, place: ChunkPlace | None) -> None:
        self._places[digest] = known_at, place
        self._places.move_to_end(digest)
        if len(self._places) > MAX_REMEMBERED:
            self._places.popitem(last=False)


class LatelyStored:
    """The share of puts that find their blob there. It pays to look first where one of five does.

    A put that looks in vain costs a read more; one that does not look, of a blob that is there, a
    chunk that is written and removed again.
    """

    def __init__(self) -> None:
        self._share = 0.0

    def note(self, *, found: bool) -> None:
        """Note the end of one more put."""
        self._share += (found - self._share) / _LATELY

    @property
    def often(self) -> bool:
        """Whether to look first."""
        return self._share >= _LOOK_FROM
