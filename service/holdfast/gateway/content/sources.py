"""The sources of content: bytes that never change, read in pieces as fast as they are taken.

A slow reader has them in small reads of one answer each; only a fast one has windows on their way,
and those of all together are bounded. So hundreds of slow readers need no more memory than a few
fast ones.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.client.reads.download import stream_blob, though_deleted
from holdfast.client.reads.windows import HeadT
from holdfast.domain.limits import KIB, MIB, WINDOW_BYTES
from holdfast.errors import CorruptError
from holdfast.protocol.blobs import GET_BLOB, ContentHead, GetBlob
from holdfast.protocol.files import EXPORT_SNAPSHOT, READ_FILE, ExportSnapshot, ReadFile

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from holdfast.client import Client
    from holdfast.client.budget import ByteBudget
    from holdfast.gateway.content.ranges import ByteRange
    from holdfast.protocol.operation import Operation

SMALL_BYTES: Final = 128 * KIB
"""Bytes of one answer to a slow reader."""

_GROWTH: Final = 8
_SLOW_SECONDS: Final = 0.25
"""A reader that takes longer over a read gets small ones again."""

STREAM_MEMORY_BYTES: Final = 3 * WINDOW_BYTES
"""Bytes on the way in a stream of a blob or a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteSource:
    """Bytes that are the same whenever they are asked for.

    ``ask`` gives the head of a request for up to so many bytes from an offset on, and the bytes;
    none where they do not fit one answer. ``stream`` gives exactly these bytes, in order: no more
    than ``max_stream_bytes`` at a time, for which it takes ``stream_memory_bytes``.
    """

    ask: Callable[[int, int], Awaitable[tuple[ContentHead, memoryview]]]
    stream: Callable[[int, int], AsyncGenerator[memoryview]]
    max_stream_bytes: int = 64 * MIB
    stream_memory_bytes: int


async def ask_span(
    client: Client, operation: Operation[Any, HeadT], request: Any, offset: int, length: int
) -> tuple[HeadT, memoryview]:
    """See ``ByteSource``."""
    asked = msgspec.structs.replace(request, offset=offset, length=length)
    head, data = await client.requester.ask_for_bytes(operation, asked, length)
    # A copy: what came is a view that holds many times as much (transport/parser.py), and a
    # slow reader may hold this for long.
    return head, memoryview(bytes(data) if len(data) == head.length else b"")


def blob_source(client: Client, digest: str) -> ByteSource:
    """A blob that was found: what deletes it by its digest meanwhile does not end the read."""

    async def ask(offset: int, length: int) -> tuple[ContentHead, memoryview]:
        return await though_deleted(
            GetBlob(digest=digest),
            lambda request: ask_span(client, GET_BLOB, request, offset, length),
        )

    def stream(offset: int, length: int) -> AsyncGenerator[memoryview]:
        request = GetBlob(digest=digest, offset=offset, length=length)
        return stream_blob(client.requester, request, is_kept=True)

    return ByteSource(ask=ask, stream=stream, stream_memory_bytes=STREAM_MEMORY_BYTES)


def file_source(client: Client, key: str, path: bytes) -> ByteSource:
    """A file of a snapshot."""
    return ByteSource(
        ask=partial(ask_span, client, READ_FILE, ReadFile(key=key, path_bytes=path)),
        stream=lambda offset, length: client.snapshots.stream(
            key, path, offset=offset, length=length
        ),
        stream_memory_bytes=STREAM_MEMORY_BYTES + WINDOW_BYTES,
    )


def archive_source(client: Client, key: str) -> ByteSource:
    """A snapshot as a ``.tar.zst``: in small reads a worker puts it together, in streams we do."""
    return ByteSource(
        ask=partial(ask_span, client, EXPORT_SNAPSHOT, ExportSnapshot(key=key)),
        stream=lambda offset, length: client.snapshots.export(key, offset=offset, length=length),
        max_stream_bytes=512 * MIB,
        stream_memory_bytes=44 * MIB,
    )


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
            raise CorruptError(f"{at - before} of {length} bytes came")
        size = (
            SMALL_BYTES if waited > _SLOW_SECONDS else min(size * _GROWTH, source.max_stream_bytes)
        )


async def _small(source: ByteSource, offset: int, length: int) -> AsyncGenerator[memoryview]:
    _, data = await source.ask(offset, length)
    if len(data) == length:
        yield data
        return
    async with aclosing(source.stream(offset, length)) as pieces:
        async for piece in pieces:
            yield piece
