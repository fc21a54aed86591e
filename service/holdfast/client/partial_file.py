"""Where downloads go: a file that appears in its place when every byte is there, or not at all."""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


class SupportsWrite(Protocol):
    """A binary file object."""

    def write(self, data: memoryview, /) -> int | None:
        """Take ``data``, or say how much of it was taken."""


@contextmanager
def partial_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file beside ``path`` that takes its place on leaving, unless there was an exception.

    What was at ``path`` stays until then. A device or a pipe there is written to directly: there
    is nothing to replace. Raises OSError.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        with target.open("wb") as device:
            yield device
        return
    # A name nobody can foresee, made anew: what others put in its way is neither followed nor used.
    partial = target.with_name(f".{target.name[:50]}.{secrets.token_hex(8)}.partial")
    file = partial.open("xb")
    try:
        with file:
            yield file
        partial.replace(target)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_whole(file: SupportsWrite, piece: memoryview) -> None:
    """Write all of ``piece``: a raw file may take less at a time. Raises OSError."""
    while piece:
        written = file.write(piece)
        if written is None and not isinstance(file, io.RawIOBase):
            return  # not everybody's ``write`` says how much; those that do not take all
        if not written:
            msg = "the target takes no more bytes"
            raise BlockingIOError(msg)
        piece = piece[written:]


@contextmanager
def opened_target(target: str | os.PathLike[str] | SupportsWrite) -> Iterator[SupportsWrite]:
    """What to write to: a ``partial_file``, or the caller's file object as it is."""
    if isinstance(target, str | os.PathLike):
        with partial_file(target) as file:
            yield file
    else:
        yield target


async def write_to(
    target: str | os.PathLike[str] | SupportsWrite, incoming: AsyncIterator[memoryview]
) -> int:
    """Write what comes to a path or file object; how many bytes. See ``partial_file``."""
    size = 0
    with opened_target(target) as file:
        async for piece in incoming:
            # In a thread, so that the next window comes in meanwhile.
            await asyncio.to_thread(write_whole, file, piece)
            size += len(piece)
    return size
