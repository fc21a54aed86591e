"""Sources of a put as one thing: pieces of a fixed size, read ahead of their taker.

Files are read in a thread, so the event loop sends while the next piece is read. Nothing is read
twice: a pipe cannot be rewound.
"""

from __future__ import annotations

import asyncio
import math
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import IO, TYPE_CHECKING, Final, Protocol

from holdfast.client.from_thread import DaemonThread
from holdfast.deadline import look_at

if TYPE_CHECKING:
    from holdfast.client.small_files import SmallFiles

READ_BYTES: Final = 1024 * 1024


class SupportsRead(Protocol):
    """A binary file object."""

    def read(self, size: int, /) -> bytes | None:
        """Up to ``size`` bytes; empty at the end."""


type Source = (
    bytes | bytearray | memoryview | str | os.PathLike[str] | SupportsRead | AsyncIterable[bytes]
)


type OnBytes = Callable[[int, int | None], None]
"""Told (bytes done, bytes in all; None where that is not known)."""


def source_size(source: Source) -> int | None:
    """Bytes that will come, as far as that can be told: a file may change meanwhile."""
    if isinstance(source, bytes | bytearray | memoryview):
        return memoryview(source).nbytes
    if isinstance(source, str | os.PathLike):
        try:
            found = os.stat(source)
        except (OSError, ValueError):  # whoever opens it will say so
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None


async def whole_if_small(source: Source, most_bytes: int, files: SmallFiles) -> memoryview | None:
    """All of ``source``, if it is no more than ``most_bytes`` in memory or in a file.

    None where it is more, or where it cannot be told before it is read. Raises OSError.
    """
    size = source_size(source)
    if size is None or size > most_bytes:
        return None
    if isinstance(source, str | os.PathLike):
        data = await files.read(source, most_bytes + 1)
        return memoryview(data) if len(data) <= most_bytes else None  # it has grown
    if isinstance(source, bytes | bytearray | memoryview):
        return memoryview(source).cast("B")
    return None


async def blocks(source: Source) -> AsyncGenerator[memoryview]:
    """``source`` in blocks of any size; of a path or file object, about 1 MiB each.

    A file at a path gives the bytes that it has when it is opened, or fewer if it shrinks.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source).cast("B")
        for start in range(0, len(view), READ_BYTES):
            yield view[start : start + READ_BYTES]
    elif isinstance(source, AsyncIterable):
        async for block in source:
            yield memoryview(block).cast("B")
    else:
        file = _PathFile(source) if isinstance(source, str | os.PathLike) else _CallersFile(source)
        async with aclosing(_read_ahead(file)) as ahead:
            async for piece in ahead:
                yield piece


async def pieces(source: AsyncIterator[memoryview], size: int) -> AsyncGenerator[memoryview]:
    """The same bytes, in pieces of exactly ``size`` but for the last. Copies only at seams."""
    seam = bytearray()
    async for block in source:
        rest = block
        if seam:
            taken = size - len(seam)
            seam += rest[:taken]
            rest = rest[taken:]
            if len(seam) == size:
                yield memoryview(seam)
                seam = bytearray()
        while len(rest) >= size:
            yield rest[:size]
            rest = rest[size:]
        seam += rest
    if seam:
        yield memoryview(seam)


async def _read_ahead(file: _PathFile | _CallersFile) -> AsyncGenerator[memoryview]:
    """Read the next block while this one is being used."""
    thread = DaemonThread("holdfast-read")
    read = partial(read_block, file, READ_BYTES)
    ahead = thread.do(read)
    try:
        # Shielded: else a cancelled wait would look like a read that has ended.
        while block := await asyncio.shield(ahead):
            ahead = thread.do(read)
            yield memoryview(block)
    finally:
        # A read cannot be stopped, and may never end: who gives up does not wait for that. The
        # file is closed behind it.
        closed = thread.do(file.close)
        thread.end()
        if ahead.done():
            await asyncio.wait([closed])
        for future in (ahead, closed):
            if not future.cancel():
                look_at(future)


class _CallersFile:
    """A caller's file object, which stays open."""

    def __init__(self, file: SupportsRead) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes | None:
        return self._file.read(size)

    def close(self) -> None:
        pass


class _PathFile:
    """The file at a path, opened by the first read: opening a pipe waits for who writes to it.

    Without a buffer, for blocks are large.
    Of a regular file come the bytes that it has then, or fewer: what is appended meanwhile belongs
    to another time. A pipe, or what claims to be empty, is read to its end: many files of /proc
    have the size 0, and content.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._left = math.inf

    def read(self, size: int, /) -> bytes | None:
        if self._file is None:
            self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115  (`close` does)
            status = os.fstat(self._file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size:
                self._left = status.st_size
        block = self._file.read(int(min(size, self._left)))
        self._left -= len(block or b"")
        return block

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_block(file: SupportsRead, size: int) -> bytes:
    """Up to ``size`` bytes, none at the end. Raises BlockingIOError of a file without any now."""
    block = file.read(size)
    if block is None:
        raise BlockingIOError("the source is set to non-blocking and has no bytes yet")
    return block
