"""The records of snapshots and restores: begun, renewed, ended and removed, each in one step.

A record, its labels and its marker change in one batch, so a snapshot is found by all of its
labels or by none, and what is marked pending is what is pending.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Final, Generic

from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.repository.snapshot_record import (
    PENDING_RESTORES,
    PENDING_SNAPSHOTS,
    RESTORES,
    SNAPSHOTS,
    StoredRestore,
    StoredSnapshot,
    StoredT,
    decode,
    encode,
    ended_ttl,
    label_keys,
    marker_key,
    pending_key,
    record_key,
    restore_key,
    snapshot_key,
)
from holdfast.stores.ports import MAX_GET_MANY, Delete, Put

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast.domain.names import SnapshotKey
    from holdfast.repository.snapshot_record import Stored
    from holdfast.stores.ports import Change, Record, RecordStore

_WAITS_SECONDS: Final = (0.1, 0.3, 1.0, 3.0, 6.0, 6.0)
"""Between attempts of a step that must come to a known end. A failover takes up to 16 s."""

PENDING_VALUE: Final = b"1"


@dataclass(frozen=True, slots=True)
class Held(Generic[StoredT]):
    """A record as it was read or written."""

    record: StoredT
    revision: int


class SnapshotRecords:
    """The bucket ``snapshots``."""

    def __init__(self, records: RecordStore) -> None:
        """The store of that bucket."""
        self._records = records

    async def get(self, key: SnapshotKey) -> Held[StoredSnapshot]:
        """Raises NotFoundError, CorruptError."""
        try:
            found = await self._records.get(snapshot_key(key))
        except NotFoundError as error:
            msg = f"no snapshot {key}"
            raise NotFoundError(msg) from error
        return Held(decode(found.value, StoredSnapshot), found.revision)

    async def get_restore(self, restore: str) -> Held[StoredRestore]:
        """Raises NotFoundError, CorruptError."""
        try:
            found = await self._records.get(restore_key(restore))
        except NotFoundError as error:
            msg = f"no restore {restore}"
            raise NotFoundError(msg) from error
        return Held(decode(found.value, StoredRestore), found.revision)

    async def reread(self, held: Held[StoredT]) -> Held[StoredT]:
        """The record as it is now. Raises ConflictError when it was removed, CorruptError."""
        try:
            found = await self._records.get(record_key(held.record))
        except NotFoundError as error:
            msg = "the record was removed"
            raise ConflictError(msg) from error
        return Held(decode(found.value, type(held.record)), found.revision)

    async def begin(self, record: StoredT) -> Held[StoredT]:
        """Write a new record, its labels, and that it is pending; comes to a known end if it can.

        Raises ConflictError.
        """
        key, value = record_key(record), encode(record)
        changes: list[Change] = [
            Put(key=key, value=value, expected=0),
            Put(key=marker_key(record), value=PENDING_VALUE, expected=0),
        ]
        changes += [Put(key=key, value=PENDING_VALUE, expected=0) for key in label_keys(record)]

        async def write() -> int:
            return (await self._records.batch(changes))[0]

        try:
            return Held(record, await write())
        except OutcomeUnknownError:
            return Held(record, await self._certainly(key, value, write, unknown=True))

    async def rewrite(self, held: Held[StoredT], record: StoredT) -> Held[StoredT]:
        """Write ``record`` over ``held``; comes to a known end if it can.

        Raises ConflictError when another was quicker or it was removed, UnavailableError,
        OutcomeUnknownError.
        """
        key, value = record_key(record), encode(record)

        async def write() -> int:
            return await self._records.put(key, value, expected=held.revision)

        return Held(record, await self._certainly(key, value, write))

    async def end(self, held: Held[StoredT], record: StoredT) -> Held[StoredT]:
        """Like ``rewrite``; the record is not pending any more, and that of a restore goes away."""
        key, value = record_key(record), encode(record)
        ttl = ended_ttl(record)

        async def write() -> int:
            put = Put(key=key, value=value, expected=held.revision, ttl=ttl)
            return (await self._records.batch([put, Delete(key=marker_key(record))]))[0]

        return Held(record, await self._certainly(key, value, write))

    async def remove(self, held: Held[StoredSnapshot]) -> None:
        """Remove a snapshot with all that finds it. Raises ConflictError when it has changed.

        The record is removed for good. What finds it need not be: it is compared with the record.
        """
        record = held.record
        changes = [
            Delete(key=record_key(record), expected=held.revision, for_good=True),
            Delete(key=marker_key(record)),
            *(Delete(key=key) for key in label_keys(record)),
        ]
        await self._records.batch(changes)

    async def remove_unreadable(self, key: SnapshotKey) -> None:
        """Remove a record that cannot be read. Its labels, which nobody knows, find nothing.

        Its revision is not asked for: it may be the store that cannot read it.
        """
        delete = Delete(key=snapshot_key(key), for_good=True)
        await self._records.batch([delete, Delete(key=pending_key(key))])

    async def pending_snapshots(self) -> list[Held[StoredSnapshot]]:
        """Every pending snapshot whose record can be read."""
        tails = await self.keys(PENDING_SNAPSHOTS)
        return await self._held([".".join([SNAPSHOTS, *tail]) for tail in tails], StoredSnapshot)

    async def pending_restores(self) -> list[Held[StoredRestore]]:
        """Every pending restore whose record can be read."""
        tails = await self.keys(PENDING_RESTORES)
        return await self._held([".".join([RESTORES, *tail]) for tail in tails], StoredRestore)

    async def _held(self, keys: list[str], kind: type[StoredT]) -> list[Held[StoredT]]:
        found = []
        for record in await self._read(keys):
            with suppress(CorruptError):  # one bad record must not keep the others waiting
                held = Held(decode(record.value, kind), record.revision)
                if is_pending(held.record):
                    found.append(held)
        return found

    async def keys(self, prefix: str) -> list[list[str]]:
        """The tokens after ``prefix`` of every key that starts with it."""
        skip = len(prefix) + 1
        return [key[skip:].split(".") for key in await self._records.list_keys(prefix)]

    async def get_many(
        self, keys: Sequence[SnapshotKey]
    ) -> tuple[list[StoredSnapshot], list[SnapshotKey]]:
        """The records of ``keys`` in their order, and the keys of those that cannot be read.

        What is gone is left out. A record that says it is another's cannot be read.
        """
        names = [snapshot_key(key) for key in keys]
        found = {record.key: record.value for record in await self._read(names)}
        records: list[StoredSnapshot] = []
        damaged: list[SnapshotKey] = []
        for key, name in zip(keys, names, strict=True):
            if name in found:
                try:
                    record = decode(found[name], StoredSnapshot)
                except CorruptError:  # one bad record must not hide the others
                    damaged.append(key)
                    continue
                if record.key == key:
                    records.append(record)
                else:
                    damaged.append(key)
        return records, damaged

    async def _read(self, keys: Sequence[str]) -> list[Record]:
        found: list[Record] = []
        for batch in batched(keys, MAX_GET_MANY):
            found += await self._records.get_many(batch)
        return found

    async def _certainly(
        self,
        key: str,
        value: bytes,
        write: Callable[[], Awaitable[int]],
        *,
        unknown: bool = False,
    ) -> int:
        """Repeat ``write`` until it is known to be applied or not; the revision.

        With ``unknown`` it was tried before, and may have been applied.
        """
        for wait in _WAITS_SECONDS:
            try:
                return await write()
            except ConflictError:
                if not unknown:
                    raise
                return await self._find_applied(key, value)
            except (OutcomeUnknownError, UnavailableError) as error:
                unknown = unknown or isinstance(error, OutcomeUnknownError)
            await asyncio.sleep(wait)
        return await write()

    async def _find_applied(self, key: str, value: bytes) -> int:
        """The revision that our own write, whose answer was lost, has made."""
        try:
            found = await self._records.get(key)
        except NotFoundError as error:
            msg = "the record was removed"
            raise ConflictError(msg) from error
        if found.value != value:
            msg = "the record has changed"
            raise ConflictError(msg)
        return found.revision


def is_pending(record: Stored) -> bool:
    """Whether somebody works on it."""
    return record.state == "pending"
