"""What of the blobs the saves of states need, for the collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.domain.collection import Need
from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import CorruptError
from holdfast.repository.states.record import STATE
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from holdfast.domain.collection import News
    from holdfast.stores.record_ports import RecordStore


class StateRoots:
    """Roots of the space ``blobs``. A removed state leaves its record for good."""

    name: Final = "states"
    lasting: Final = STATE.prefix

    def __init__(self, records: RecordStore) -> None:
        """``records`` are those of the states."""
        self.records = records

    def named(self, key: str, value: bytes) -> Sequence[Digest]:
        """The blobs that the record ``value`` at ``key`` keeps. Raises CorruptError."""
        if not key.startswith(f"{STATE.prefix}."):
            return ()
        record = STATE.read(Record(key=key, value=value, revision=1)).record
        digests = [save.digest for save in record.saves]
        if not all(map(is_digest, digests)):
            msg = "the record of a state does not name a digest"
            raise CorruptError(msg)
        return tuple(map(Digest, digests))

    async def needed(self, root: Digest, _: News) -> AsyncIterator[Sequence[Need]]:
        """The blob itself."""
        yield (Need(root),)
