"""Sources of a put as one thing: pieces of a fixed size, read ahead of their taker.

Files are read in a thread, so the event loop sends while the next piece is read. Nothing is read
twice: a pipe cannot be rewound.
"""

from __future__ import annotations

import asyncio
import os
import queue
import stat
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from functools import partial
from typing import IO, TYPE_CHECKING, Final, Protocol

from holdfast.client.from_thread import settle
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
    elif isinstance(source, str | os.PathLike):
        file = await asyncio.to_thread(open, source, "rb", buffering=0)  # blocks are large already
        try:
            async with aclosing(_read_ahead(_as_it_is(file), ours=True)) as ahead:
                async for piece in ahead:
                    yield piece
        finally:
            file.close()
    else:
        async with aclosing(_read_ahead(source, ours=False)) as ahead:
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


async def _read_ahead(file: SupportsRead, *, ours: bool) -> AsyncGenerator[memoryview]:
    """Read the next block while this one is being used. ``ours`` is a file that we will close."""
    reader = _ThreadReader(file)
    ahead = reader.read()
    try:
        # Shielded: else a cancelled wait would look like a read that has ended.
        while block := await asyncio.shield(ahead):
            ahead = reader.read()
            yield memoryview(block)
    finally:
        reader.end()
        # A thread that reads cannot be stopped; whoever closes the file must not do it under it.
        # A caller's pipe or terminal may never give another byte: nobody waits for that here.
        if ours and not ahead.done():
            await asyncio.wait([ahead])
        if not ahead.cancel():
            look_at(ahead)


class _ThreadReader:
    """Reads a file in a thread of its own.

    A daemon thread, not one of the loop's: those are waited for when the program ends, and a read
    of a silent terminal does not.
    """

    def __init__(self, file: SupportsRead) -> None:
        self._file = file
        self._wanted: queue.SimpleQueue[asyncio.Future[bytes] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="holdfast-read", daemon=True).start()

    def read(self) -> asyncio.Future[bytes]:
        """Begin to read a block; empty at the end."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._wanted.put(future)
        return future

    def end(self) -> None:
        """No more will be read."""
        self._wanted.put(None)

    def _run(self) -> None:
        while (future := self._wanted.get()) is not None:
            settle(future, partial(read_block, self._file, READ_BYTES))


class _FirstBytes:
    """As much of a file as ``size``: what is appended meanwhile belongs to another time."""

    def __init__(self, file: SupportsRead, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int, /) -> bytes | None:
        block = self._file.read(min(size, self._left))
        self._left -= len(block or b"")
        return block


def _as_it_is(file: IO[bytes]) -> SupportsRead:
    """``file`` up to the size that it has now; a pipe, or what claims to be empty, to its end."""
    status = os.fstat(file.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return _FirstBytes(file, status.st_size)
    return file  # many files of /proc have the size 0, and content


def read_block(file: SupportsRead, size: int) -> bytes:
    """Up to ``size`` bytes, none at the end. Raises BlockingIOError of a file without any now."""
    block = file.read(size)
    if block is None:
        raise BlockingIOError("the source is set to non-blocking and has no bytes yet")
    return block
