"""One put, of a blob or of a name: in one message where that holds it, else in parts."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol, TypeVar

from holdfast.client.puts.upload import Upload, Uploaded
from holdfast.client.sources import (
    OnBytes,
    Source,
    blocks,
    pieces,
    source_size,
    whole_if_small,
)
from holdfast.domain.limits import MAX_BLOB_BYTES, max_inline_bytes
from holdfast.errors import TooLargeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.client.requests import Requester
    from holdfast.client.small_files import SmallFiles

StoredT = TypeVar("StoredT")
ResultT = TypeVar("ResultT", covariant=True)


class PutSteps(Protocol[ResultT]):
    """The steps of a put, once it is known how the bytes go."""

    async def whole(self, data: memoryview) -> ResultT:
        """Store ``data``, which one message holds."""

    async def open(self, upload: Upload, size: int | None) -> Uploaded | None:
        """Begin ``upload``, of ``size`` bytes if that is sure; what there is if none is needed."""

    def result(self, uploaded: Uploaded) -> ResultT:
        """The caller's answer for ``uploaded``."""


async def put_source(
    requester: Requester,
    files: SmallFiles,
    source: Source,
    put: PutSteps[StoredT],
    progress: OnBytes | None,
) -> StoredT:
    """Store what ``source`` gives. Memory is bounded whatever the size.

    Raises TooLargeError, OSError, and what ``put`` and ``Upload`` do.
    """
    most = max_inline_bytes(requester.connection.max_payload)
    whole = await whole_if_small(source, most, files)
    if whole is None:
        size = source_size(source)
        if size is not None and size > MAX_BLOB_BYTES:
            raise TooLargeError(f"a blob has at most {MAX_BLOB_BYTES} bytes")
        # Only of what cannot change the size is announced: the worker takes it at its word.
        sure = size if isinstance(source, bytes | bytearray | memoryview) else None
        async with aclosing(blocks(source)) as incoming:
            head, is_all = await _take(incoming, most)
            if not is_all:
                upload = Upload(requester, progress=progress, total=size)
                return await _in_parts(upload, put, sure, _chain(head, incoming))
        whole = head[0] if len(head) == 1 else memoryview(b"".join(head))
    try:
        stored = await put.whole(whole)
    except TooLargeError:  # the worker's server takes less than ours
        upload = Upload(requester, progress=progress, total=len(whole))
        return await _in_parts(upload, put, len(whole), blocks(whole))
    if progress is not None:
        progress(len(whole), len(whole))
    return stored


async def _in_parts(
    upload: Upload, put: PutSteps[StoredT], size: int | None, incoming: AsyncIterator[memoryview]
) -> StoredT:
    present = await put.open(upload, size)
    if present is not None:
        return put.result(present)
    async with aclosing(pieces(incoming, upload.part_size)) as sized:
        return put.result(await upload.send(sized))


async def _take(incoming: AsyncIterator[memoryview], limit: int) -> tuple[list[memoryview], bool]:
    """The first blocks, until they exceed ``limit`` bytes; and whether they were all."""
    taken: list[memoryview] = []
    size = 0
    async for block in incoming:
        taken.append(block)
        size += len(block)
        if size > limit:
            return taken, False
    return taken, True


async def _chain(
    head: list[memoryview], rest: AsyncIterator[memoryview]
) -> AsyncIterator[memoryview]:
    while head:
        yield head.pop(0)
    async for block in rest:
        yield block
