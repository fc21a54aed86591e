"""States that keep a blob, for its deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.domain.blob_names import key_name
from holdfast.repository.states.record import FINDER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.domain.digest import Digest
    from holdfast.stores.record_ports import RecordStore


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
