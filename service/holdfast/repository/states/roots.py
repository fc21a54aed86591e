"""The blobs that saves of states need, for the collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.repository.blob_roots import BlobRoots, as_digests
from holdfast.repository.states.record import STATE
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest


class StateRoots(BlobRoots):
    """Roots of the space ``blobs``. A removed state leaves its record for good."""

    name: Final = "states"
    lasting: Final = STATE.prefix

    def named(self, key: str, value: bytes) -> Sequence[Digest]:
        """The blobs that the record ``value`` at ``key`` keeps. Raises CorruptError."""
        if not key.startswith(f"{STATE.prefix}."):
            return ()
        record = STATE.read(Record(key=key, value=value, revision=1)).record
        return as_digests((save.digest for save in record.saves), "state")
