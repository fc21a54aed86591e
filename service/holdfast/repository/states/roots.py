"""The blobs that saves of states need, for the collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.repository.blob_roots import BlobRoots, as_digests
from holdfast.repository.states.record import STATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.record_ports import Changed, Record


class StateRoots(BlobRoots):
    """Roots of the space ``blobs``. A removed state leaves its record for good."""

    name: Final = "states"
    lasting: Final = STATE.prefix

    def named(self, found: Record | Changed) -> Sequence[Digest]:
        """See `RootSource`."""
        state = STATE.of(found)
        saves = () if state is None else state.record.saves
        return as_digests((save.digest for save in saves), "state")
