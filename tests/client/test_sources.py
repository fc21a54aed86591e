"""Sources that give nothing more: who waits for them, and who must not."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.client.sources import READ_BYTES, blocks

if TYPE_CHECKING:
    from pathlib import Path


async def test_of_a_file_that_grows_come_the_bytes_that_it_had(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before")
    incoming: Any = blocks(path)

    async with aclosing(incoming):
        got = bytes(await anext(incoming))
        with path.open("ab") as file:
            file.write(b" and after")
        got += b"".join([bytes(block) async for block in incoming])

    assert got == b"before"


async def test_of_a_file_that_is_opened_before_it_shrinks_come_the_bytes_that_are_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(3 * READ_BYTES))
    incoming: Any = blocks(path)

    async with aclosing(incoming):
        size = len(await anext(incoming))
        os.truncate(path, size + 5)
        size += sum([len(block) async for block in incoming])

    assert size in {READ_BYTES + 5, 2 * READ_BYTES}, "a block may have been read ahead"


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
async def test_a_file_that_claims_to_be_empty_is_read_to_its_end() -> None:
    content = b"".join([bytes(block) async for block in blocks("/proc/self/status")])

    assert b"Pid:" in content


class Stalled:
    """A caller's file object: one block, then nothing until the test lets it end."""

    def __init__(self, reading: int) -> None:
        self.is_read = asyncio.Event()
        self.has_ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reading = reading
        self._first = True

    def read(self, size: int, /) -> bytes:
        """A byte at once; then what comes out of a pipe."""
        if self._first:
            self._first = False
            return b"x"
        self._loop.call_soon_threadsafe(self.is_read.set)
        block = os.read(self._reading, size)
        self._loop.call_soon_threadsafe(self.has_ended.set)
        return block


async def test_whoever_stops_does_not_wait_for_a_file_object_that_gives_nothing() -> None:
    reading, writing = os.pipe()
    source = Stalled(reading)
    try:
        incoming: Any = blocks(source)
        async with asyncio.timeout(30), aclosing(incoming):
            assert await anext(incoming) == b"x"
            await source.is_read.wait()
    finally:
        os.close(writing)
        await source.has_ended.wait()
        os.close(reading)


async def test_a_file_that_was_opened_for_its_path_is_not_closed_under_a_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writing = os.open(path, os.O_RDWR)  # so that opening it to read does not wait
    os.write(writing, b"x")
    incoming: Any = blocks(path)
    assert await anext(incoming) == b"x"
    following = asyncio.create_task(anext(incoming))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    following.cancel()
    done, _ = await asyncio.wait([following], timeout=0.2)
    assert not done, "a thread is reading still"

    os.close(writing)  # now the read ends
    with pytest.raises(asyncio.CancelledError):
        await following
