"""What of the blobs the names need, for the collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.domain.collection import Need
from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import CorruptError
from holdfast.repository.names.record import NAME, VERSION, NameRecord, VersionRecord
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from holdfast.domain.collection import News
    from holdfast.stores.record_ports import RecordStore


def blobs_of(record: NameRecord | VersionRecord) -> tuple[Digest, ...]:
    """The blobs that ``record`` keeps: what it has, and what was announced for it.

    Whether it has expired, or counts no more, is not asked: it keeps them until it is removed.
    Raises CorruptError where one names no digest.
    """
    named = [] if record.content is None else [record.content.digest]
    if isinstance(record, NameRecord):
        named += [one.digest for one in record.pending if one.digest is not None]
    if not all(map(is_digest, named)):
        msg = "the record of a name does not name a digest"
        raise CorruptError(msg)
    return tuple(map(Digest, named))


class NameRoots:
    """Roots of the space ``blobs``. A deleted name leaves its record for good."""

    name: Final = "names"
    lasting: Final = NAME.prefix

    def __init__(self, records: RecordStore) -> None:
        """``records`` are those of the names."""
        self.records = records

    def named(self, key: str, value: bytes) -> Sequence[Digest]:
        """The blobs that the record ``value`` at ``key`` keeps. Raises CorruptError."""
        found = Record(key=key, value=value, revision=1)
        if key.startswith(f"{NAME.prefix}."):
            return blobs_of(NAME.read(found).record)
        if key.startswith(f"{VERSION.prefix}."):
            return blobs_of(VERSION.read(found).record)
        return ()

    async def needed(self, root: Digest, _: News) -> AsyncIterator[Sequence[Need]]:
        """The blob itself."""
        yield (Need(root),)
