"""Blobs are removed record first, then bytes; a death in between leaves a note for the next run.

So are the former bytes of partly kept blobs, whose place another copy takes. Bytes of a
copy whose record is gone, or is another copy's, are no blob's and never will be again: a copy has
one writer for ever, who made it a blob once. So anybody may remove them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from holdfast.domain.digest import Digest
from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.domain.kept import Ranges
    from holdfast.stores.ports import BlobStore, SurveyedBlob
    from holdfast.stores.record_ports import Record, RecordStore

PREFIX: Final = "g"
LEFT_ALONE: Final = timedelta(minutes=10)
"""A note stays for so long, as its writer may be at work. It is acted on before, too."""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """Copies that are being removed from ``space``: each a digest with its generation.

    ``at`` is a time by the store's clock.
    """

    space: str
    at: datetime
    copies: tuple[tuple[str, str], ...]


class Removed(NamedTuple):
    """A blob as it was listed, which goes, but for the bytes in ``kept``."""

    blob: SurveyedBlob
    kept: Ranges


class Removals:
    """The notes of all collectors of a deployment, ``g.<id>`` in its records."""

    def __init__(self, records: RecordStore, new_id: Callable[[], str]) -> None:
        """``new_id`` gives ids that no other process makes."""
        self._records = records
        self._new_id = new_id

    async def remove(
        self, space: str, store: BlobStore, removed: Sequence[Removed], now: datetime
    ) -> list[int | BaseException | None]:
        """The bytes that are left of each; None: it is not as it was met, so it stays.

        For one that failed it is the error. Where that is a CorruptError, nothing can be removed.
        Raises UnavailableError, OutcomeUnknownError: nothing was.
        """
        copies = tuple((one.blob.digest, one.blob.generation) for one in removed)
        note = Removal(space=space, at=now, copies=copies)
        key = f"{PREFIX}.{self._new_id()}"
        revision = await self._records.put(key, msgspec.json.encode(note), expected=0)
        done = await asyncio.gather(
            *(_remove(store, one) for one in removed), return_exceptions=True
        )
        if all(one is None or isinstance(one, int | CorruptError) for one in done):
            with suppress(UnavailableError, OutcomeUnknownError):  # it is finished again, then
                await self._forget(key, revision)
        return done

    async def finish(self, space: str, store: BlobStore, now: datetime) -> None:
        """Remove the bytes left by collectors that did not get so far."""
        async for record in self._records.list_records(PREFIX):
            try:
                note = msgspec.json.decode(record.value, type=Removal)
            except msgspec.MsgspecError as error:
                raise CorruptError(f"{record.key}: the note of a removal is unreadable") from error
            if note.space == space:
                await self._finish(store, record, note, now)

    async def _finish(self, store: BlobStore, record: Record, note: Removal, now: datetime) -> None:
        for digest, generation in note.copies:
            if not await _is_there(store, Digest(digest), generation):
                with suppress(CorruptError):  # what its record named was no copy
                    await store.discard_staged(generation)
        if now - note.at > LEFT_ALONE:
            await self._forget(record.key, record.revision)

    async def _forget(self, key: str, revision: int) -> None:
        try:
            await self._records.delete(key, expected=revision)
        except ConflictError:  # another has finished it
            return


async def _remove(store: BlobStore, removed: Removed) -> int | None:
    if removed.kept:
        return await store.repack(removed.blob, removed.kept)
    return 0 if await store.collect(removed.blob) else None


async def _is_there(store: BlobStore, digest: Digest, generation: str) -> bool:
    """Whether the blob is made of this copy at this moment, or nobody can tell."""
    try:
        return (await store.stat(digest, sure=True, partial=True)).generation == generation
    except NotFoundError:
        return False
    except CorruptError:
        return True
