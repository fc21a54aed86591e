"""Bytes that no record names are found and removed, by any number of workers at once.

A copy is claimed. Then every upload is looked at that may go on, and every record that was written
since they were listed. A copy that none names goes, if the claim is still there. A writer that
makes it a blob meanwhile, or counts on that blob, takes the claim, or sees that it goes.

Why: docs/decisions.md, "Bytes that no record names are claimed before they go".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import batched
from typing import TYPE_CHECKING, Final

import structlog

from holdfast.domain.collection import may_go
from holdfast.errors import CorruptError, HoldfastError

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast.repository.collector.pace import Pace
    from holdfast.repository.collector.report import Orphans
    from holdfast.repository.collector.spool import Spool
    from holdfast.stores.leftover_ports import Leftovers, StoredCopy
    from holdfast.stores.ports import BlobStore

_AT_ONCE: Final = 256
_COPY_BYTES: Final = 128
"""The cost of a copy that is only listed, when a run is slowed down."""

_RELEASE_SECONDS: Final = 5.0
"""A worker that stops waits for this, be the store away or not."""

Uploading = Callable[[], Awaitable[Collection[str]]]

log = structlog.get_logger(__name__)


class Sweep:
    """One run over one space, which removes bytes left there by writers that were killed."""

    def __init__(
        self,
        store: BlobStore,
        leftovers: Leftovers,
        spool: Spool,
        uploading: Uploading,
        pace: Pace,
        *,
        listed_after: int,
        is_abandoned: Callable[[datetime], bool],
    ) -> None:
        """``spool`` has what was named when the records were listed, after ``listed_after``.

        ``uploading`` tells the stagings of living uploads, as they are after it is asked.
        ``is_abandoned`` says of the time when a copy was begun whether its writer is gone.
        """
        self._store = store
        self._leftovers = leftovers
        self._spool = spool
        self._uploading = uploading
        self._pace = pace
        self._listed_after = listed_after
        self._is_abandoned = is_abandoned

    async def run(self, found: Orphans, *, dry_run: bool) -> None:
        """Remove the copies that no record names, by now.

        Raises UnavailableError, OutcomeUnknownError, CorruptError: what may be needed is not known.
        """
        offset = 0
        while copies := await self._leftovers.copies(offset):
            await self._pace.spend(_COPY_BYTES * len(copies))
            unnamed = await asyncio.to_thread(self._spool.unnamed, copies)
            removed = 0
            for some in batched(unnamed, _AT_ONCE):
                old = await self._abandoned(some)
                gone = await (self._loose(old) if dry_run else self._remove(old))
                for copy in gone:
                    found.add(old[copy].chunks, old[copy].size)
                removed += 0 if dry_run else len(gone)
            offset += len(copies) - removed

    async def _abandoned(self, copies: Sequence[str]) -> dict[str, StoredCopy]:
        old: dict[str, StoredCopy] = {}
        for copy in copies:
            stored = await self._leftovers.look(copy)
            if stored is None:
                continue
            if self._is_abandoned(stored.begun_at):
                old[copy] = stored
            await self._pace.spend(stored.size // max(stored.chunks, 1))
        return old

    async def _loose(self, copies: Collection[str]) -> list[str]:
        """Those of ``copies`` that nothing names, as they are now.

        Raises CorruptError where fewer records were met than there are: what these name is not
        known.
        """
        if not copies:
            return []
        uploading = await self._uploading()  # one that has ended since left a record before
        counted = await self._leftovers.counted()
        before = (await self._store.extent()).last
        async for met in self._leftovers.named(self._listed_after):
            await asyncio.to_thread(self._spool.name, met.copies, met.records)
        self._listed_after = before
        listed = await asyncio.to_thread(self._spool.listed)
        if listed < counted:
            msg = f"{counted - listed} records of blobs are counted and were not met: see the scrub"
            raise CorruptError(msg)
        unnamed = set(await asyncio.to_thread(self._spool.unnamed, [*copies]))
        named = set(copies) - unnamed
        return [copy for copy in copies if may_go(copy, named=named, uploading=uploading)]

    async def _remove(self, copies: Collection[str]) -> list[str]:
        """Remove those of ``copies`` that nothing names once they are claimed; which they were."""
        claims: dict[str, str] = {}
        going: list[str] = []
        try:
            for copy in copies:
                mark = await self._leftovers.claim(copy, abandoned=self._is_abandoned)
                if mark is not None:
                    claims[copy] = mark
            going = await self._loose(claims)
        finally:
            with suppress(TimeoutError):  # a user of them does, or the next run
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await self._release({copy: claims[copy] for copy in claims.keys() - set(going)})
        gone = [copy for copy in going if await self._leftovers.remove(copy, claims[copy])]
        log.info("orphans_removed", copies=len(gone))
        return gone

    async def _release(self, claims: Mapping[str, str]) -> None:
        for copy, mark in claims.items():
            with suppress(HoldfastError):
                await self._leftovers.release(copy, mark)
