"""Reads of a blob whose copy may be replaced, before it is read, by another with the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast.stores.ports import BlobInfo, BlobStore


async def read_latest[T](
    store: BlobStore,
    info: BlobInfo,
    read: Callable[[BlobInfo], Awaitable[T]],
    *,
    partial: bool = False,
) -> T:
    """The result of ``read`` for the copy ``info``, or else for the one that has taken its place.

    ``partial`` as in `BlobStore.stat`. Raises NotFoundError where there is none, and what ``read``
    raises.
    """
    while True:
        try:
            return await read(info)
        except NotFoundError:
            latest = await store.stat(info.digest, sure=True, partial=partial)
            if latest.generation == info.generation:
                raise
            info = latest
