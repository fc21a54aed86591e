"""The blobs that saves of states need, for collections and for deletions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.domain.blob_names import key_name
from holdfast.repository.blob_roots import BlobRoots, as_digests
from holdfast.repository.states.record import FINDER_PREFIX, STATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.record_ports import Changed, Record, RecordStore


class StateKeeper:
    """The states of a deployment, as keepers of blobs."""

    def __init__(self, records: RecordStore) -> None:
        """``records`` are those of the states."""
        self._records = records

    async def keeps(self, digest: Digest) -> bool:
        """Whether a save has that blob. Raises UnavailableError."""
        return bool(await self._records.list_keys(f"{FINDER_PREFIX}.{digest}"))

    async def kept_for(self, digest: Digest, limit: int) -> Sequence[str]:
        """Up to ``limit`` states a save of which has that blob. Raises UnavailableError."""
        prefix = f"{FINDER_PREFIX}.{digest}"
        keys = await self._records.list_keys(prefix)
        return [f"state {key_name(key.removeprefix(f'{prefix}.'))}" for key in keys[:limit]]


class StateRoots(BlobRoots):
    """Roots of the space ``blobs``. A removed state leaves its record for good."""

    name: Final = "states"
    lasting: Final = STATE.prefix

    def named(self, found: Record | Changed) -> Sequence[Digest]:
        """See `RootSource`."""
        state = STATE.of(found)
        saves = () if state is None else state.record.saves
        return as_digests((save.digest for save in saves), "state")
