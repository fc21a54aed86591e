"""Files that appear whole or not at all, and targets that are no files."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from holdfast.client.partial_file import partial_file, write_to, write_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def test_the_file_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before")

    with partial_file(target) as file:
        file.write(b"after")
        assert target.read_bytes() == b"before"

    assert target.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["target"]


def test_a_failure_leaves_what_was_there_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"before")

    def tear() -> None:
        with partial_file(target) as file:
            file.write(b"half")
            msg = "torn"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="torn"):
        tear()

    assert target.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["target"]


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    with partial_file(fifo) as file:
        file.write(b"through")

    assert os.read(reading, 100) == b"through"
    assert fifo.is_fifo()
    os.close(reading)


def test_a_directory_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), partial_file(tmp_path):
        pass


def test_a_name_as_long_as_names_may_be_is_a_target(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 127)

    with partial_file(target) as file:
        file.write(b"x")

    assert target.read_bytes() == b"x"


class Crumbs(io.RawIOBase):
    """Takes a few bytes at a time, then none."""

    def __init__(self, takes: list[int]) -> None:
        self.takes = takes
        self.taken = b""

    def write(self, data: object, /) -> int:
        count = self.takes.pop(0) if self.takes else 0
        self.taken += bytes(memoryview(data)[:count])  # type: ignore[arg-type]
        return count


def test_a_raw_file_gets_every_byte() -> None:
    file = Crumbs([1, 3, 2])

    write_whole(file, memoryview(b"abcdef"))

    assert file.taken == b"abcdef"


def test_a_file_that_takes_no_more_is_an_error() -> None:
    with pytest.raises(BlockingIOError):
        write_whole(Crumbs([2]), memoryview(b"abcdef"))


async def test_what_comes_goes_to_a_path_or_a_file(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[memoryview]:
        yield memoryview(b"one ")
        yield memoryview(b"two")

    file = io.BytesIO()

    to_path = await write_to(tmp_path / "target", pieces())
    to_file = await write_to(file, pieces())

    assert (to_path, to_file) == (7, 7)
    assert (tmp_path / "target").read_bytes() == file.getvalue() == b"one two"
