"""Chunks that an upload's owners wrote: which may be removed, and which it may yet need.

Chunks go only when they surely are no blob's. Unclaimed ones are none, for an owner claims before
it makes the blob, and a remover has ended the upload or taken it over before. Claimed ones go only
where the blob is found, by the store's word of this moment, made of other parts: then the
claimant's attempt, which counts on what it saw before its claim, can only fail
(`StagedBlob.commit`), though it may be made an hour later. Where no blob is found they stay.

Why: docs/decisions.md, "Claims, and whose promise a removal is".
"""

from __future__ import annotations

from contextlib import suppress
from itertools import batched
from typing import TYPE_CHECKING

from holdfast.domain.digest import Digest
from holdfast.errors import CorruptError, NotFoundError, OutcomeUnknownError, UnavailableError
from holdfast.repository.uploads.record import UPLOAD, Claim, UploadRecord
from holdfast.stores.record_ports import MAX_GET_MANY, RecordStore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from holdfast.stores.ports import BlobStore


class Stagings:
    """Removes leftovers of uploads. Those that cannot be removed now are the collector's."""

    def __init__(self, store: BlobStore) -> None:
        """The store that the uploads go to."""
        self.store = store

    async def remove(self, nuid: str) -> None:
        """Remove the chunks of one owner, which the caller knows are no blob's."""
        with suppress(UnavailableError, OutcomeUnknownError):
            await self.store.discard_staged(nuid)

    async def remove_former(
        self, record: UploadRecord, *, keep: Collection[str], digest: str
    ) -> None:
        """Remove the chunks of former owners, once ``digest`` is there, made of some of ``keep``.

        One that had claimed another digest stays: its record may be on the way (only a sender
        that sent different bytes gets there).
        """
        for nuid in record.stagings:
            doubtful = any(c.nuid == nuid and c.digest != digest for c in record.claims)
            if nuid not in keep and not doubtful:
                await self.remove(nuid)

    async def remove_all(self, nuids: Iterable[str], claims: Iterable[Claim]) -> None:
        """Remove ``nuids`` but for what is a blob's or may yet become one.

        ``claims`` are all that their writers ever made, but for those that surely failed; they can
        make no more of them.
        """
        with suppress(UnavailableError, OutcomeUnknownError):
            kept = await self._may_be_blobs(claims)
            for nuid in nuids:
                if nuid not in kept:
                    await self.store.discard_staged(nuid)

    async def _may_be_blobs(self, claims: Iterable[Claim]) -> set[str]:
        """The nuids that are a blob's, or may yet become one."""
        kept = set()
        for claim in claims:
            try:
                found = await self.store.stat(Digest(claim.digest), sure=True)
            except (NotFoundError, CorruptError):
                kept.add(claim.nuid)
                continue
            kept.add(found.generation)
            if found.damaged:  # the claimant may be about to replace it
                kept.add(claim.nuid)
        return kept


async def living_stagings(records: RecordStore) -> set[str]:
    """The stagings of the living uploads of all workers, at least of those begun before this.

    The record of one names a staging before the first part is written there, also when it is taken
    over, and it has ended before what it names may go. Raises UnavailableError, CorruptError: there
    may be others.
    """
    found: set[str] = set()
    for keys in batched(await records.list_keys(UPLOAD.prefix), MAX_GET_MANY):
        # One that is seen to have ended never goes on; of any other the latest word is asked.
        seen = {record.key: record for record in await records.get_many(keys)}
        for key in keys:
            if key not in seen or stagings_of(UPLOAD.read(seen[key]).record):
                with suppress(NotFoundError):
                    found.update(stagings_of(UPLOAD.read(await records.get(key)).record))
    return found


def stagings_of(record: UploadRecord) -> tuple[str, ...]:
    """Stagings an upload may yet need; none once it has ended."""
    return record.stagings if UPLOAD.is_live(record) else ()
