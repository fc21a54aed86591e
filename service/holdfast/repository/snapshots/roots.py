"""What of the packs the snapshots need, for the collector."""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest, is_digest
from holdfast.errors import CorruptError
from holdfast.repository.snapshots.record import SNAPSHOT, StoredSnapshot
from holdfast.stores.record_ports import Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from holdfast.repository.snapshots.packs import Packs
    from holdfast.stores.record_ports import RecordStore

_AT_ONCE: Final = 4096


def roots_of(record: StoredSnapshot) -> tuple[Digest, ...]:
    """The roots that ``record`` keeps: its own, and while it is pending also its parent's.

    Raises CorruptError where one is none, or it is ``ok`` and has none.
    """
    if record.state == "failure":
        return ()
    named = [record.digest]
    if record.state == "pending":
        named.append(record.parent_digest)
    elif record.digest is None:
        msg = f"the snapshot {record.key} is ok and names no root"
        raise CorruptError(msg)
    roots = tuple(Digest(root) for root in named if root is not None)
    if not all(map(is_digest, roots)):
        msg = f"the snapshot {record.key} names a root that is none"
        raise CorruptError(msg)
    return roots


class SnapshotRoots:
    """The roots of the space ``packs``. A removed snapshot leaves a note for good."""

    name: Final = "snapshots"
    lasting: Final = SNAPSHOT.prefix

    def __init__(self, records: RecordStore, packs: Packs) -> None:
        """``records`` are those of the snapshots."""
        self.records = records
        self._packs = packs

    def named(self, key: str, value: bytes) -> Sequence[Digest]:
        """The roots that the record ``value`` at ``key`` keeps. Raises CorruptError."""
        if not key.startswith(f"{SNAPSHOT.prefix}."):
            return ()
        return roots_of(SNAPSHOT.read(Record(key=key, value=value, revision=1)).record)

    async def needed(self, root: Digest) -> AsyncIterator[Sequence[Digest]]:
        """Every blob that ``root`` needs, itself among them. Raises NotFoundError, CorruptError."""
        _, needed = await self._packs.root(root)
        for some in batched(needed, _AT_ONCE):
            yield some
