"""Sources that give nothing more: who waits for them, and who must not."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from holdfast.client.sources import READ_BYTES, blocks


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


async def test_nor_for_a_pipe_at_a_path_which_is_closed_once_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writing = os.open(path, os.O_RDWR)  # so that opening it to read does not wait
    os.write(writing, b"x")
    incoming: Any = blocks(path)
    async with asyncio.timeout(20), aclosing(incoming):
        assert await anext(incoming) == b"x"
    assert open_here(path) == 2, "not closed under the read that is under way"

    os.close(writing)  # now the read ends

    while open_here(path):  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0.001)


async def test_nor_for_a_pipe_that_nobody_has_opened_to_write(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    incoming: Any = blocks(path)
    opening = asyncio.create_task(anext(incoming))
    await asyncio.sleep(0)

    opening.cancel()

    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await opening
    os.close(os.open(path, os.O_RDWR))  # so that the thread comes to its end


def open_here(path: Path) -> int:
    """How often this process has ``path`` open."""
    here = Path("/proc/self/fd")
    return sum(os.path.realpath(here / number) == str(path) for number in os.listdir(here))
