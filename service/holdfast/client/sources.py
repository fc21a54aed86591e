"""What can be put, as one thing: pieces of a fixed size, read ahead of who takes them.

Files are read in a thread, so the event loop sends while the next piece is read. Nothing is read
twice: a pipe cannot be rewound.
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterable
from contextlib import aclosing
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

READ_BYTES: Final = 1024 * 1024


class SupportsRead(Protocol):
    """A binary file object."""

    def read(self, size: int, /) -> bytes | None:
        """Up to ``size`` bytes; empty at the end."""


type Source = (
    bytes | bytearray | memoryview | str | os.PathLike[str] | SupportsRead | AsyncIterable[bytes]
)


def size_of(source: Source) -> int | None:
    """How many bytes will come, where that is known beforehand."""
    if isinstance(source, bytes | bytearray | memoryview):
        return memoryview(source).nbytes
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.stat().st_size if path.is_file() else None
    return None


async def blocks(source: Source) -> AsyncIterator[memoryview]:
    """``source`` in blocks of any size; of a path or file object, about 1 MiB each."""
    if isinstance(source, bytes | bytearray | memoryview):
        view = memoryview(source).cast("B")
        for start in range(0, len(view), READ_BYTES):
            yield view[start : start + READ_BYTES]
    elif isinstance(source, AsyncIterable):
        async for block in source:
            yield memoryview(block).cast("B")
    elif isinstance(source, str | os.PathLike):
        file = await asyncio.to_thread(_open, source)
        try:
            async with aclosing(_read_ahead(file, ours=True)) as ahead:
                async for piece in ahead:
                    yield piece
        finally:
            file.close()
    else:
        async with aclosing(_read_ahead(source, ours=False)) as ahead:
            async for piece in ahead:
                yield piece


async def pieces(source: AsyncIterator[memoryview], size: int) -> AsyncIterator[memoryview]:
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


async def _read_ahead(file: SupportsRead, *, ours: bool) -> AsyncGenerator[memoryview, None]:
    """Read the next block while this one is being used. ``ours`` is a file that we will close."""
    ahead = asyncio.create_task(asyncio.to_thread(_read, file))
    try:
        # Shielded: else a cancelled wait would look like a read that has ended.
        while block := await asyncio.shield(ahead):
            ahead = asyncio.create_task(asyncio.to_thread(_read, file))
            yield memoryview(block)
    finally:
        # A thread that reads cannot be stopped; whoever closes the file must not do it under it.
        # A caller's pipe or terminal may never give another byte: nobody waits for that here.
        if not ours:
            ahead.cancel()
        elif not ahead.done():
            await asyncio.wait([ahead])


def _read(file: SupportsRead) -> bytes | None:
    return file.read(READ_BYTES)


def _open(path: str | os.PathLike[str]) -> IO[bytes]:
    return io.open(path, "rb", buffering=0)  # noqa: UP020  (raw: blocks are large already)
