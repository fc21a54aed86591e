"""The blobs that names need, for the collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.repository.blob_roots import BlobRoots, as_digests
from holdfast.repository.names.record import NAME, VERSION, NameRecord, VersionRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.record_ports import Changed, Record


def blobs_of(record: NameRecord | VersionRecord) -> tuple[Digest, ...]:
    """The blobs that ``record`` keeps: its own, and those announced for it.

    Whether it has expired, or counts no more, is not asked: it keeps them until it is removed.
    Raises CorruptError where one names no digest.
    """
    named = [] if record.content is None else [record.content.digest]
    if isinstance(record, NameRecord):
        named += [one.digest for one in record.pending if one.digest is not None]
    return as_digests(named, "name")


class NameRoots(BlobRoots):
    """Roots of the space ``blobs``. A deleted name leaves its record for good."""

    name: Final = "names"
    lasting: Final = NAME.prefix

    def named(self, found: Record | Changed) -> Sequence[Digest]:
        """See `RootSource`."""
        held = NAME.of(found) or VERSION.of(found)
        return () if held is None else blobs_of(held.record)
