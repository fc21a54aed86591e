"""A blob store that does everything through another one: the base of the wrappers.

A wrapper overrides `ForwardingBlobStore._call`, through which every operation that is awaited
goes, and `ForwardingBlobStore._iterate`, for those that give one piece after another.
"""

from __future__ import annotations

import functools
from contextlib import asynccontextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate

from holdfast.stores.ports import BlobStore, StagedBlob

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Buffer,
        Callable,
        Coroutine,
    )

    from holdfast.domain.digest import Digest
    from holdfast.stores.leftover_ports import Leftovers
    from holdfast.stores.ports import Attributes, BlobInfo, DirectDelivery, Keeping, Stored


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


class _Forwarding[Inner]:
    """Has the operations of ``inner``, each by way of `_call`."""

    def __init__(self, inner: Inner) -> None:
        self._inner = inner

    async def _call[T](
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        """Do one operation of ``inner``."""
        return await function()


def _forwarded[Inner, **P, T](
    method: Callable[Concatenate[Inner, P], Coroutine[Any, Any, T]], repeat: Repeat = Repeat.ALWAYS
) -> Callable[Concatenate[_Forwarding[Inner], P], Coroutine[Any, Any, T]]:
    """``method`` of ``inner``, with its arguments and words."""
    name = method.__name__

    @functools.wraps(method)
    async def call(self: _Forwarding[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        function = functools.partial(getattr(self._inner, name), *args, **kwargs)
        return await self._call(name, repeat, function)

    return call


class ForwardingBlobStore(_Forwarding[BlobStore]):
    """A `BlobStore` with the behaviour of ``inner``."""

    get = _forwarded(BlobStore.get)
    fetch = _forwarded(BlobStore.fetch)
    stat = _forwarded(BlobStore.stat)
    missing = _forwarded(BlobStore.missing)
    touch = _forwarded(BlobStore.touch)
    now = _forwarded(BlobStore.now)
    read_back = _forwarded(BlobStore.read_back)
    report_damage = _forwarded(BlobStore.report_damage)
    list_blobs = _forwarded(BlobStore.list_blobs)
    extent = _forwarded(BlobStore.extent)
    count = _forwarded(BlobStore.count)
    changes = _forwarded(BlobStore.changes)
    survey = _forwarded(BlobStore.survey)
    collect = _forwarded(BlobStore.collect)
    repack = _forwarded(BlobStore.repack)
    discard_staged = _forwarded(BlobStore.discard_staged)
    # It says how the store is now.
    check = _forwarded(BlobStore.check, Repeat.NEVER)

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

    async def delete(
        self, digest: Digest, *, op_id: str | None = None, kept: Keeping | None = None
    ) -> bool:
        """See `BlobStore.delete`."""
        # Without an operation id a repeat could remove what was put again in between.
        repeat = Repeat.IF_NOT_APPLIED if op_id is None else Repeat.ALWAYS
        return await self._call(
            "delete", repeat, lambda: self._inner.delete(digest, op_id=op_id, kept=kept)
        )

    def read(self, info: BlobInfo, start: int, stop: int) -> AsyncGenerator[Buffer]:
        """See `BlobStore.read`."""
        return self._iterate("read", lambda: self._inner.read(info, start, stop))

    def staged_parts(self, staging: str) -> AsyncIterator[Buffer]:
        """See `BlobStore.staged_parts`."""
        return self._iterate("staged_parts", lambda: self._inner.staged_parts(staging))

    def stage(self, staging: str, part_size: int) -> StagedBlob:
        """See `BlobStore.stage`."""
        return ForwardingStagedBlob(self, self._inner.stage(staging, part_size))

    def leftovers(self) -> Leftovers | None:
        """The inner store's."""
        return self._inner.leftovers()

    def direct_delivery(self) -> DirectDelivery | None:
        """The inner store's: its deliveries pass by every wrapper, and every worker."""
        return self._inner.direct_delivery()

    async def aclose(self) -> None:
        """Close the inner store."""
        await self._inner.aclose()


class ForwardingStagedBlob(_Forwarding[StagedBlob]):
    """A `StagedBlob` whose operations go through those of the wrapper it comes from."""

    # Never repeated: by then the next part may have been written, and order is the contract.
    write = _forwarded(StagedBlob.write, Repeat.NEVER)
    commit = _forwarded(StagedBlob.commit)
    discard = _forwarded(StagedBlob.discard)

    def __init__(self, wrapper: ForwardingBlobStore, inner: StagedBlob) -> None:
        super().__init__(inner)
        self._wrapper = wrapper

    async def _call[T](
        self, operation: str, repeat: Repeat, function: Callable[[], Awaitable[T]]
    ) -> T:
        return await self._wrapper._call(operation, repeat, function)
