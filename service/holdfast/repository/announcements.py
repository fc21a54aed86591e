"""A client's snapshot between the announcement of its root and its end.

The record is changed meanwhile: by the worker, which shows that it is at work, and by the client,
which renews its lease. Neither is a reason to begin anew; that the root is another's is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.frames import END_FRAME
from holdfast.domain.seek_table import MAX_FRAMES, seek_table_size
from holdfast.errors import ConflictError
from holdfast.repository.snapshot_record import StoredSnapshot, Totals

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.domain.root import Root
    from holdfast.repository.snapshot_records import Held, SnapshotRecords

_CAS_ATTEMPTS: Final = 8


class Announcement:
    """``held`` is the record as it was last seen; its root is the one that was announced."""

    def __init__(self, records: SnapshotRecords, held: Held[StoredSnapshot]) -> None:
        """``held`` has been written with its root."""
        self._records = records
        self.held = held

    async def beat(self) -> None:
        """Begin the lease anew. Raises ConflictError when the record was ended or removed."""
        try:
            self.held = await self._records.rewrite(self.held, renewed(self.held.record))
        except ConflictError:
            await self._look()  # the client has renewed it: that will do

    async def end(self, finish: Callable[[StoredSnapshot], StoredSnapshot]) -> StoredSnapshot:
        """Write what ``finish`` makes of the record. Raises ConflictError like ``beat``."""
        for _ in range(_CAS_ATTEMPTS):
            try:
                self.held = await self._records.end(self.held, finish(self.held.record))
            except ConflictError:
                await self._look()
            else:
                return self.held.record
        msg = "the snapshot's record kept changing"
        raise ConflictError(msg)

    async def _look(self) -> None:
        present = await self._records.reread(self.held)
        announced = self.held.record.digest
        if present.record.state != "pending" or present.record.digest != announced:
            msg = "the snapshot was ended or announced anew meanwhile"
            raise ConflictError(msg)
        self.held = present


def renewed(record: StoredSnapshot) -> StoredSnapshot:
    """``record`` at the next beat of its lease."""
    lease = msgspec.structs.replace(record.lease, beat=record.lease.beat + 1)
    return msgspec.structs.replace(record, lease=lease)


def check_clients(record: StoredSnapshot) -> None:
    """Raises ConflictError unless ``record`` is pending and its client's to end."""
    if record.state != "pending":
        msg = f"the snapshot {record.key} is {record.state}"
        raise ConflictError(msg)
    if record.lease.owner:
        msg = f"the snapshot {record.key} is being made by a worker"
        raise ConflictError(msg)


def totals_of(root: Root, *, added: int) -> Totals:
    """What a record says of its root; ``added`` is bytes."""
    return Totals(
        entries=root.entries,
        files=root.files,
        size=root.size_bytes,
        archive_size=archive_size(root),
        added=added,
    )


def archive_size(root: Root) -> int:
    """The bytes of the ``.tar.zst`` of a snapshot: its frames, the end, and the seek table."""
    frames = root.frames + 1
    table = seek_table_size(frames) if frames <= MAX_FRAMES else 0
    return root.stored_bytes + len(END_FRAME) + table
