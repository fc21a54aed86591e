"""The packs of snapshots as the steps of making one need them: put, read, kept from the collector.

A blob that is stored already may be about to be collected. A step that counts on one marks it as
seen (*touches* it), unless that was done lately; the collector then leaves it alone. Two times of
the store tell what is late, never this worker's clock.

Why: docs/decisions.md, "Space comes back without a lock".
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest
from holdfast.domain.kept import PartialBytes, Ranges
from holdfast.domain.limits import MAX_DIGESTS_PER_HAS
from holdfast.errors import (
    ConflictError,
    CorruptError,
    NotFoundError,
    OutcomeUnknownError,
    UnavailableError,
)
from holdfast.form.root import Root, join_root, root_pieces
from holdfast.repository.snapshots.needs import Needed
from holdfast.stores.copies import read_latest
from holdfast.stores.ports import Attributes, BlobInfo, BlobStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast.archive.ports import Pack
    from holdfast.sources import Sources

PACK_TYPE: Final = "application/octet-stream"
TOUCHES_AT_ONCE: Final = 64
_PUT_ATTEMPTS: Final = 4
_ASK_AGAIN_SECONDS: Final = 60.0
"""After so long the store is asked for its time again."""


class Packs:
    """The space ``packs``: every blob in it is one message long."""

    def __init__(
        self,
        store: BlobStore,
        *,
        sources: Sources,
        max_inline_bytes: int,
        part_size: int,
        grace: timedelta,
    ) -> None:
        """The collector leaves unneeded blobs alone for ``grace``.

        A server whose messages are shorter than a pack gets packs in parts of ``part_size``.
        """
        self._store = store
        self._sources = sources
        self._max_inline_bytes = max_inline_bytes
        self._part_size = part_size
        self._fresh = grace / 4
        self._told: tuple[datetime, float] | None = None
        self._one_root = asyncio.Semaphore(1)

    async def get(self, digest: Digest) -> Pack:
        """The stored pack, checked. Raises NotFoundError, CorruptError, UnavailableError.

        One that is damaged is remembered as such: it is not shared any more, and put anew.
        """
        return await self._read(await self._store.stat(digest, partial=True))

    async def get_latest(self, digest: Digest) -> Pack:
        """The same as it is recorded at this moment."""
        return await self._read(await self._store.stat(digest, sure=True, partial=True))

    async def _read(self, info: BlobInfo) -> Pack:
        return await read_latest(self._store, info, self._read_copy, partial=True)

    async def _read_copy(self, info: BlobInfo) -> Pack:
        try:
            data = await self._store.get(info)
        except CorruptError:
            with suppress(UnavailableError, OutcomeUnknownError, ConflictError):
                await self._store.report_damage(info)
            raise
        return data if info.kept is None else PartialBytes(data, info.kept)

    async def whole(self, digest: Digest) -> bytes:
        """All of a blob, checked. Raises as `get`; a partial one is not there."""
        data = await self.get(digest)
        if not isinstance(data, bytes):
            data = await self.get_latest(digest)
        if isinstance(data, bytes):
            return data
        raise NotFoundError(f"of the blob {digest} bytes were dropped because nothing needed them")

    async def put(self, digest: Digest, data: bytes, *, doubt: bool = False) -> bool:
        """Store a pack; whether it was not there.

        With ``doubt`` one that is there is read back, and stored anew where it is not what it was.
        Raises ConflictError, and CorruptError where that did not help.
        """
        for attempt in range(_PUT_ATTEMPTS):
            if await self._put(digest, data):
                return True
            if not await self.touch(digest):
                continue
            if not doubt:
                return False
            try:
                await self.whole(digest)
            except NotFoundError:
                continue
            except CorruptError:
                if attempt + 1 == _PUT_ATTEMPTS:
                    raise
                continue
            return False
        raise ConflictError("a pack keeps being removed while it is stored")

    async def _put(self, digest: Digest, data: bytes) -> bool:
        attributes = Attributes(
            type=PACK_TYPE,
            created_at=self._sources.clock(),
            pinned=False,
            op_id=self._sources.new_id(),
        )
        if len(data) <= self._max_inline_bytes:
            return (await self._store.put(digest, data, attributes)).created
        staged = self._store.stage(self._sources.new_id(), self._part_size)
        view = memoryview(data)
        for part, start in enumerate(range(0, len(view), self._part_size)):
            await staged.write(part, view[start : start + self._part_size])
        return (await staged.commit(digest, len(data), attributes)).created

    async def now(self) -> datetime:
        """The present time by the clock that says when packs were seen."""
        now = await self._store.now()
        self._told = (now, self._sources.monotonic())
        return now

    def lately(self, now: datetime) -> datetime:
        """The time since which a seen blob is left alone by a collector that runs at ``now``."""
        return now - self._fresh

    async def touch(self, digest: Digest) -> bool:
        """Keep a blob from the collector for a while, unless that was done lately.

        False: it is gone, or cannot be read back.
        """
        since = self.lately(await self._roughly_now())
        return await self._store.touch(digest, unless_seen_since=since)

    async def _roughly_now(self) -> datetime:
        """Like ``now``, which is not asked for each pack."""
        if self._told is not None:
            now, at = self._told
            passed = self._sources.monotonic() - at
            if passed < _ASK_AGAIN_SECONDS:
                return now + timedelta(seconds=passed)
        return await self.now()

    async def touch_all(
        self, needs: Mapping[Digest, Ranges | None], *, since: datetime
    ) -> list[Digest]:
        """Touch each that was not seen ``since``; those that are gone, in order.

        ``needs`` has the needed ranges of each (None: all of it); one that lacks some is gone.
        """
        gone: list[Digest] = []
        for batch in batched(needs.items(), TOUCHES_AT_ONCE):
            there = await asyncio.gather(
                *(
                    self._store.touch(digest, unless_seen_since=since, needed=needed)
                    for digest, needed in batch
                )
            )
            gone += [digest for (digest, _), found in zip(batch, there, strict=True) if not found]
        return gone

    async def has(self, digest: Digest) -> bool:
        """Whether a blob is stored and was not found damaged."""
        try:
            return not (await self._store.stat(digest, partial=True)).damaged
        except (NotFoundError, CorruptError):
            return False

    async def missing(
        self, digests: Iterable[Digest], *, limit: int, counted: bool = False
    ) -> list[Digest]:
        """The first ``limit`` of ``digests`` of which nothing is stored.

        ``counted`` as in `BlobStore.missing`: also those of which bytes were lost.
        """
        missing: list[Digest] = []
        for batch in batched(digests, MAX_DIGESTS_PER_HAS):
            missing += await self._store.missing(batch, partial=True, counted=counted)
            if len(missing) >= limit:
                break
        return missing[:limit]

    async def root(self, digest: Digest) -> tuple[Root, Needed]:
        """A root and every blob that the snapshot needs: itself, its pieces, its packs.

        One at a time, for a root may be large. Raises NotFoundError (nothing of that digest),
        CorruptError (not a root, or damaged).
        """
        async with self._one_root:
            head = await self.whole(digest)
            pieces = {piece: await self.whole(piece) for piece in root_pieces(head)}
            root = await asyncio.to_thread(join_root, head, pieces.__getitem__)
        return root, Needed((digest, *pieces), root.pieces.packs)
