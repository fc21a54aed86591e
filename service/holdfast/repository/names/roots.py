"""The blobs that names need, for the collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.repository.blob_roots import BlobRoots, as_digests
from holdfast.repository.names.record import NAME, VERSION, NameRecord, VersionRecord
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest


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

    def named(self, key: str, value: bytes) -> Sequence[Digest]:
        """The blobs that the record ``value`` at ``key`` keeps. Raises CorruptError."""
        found = Record(key=key, value=value, revision=1)
        if key.startswith(f"{NAME.prefix}."):
            return blobs_of(NAME.read(found).record)
        if key.startswith(f"{VERSION.prefix}."):
            return blobs_of(VERSION.read(found).record)
        return ()
