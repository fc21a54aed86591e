"""A blob store that does everything through another one: the base of the wrappers.

A wrapper overrides `ForwardingBlobStore._call`, through which every operation that is awaited
goes, and `ForwardingBlobStore._iterate`, for those that give one piece after another.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from holdfast.stores.record_ports import CHANGES_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Buffer, Callable, Sequence
    from datetime import datetime

    from holdfast.domain.digest import Digest
    from holdfast.domain.kept import Ranges
    from holdfast.stores.leftover_ports import Leftovers
    from holdfast.stores.ports import (
        Attributes,
        BlobChanges,
        BlobInfo,
        BlobListing,
        BlobStore,
        Claiming,
        DirectDelivery,
        Fetched,
        Keeping,
        Spending,
        StagedBlob,
        Stored,
        Survey,
        SurveyedBlob,
    )
    from holdfast.stores.record_ports import Extent

T = TypeVar("T")


class Repeat(Enum):
    """When a failed operation may be done again without the caller noticing."""

    NEVER = "never"
    IF_NOT_APPLIED = "if surely not applied"
    ALWAYS = "even if the outcome is unknown"


@asynccontextmanager
async def closing(pieces: AsyncIterator[Buffer]) -> AsyncGenerator[AsyncIterator[Buffer]]:
    """``pieces``, closed at the end of the block where they can be: generators hold resources."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()


