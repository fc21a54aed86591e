"""Blobs are removed record first, then bytes; who dies in between leaves a note for the next run.

Bytes of a copy whose record is gone, or is another copy's, are no blob's and never will be again: a
copy has one writer for ever, who made it a blob once. So anybody may remove them.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.domain.digest import Digest
from holdfast.errors import ConflictError, CorruptError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.stores.ports import BlobStore, SurveyedBlob
    from holdfast.stores.record_ports import Record, RecordStore

PREFIX: Final = "g"
LEFT_ALONE: Final = timedelta(minutes=10)
"""Whoever wrote a note is at work until then, if it lives. It is finished for it before, too."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """Copies that are being removed from ``space``: each a digest with its generation.

    ``at`` is a time by the store's clock.
    """

    space: str
    at: datetime
    copies: tuple[tuple[str, str], ...]


class Removals:
    """The notes of all collectors of a deployment, ``g.<id>`` in its records."""

    def __init__(self, records: RecordStore, new_id: Callable[[], str]) -> None:
        """``new_id`` gives what no other process makes."""
        self._records = records
        self._new_id = new_id

    async def remove(
        self, space: str, store: BlobStore, blobs: Sequence[SurveyedBlob], now: datetime
    ) -> list[bool]:
        """Which of ``blobs`` were removed. Raises what the first raises that failed, at the end."""
        copies = tuple((blob.digest, blob.generation) for blob in blobs)
        note = Removal(space=space, at=now, copies=copies)
        key = f"{PREFIX}.{self._new_id()}"
        revision = await self._records.put(key, msgspec.json.encode(note), expected=0)
        done = await asyncio.gather(*map(store.collect, blobs), return_exceptions=True)
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure
        await self._forget(key, revision)
        return [one is True for one in done]

    async def finish(self, space: str, store: BlobStore, now: datetime) -> None:
        """Remove the bytes that collectors have left which did not get so far."""
        async for record in self._records.list_records(PREFIX):
            try:
                note = msgspec.json.decode(record.value, type=Removal)
            except msgspec.MsgspecError as error:
                msg = f"{record.key}: the note of a removal is unreadable"
                raise CorruptError(msg) from error
            if note.space == space:
                await self._finish(store, record, note, now)

    async def _finish(self, store: BlobStore, record: Record, note: Removal, now: datetime) -> None:
        for digest, generation in note.copies:
            if not await _is_there(store, Digest(digest), generation):
                await store.discard_staged(generation)
        if now - note.at > LEFT_ALONE:
            await self._forget(record.key, record.revision)

    async def _forget(self, key: str, revision: int) -> None:
        try:
            await self._records.delete(key, expected=revision)
        except ConflictError:  # another has finished it
            return


async def _is_there(store: BlobStore, digest: Digest, generation: str) -> bool:
    """Whether the blob is made of this copy at this moment, or nobody can tell."""
    try:
        return (await store.stat(digest, sure=True)).generation == generation
    except NotFoundError:
        return False
    except CorruptError:
        return True
