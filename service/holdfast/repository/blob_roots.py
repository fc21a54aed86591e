"""Records that name blobs, as the collector reads them: a blob needs nothing but itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.domain.collection import Need, NewsOf
from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from holdfast.stores.record_ports import RecordStore


class BlobRoots:
    """Roots of the space ``blobs``, of one store of records. Its subclass says what they name."""

    def __init__(self, records: RecordStore) -> None:
        """``records`` are those that name the blobs."""
        self.records = records

    async def needed(self, root: Digest, _: NewsOf) -> AsyncIterator[Sequence[Need]]:
        """The blob itself."""
        yield (Need(root),)


def as_digests(named: Iterable[str], kind: str) -> tuple[Digest, ...]:
    """The digests that a ``kind``'s record names. Raises CorruptError where one is none."""
    found = tuple(map(Digest, named))
    if not all(map(is_digest, found)):
        raise CorruptError(f"the record of a {kind} does not name a digest")
    return found