class ForwardingBlobStore:
    """A `BlobStore` with the behaviour of ``inner``."""

    def __init__(self, inner: BlobStore) -> None:
        self._inner = inner

    async def _call(
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        """Do one operation of the inner store."""
        return await function()

    async def _iterate(
        self, operation: str, function: Callable[[], AsyncIterator[Buffer]]
    ) -> AsyncGenerator[Buffer]:
        """Pass on the pieces that the inner store gives, and close it when the caller stops."""
        async with closing(function()) as pieces:
            async for piece in pieces:
                yield piece

    async def put(self, digest: Digest, data: Buffer, attributes: Attributes) -> Stored:
        """See `BlobStore.put`."""
        # Without an operation id the repeat of an unknown put would say that another created it.
        repeat = Repeat.IF_NOT_APPLIED if attributes.op_id is None else Repeat.ALWAYS
        return await self._call("put", repeat, lambda: self._inner.put(digest, data, attributes))

    async def get(self, info: BlobInfo) -> bytes:
        """See `BlobStore.get`."""
        return await self._call("get", Repeat.ALWAYS, lambda: self._inner.get(info))

    async def fetch(self, digest: Digest, at_most: int) -> Fetched:
        """See `BlobStore.fetch`."""
        return await self._call("fetch", Repeat.ALWAYS, lambda: self._inner.fetch(digest, at_most))

    def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See `BlobStore.read`."""
        return self._iterate("read", lambda: self._inner.read(info, start, stop))

    async def stat(self, digest: Digest, *, sure: bool = False, partial: bool = False) -> BlobInfo:
        """See `BlobStore.stat`."""
        return await self._call(
            "stat", Repeat.ALWAYS, lambda: self._inner.stat(digest, sure=sure, partial=partial)
        )

    async def missing(self, digests: Sequence[Digest], *, partial: bool = False) -> list[Digest]:
        """See `BlobStore.missing`."""
        return await self._call(
            "missing", Repeat.ALWAYS, lambda: self._inner.missing(digests, partial=partial)
        )

    async def delete(
        self, digest: Digest, *, op_id: str | None = None, kept: Keeping | None = None
    ) -> bool:
        """See `BlobStore.delete`."""
        # Without an operation id a repeat could remove what was put again in between.
        repeat = Repeat.IF_NOT_APPLIED if op_id is None else Repeat.ALWAYS
        return await self._call(
            "delete", repeat, lambda: self._inner.delete(digest, op_id=op_id, kept=kept)
        )

    async def touch(
        self, digest: Digest, *, unless_seen_since: datetime, needed: Ranges | None = None
    ) -> bool:
        """See `BlobStore.touch`."""
        return await self._call(
            "touch",
            Repeat.ALWAYS,
            lambda: self._inner.touch(digest, unless_seen_since=unless_seen_since, needed=needed),
        )

    async def now(self) -> datetime:
        """See `BlobStore.now`."""
        return await self._call("now", Repeat.ALWAYS, self._inner.now)

    async def read_back(self, info: BlobInfo, spend: Spending) -> None:
        """See `BlobStore.read_back`."""
        await self._call("read_back", Repeat.ALWAYS, lambda: self._inner.read_back(info, spend))

    async def report_damage(self, info: BlobInfo) -> bool:
        """See `BlobStore.report_damage`."""
        return await self._call(
            "report_damage", Repeat.ALWAYS, lambda: self._inner.report_damage(info)
        )

    async def list_blobs(self, *, prefix: str, cursor: str | None, limit: int) -> BlobListing:
        """See `BlobStore.list_blobs`."""
        return await self._call(
            "list_blobs",
            Repeat.ALWAYS,
            lambda: self._inner.list_blobs(prefix=prefix, cursor=cursor, limit=limit),
        )

    async def extent(self) -> Extent:
        """See `BlobStore.extent`."""
        return await self._call("extent", Repeat.ALWAYS, self._inner.extent)

    async def count(self) -> tuple[int, int] | None:
        """See `BlobStore.count`."""
        return await self._call("count", Repeat.ALWAYS, self._inner.count)

    async def changes(self, after: int, *, limit: int = CHANGES_LIMIT) -> BlobChanges:
        """See `BlobStore.changes`."""
        return await self._call(
            "changes", Repeat.ALWAYS, lambda: self._inner.changes(after, limit=limit)
        )

    async def survey(self, cursor: str | None, *, limit: int) -> Survey:
        """See `BlobStore.survey`."""
        return await self._call(
            "survey", Repeat.ALWAYS, lambda: self._inner.survey(cursor, limit=limit)
        )

    async def collect(self, blob: SurveyedBlob) -> bool:
        """See `BlobStore.collect`."""
        return await self._call("collect", Repeat.ALWAYS, lambda: self._inner.collect(blob))

    async def repack(self, blob: SurveyedBlob, needed: Ranges) -> int | None:
        """See `BlobStore.repack`."""
        return await self._call("repack", Repeat.ALWAYS, lambda: self._inner.repack(blob, needed))

    def stage(self, staging: str, part_size: int) -> StagedBlob:
        """See `BlobStore.stage`."""
        return ForwardingStagedBlob(self, self._inner.stage(staging, part_size))

    def staged_parts(self, staging: str) -> AsyncIterator[Buffer]:
        """See `BlobStore.staged_parts`."""
        return self._iterate("staged_parts", lambda: self._inner.staged_parts(staging))

    async def discard_staged(self, staging: str) -> None:
        """See `BlobStore.discard_staged`."""
        await self._call(
            "discard_staged", Repeat.ALWAYS, lambda: self._inner.discard_staged(staging)
        )

    def leftovers(self) -> Leftovers | None:
        """The inner store's."""
        return self._inner.leftovers()

    def direct_delivery(self) -> DirectDelivery | None:
        """The inner store's: its deliveries pass by every wrapper, and every worker."""
        return self._inner.direct_delivery()

    async def check(self) -> None:
        """See `BlobStore.check`. Says how the store is now, so it is never repeated."""
        await self._call("check", Repeat.NEVER, self._inner.check)

    async def aclose(self) -> None:
        """Close the inner store."""
        await self._inner.aclose()


class ForwardingStagedBlob:
    """A `StagedBlob` whose operations go through those of the wrapper it comes from."""

    def __init__(self, wrapper: ForwardingBlobStore, inner: StagedBlob) -> None:
        self._call = wrapper._call
        self._inner = inner

    async def write(self, part: int, data: Buffer) -> None:
        """See `StagedBlob.write`."""
        # Never repeated: by then the next part may have been written, and order is the contract.
        await self._call("write", Repeat.NEVER, lambda: self._inner.write(part, data))

    async def commit(
        self,
        digest: Digest,
        size: int,
        attributes: Attributes,
        *,
        claim: Claiming | None = None,
        likely_new: bool = False,
    ) -> Stored:
        """See `StagedBlob.commit`."""
        return await self._call(
            "commit",
            Repeat.ALWAYS,
            lambda: self._inner.commit(
                digest, size, attributes, claim=claim, likely_new=likely_new
            ),
        )

    async def discard(self) -> None:
        """See `StagedBlob.discard`."""
        await self._call("discard", Repeat.ALWAYS, self._inner.discard)
