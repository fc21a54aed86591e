"""The sources of content: bytes that never change, read in pieces as fast as they are taken.

A slow reader has them in small reads of one answer each; only a fast one has windows on their way,
and those of all together are bounded. So hundreds of slow readers need no more memory than a few
fast ones.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from holdfast.client.download import stream_blob, though_deleted
from holdfast.domain.limits import KIB, MIB, WINDOW_BYTES
from holdfast.errors import CorruptError
from holdfast.protocol.blobs import GET_BLOB, GetBlob
from holdfast.protocol.files import EXPORT_SNAPSHOT, READ_FILE, ExportSnapshot, ReadFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast.client import Client
    from holdfast.client.budget import ByteBudget
    from holdfast.gateway.ranges import ByteRange
    from holdfast.protocol.blobs import ContentHead
    from holdfast.protocol.operation import Operation

SMALL_BYTES: Final = 128 * KIB
"""Bytes of one answer to a slow reader."""

_GROWTH: Final = 8
_SLOW_SECONDS: Final = 0.25
"""A reader that takes longer over a read gets small ones again."""

STREAM_MEMORY_BYTES: Final = 3 * WINDOW_BYTES
"""Bytes on the way in a stream of a blob or a file."""


class ByteSource(Protocol):
    """Bytes that are the same whenever they are asked for."""

    @property
    def stream_memory_bytes(self) -> int:
        """Memory of a ``stream``."""

    @property
    def max_stream_bytes(self) -> int:
        """The most bytes of one stream."""

    async def some(self, offset: int, length: int) -> memoryview:
        """Up to ``length`` bytes from ``offset``; none where they do not fit one answer."""

    def stream(self, offset: int, length: int) -> AsyncGenerator[memoryview]:
        """Exactly these bytes, in order."""


@dataclass(frozen=True, slots=True)
class WireSource:
    """Bytes that an operation reads by offset and length."""

    client: Client
    operation: Operation[Any, Any]
    request: Any

    async def some(self, offset: int, length: int) -> memoryview:
        """See ``ByteSource``."""
        _, data = await self.begin(offset, length)
        return data

    async def begin(self, offset: int, length: int) -> tuple[Any, memoryview]:
        """The content's head too."""
        asked = msgspec.structs.replace(self.request, offset=offset, length=length)
        head: ContentHead
        head, data = await self.client.requester.ask_for_bytes(self.operation, asked, length)
        # A copy: what came is a view that holds many times as much (transport/parser.py), and a
        # slow reader may hold this for long.
        return head, memoryview(bytes(data) if len(data) == head.length else b"")


@dataclass(frozen=True, slots=True)
class BlobSource:
    """A blob that was found: what deletes it by its digest meanwhile does not end the read."""

    client: Client
    digest: str
    max_stream_bytes: int = 64 * MIB
    stream_memory_bytes: int = STREAM_MEMORY_BYTES

    async def some(self, offset: int, length: int) -> memoryview:
        """See ``ByteSource``."""

        async def ask(request: GetBlob) -> memoryview:
            return await WireSource(self.client, GET_BLOB, request).some(offset, length)

        return await though_deleted(GetBlob(digest=self.digest), ask)

    def stream(self, offset: int, length: int) -> AsyncGenerator[memoryview]:
        """See ``ByteSource``."""
        request = GetBlob(digest=self.digest, offset=offset, length=length)
        return stream_blob(self.client.requester, request, is_kept=True)


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of a snapshot, whose ``path`` is bytes."""

    client: Client
    key: str
    path: bytes
    max_stream_bytes: int = 64 * MIB
    stream_memory_bytes: int = STREAM_MEMORY_BYTES + WINDOW_BYTES

    async def begin(self, offset: int, length: int) -> tuple[ContentHead, memoryview]:
        """See ``WireSource``."""
        request = ReadFile(key=self.key, path_bytes=self.path)
        return await WireSource(self.client, READ_FILE, request).begin(offset, length)

    async def some(self, offset: int, length: int) -> memoryview:
        """See ``ByteSource``."""
        return (await self.begin(offset, length))[1]

    def stream(self, offset: int, length: int) -> AsyncGenerator[memoryview]:
        """See ``ByteSource``."""
        return self.client.snapshots.stream(self.key, self.path, offset=offset, length=length)


@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """A snapshot as a ``.tar.zst``: in small reads a worker puts it together, in streams we do."""

    client: Client
    key: str
    max_stream_bytes: int = 512 * MIB
    stream_memory_bytes: int = 44 * MIB

    async def begin(self, offset: int, length: int) -> tuple[ContentHead, memoryview]:
        """See ``WireSource``."""
        request = ExportSnapshot(key=self.key)
        return await WireSource(self.client, EXPORT_SNAPSHOT, request).begin(offset, length)

    async def some(self, offset: int, length: int) -> memoryview:
        """See ``ByteSource``."""
        return (await self.begin(offset, length))[1]

    def stream(self, offset: int, length: int) -> AsyncGenerator[memoryview]:
        """See ``ByteSource``."""
        return self.client.snapshots.export(self.key, offset=offset, length=length)


async def read_span(
    source: ByteSource, span: ByteRange, memory: ByteBudget
) -> AsyncGenerator[memoryview]:
    """The bytes of ``span``, in order, none missing. ``memory`` bounds all readers together.

    Raises CorruptError, and what the source does.
    """
    at, size = span.start, SMALL_BYTES
    while at < span.stop:
        length = min(size, span.stop - at)
        is_stream = length > SMALL_BYTES and memory.try_take(source.stream_memory_bytes)
        if not is_stream:
            length = min(length, SMALL_BYTES)
        waited, before = 0.0, at
        try:
            pieces = source.stream(at, length) if is_stream else _small(source, at, length)
            async with aclosing(pieces) as incoming:
                async for piece in incoming:
                    at += len(piece)
                    given_at = time.monotonic()
                    yield piece
                    waited += time.monotonic() - given_at
        finally:
            if is_stream:
                memory.give_back(source.stream_memory_bytes)
        if at != before + length:
            msg = f"{at - before} of {length} bytes came"
            raise CorruptError(msg)
        size = (
            SMALL_BYTES if waited > _SLOW_SECONDS else min(size * _GROWTH, source.max_stream_bytes)
        )


async def _small(source: ByteSource, offset: int, length: int) -> AsyncGenerator[memoryview]:
    data = await source.some(offset, length)
    if len(data) == length:
        yield data
        return
    async with aclosing(source.stream(offset, length)) as pieces:
        async for piece in pieces:
            yield piece
