"""Files that appear whole or not at all, and targets that are no files."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import struct
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.conftest import unread_bytes

from holdfast.client.from_thread import PIPE_STOP_SECONDS
from holdfast.client.reads.partial_file import partial_file, write_parts, write_to, write_whole

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

ACCESS_LIST = "system.posix_acl_access"
NOBODY = 2**32 - 1
# The owner, user 1234, the group, what limits these two, and all others.
ENTRIES = ((1, 6, NOBODY), (2, 4, 1234), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
ONE_MORE_READER = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in ENTRIES)


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


def test_a_link_stays_and_what_it_names_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"before")
    (tmp_path / "second").symlink_to("real/file")
    (tmp_path / "first").symlink_to(tmp_path / "second")

    with partial_file(tmp_path / "first") as file:
        file.write(b"after")
        assert (tmp_path / "first").read_bytes() == b"before"

    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert (tmp_path / "real" / "file").read_bytes() == b"after"
    assert os.listdir(tmp_path / "real") == ["file"]


def test_a_link_that_names_nothing_yet_is_followed_too(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("new")

    with partial_file(tmp_path / "link") as file:
        file.write(b"x")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new").read_bytes() == b"x"


def test_links_that_go_round_are_an_error_that_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match=r"symbolic links: .*/a'"), partial_file(tmp_path / "a"):
        pass


@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc")
def test_an_open_file_goes_on_where_it_stands(name: str, tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb", buffering=0) as output:
        output.write(b"before ")
        path = tmp_path / "link" if name == "link" else name.format(output.fileno())
        if name == "link":
            path.symlink_to(f"/proc/self/fd/{output.fileno()}")  # type: ignore[union-attr]

        with partial_file(path) as file:
            file.write(b"through ")
        output.write(b"after")

    assert (tmp_path / "output").read_bytes() == b"before through after"


def test_another_processs_open_file_is_written_through(tmp_path: Path) -> None:
    read, write = os.pipe()
    output = (tmp_path / "output").open("wb")
    with subprocess.Popen(["cat"], stdin=read, stdout=output) as other:
        output.close()
        before = (tmp_path / "output").stat().st_ino

        with partial_file(f"/proc/{other.pid}/fd/1") as file:
            file.write(b"through")

        os.close(read)
        os.close(write)
    assert (tmp_path / "output").read_bytes() == b"through"
    assert (tmp_path / "output").stat().st_ino == before


def test_a_device_is_written_to_and_stays() -> None:
    with partial_file("/dev/null") as file:
        file.write(b"x")

    assert Path("/dev/null").is_char_device()


@pytest.fixture
def umask() -> Iterator[None]:
    """The usual one, whatever the tests are run with."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666, 0o755])
def test_the_mode_of_what_was_there_stays(mode: int, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    target.chmod(mode)

    with partial_file(target) as file:
        file.write(b"x")

    assert stat.S_IMODE(target.stat().st_mode) == mode


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_the_umasks_mode_and_is_private_until_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "target"

    with partial_file(target) as file:
        file.write(b"x")
        (beside,) = tmp_path.iterdir()
        assert stat.S_IMODE(beside.stat().st_mode) == 0o700

    assert stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_what_was_there_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    os.chown(target, 1234, 2345)

    with partial_file(target) as file:
        file.write(b"x")

    assert (target.stat().st_uid, target.stat().st_gid) == (1234, 2345)


def test_the_access_list_of_what_was_there_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    try:
        os.setxattr(target, ACCESS_LIST, ONE_MORE_READER)
    except OSError:
        pytest.skip("there are no access lists here")

    with partial_file(target) as file:
        file.write(b"x")

    assert os.getxattr(target, ACCESS_LIST) == ONE_MORE_READER


def test_a_failure_names_what_was_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "gone" / "target"

    with pytest.raises(FileNotFoundError) as caught, partial_file(target):
        pass

    assert caught.value.filename == str(target)


def test_a_full_device_is_named() -> None:
    def fill() -> None:
        with partial_file("/dev/full") as file:
            file.write(b"x")

    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        fill()


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


@pytest.mark.parametrize("count", [1, 2, 3000])
def test_parts_are_written_one_after_the_other(tmp_path: Path, count: int) -> None:
    parts = [memoryview(f"{number},".encode()) for number in range(count)]
    crumbs = Crumbs([7] * 3000)

    with partial_file(tmp_path / "target") as file:
        write_parts(file, parts)
        write_parts(file, parts)
    write_parts(crumbs, parts)

    assert (tmp_path / "target").read_bytes() == b"".join(parts + parts)
    assert crumbs.taken == b"".join(parts)


def test_a_pipe_that_takes_a_part_of_the_parts_has_no_others() -> None:
    parts = [memoryview(bytes([number]) * 40_000) for number in range(4)]
    out, into = os.pipe()
    os.set_blocking(into, False)

    with open(out, "rb", buffering=0) as reader:
        with open(into, "wb", buffering=0) as file, pytest.raises(BlockingIOError):
            write_parts(file, parts)
        taken = reader.read()

    assert taken
    assert b"".join(parts).startswith(taken)


async def test_what_comes_goes_to_a_path_or_a_file(tmp_path: Path) -> None:
    async def pieces() -> AsyncGenerator[memoryview]:
        yield memoryview(b"one ")
        yield memoryview(b"two")

    file = io.BytesIO()

    to_path = await write_to(tmp_path / "target", pieces())
    to_file = await write_to(file, pieces())

    assert (to_path, to_file) == (7, 7)
    assert (tmp_path / "target").read_bytes() == file.getvalue() == b"one two"


async def test_whoever_stops_does_not_wait_for_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDWR)

    async def more() -> AsyncGenerator[memoryview]:
        while True:
            yield memoryview(bytes(100_000))

    writing = asyncio.create_task(write_to(path, more()))
    while not unread_bytes(reading):  # noqa: ASYNC110  (no event tells)
        await asyncio.sleep(0.001)
    writing.cancel()

    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await writing
    os.read(reading, 1_000_000)  # so that the thread comes to its end
    os.read(reading, 1_000_000)
    os.close(reading)


class SlowFile:
    """A file whose writes take as long as it is told to wait."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.taken = 0

    def write(self, data: memoryview) -> int:
        self.begun.set()
        self.may_end.wait()
        self.taken += len(data)
        return len(data)


async def test_a_write_to_a_slow_file_does_not_go_on_behind_the_caller() -> None:
    async def pieces() -> AsyncGenerator[memoryview]:
        yield memoryview(b"bytes")
        yield memoryview(b"more")

    file = SlowFile()
    writing = asyncio.create_task(write_to(file, pieces()))
    await asyncio.to_thread(file.begun.wait)

    writing.cancel()
    asyncio.get_running_loop().call_later(2 * PIPE_STOP_SECONDS, file.may_end.set)
    await asyncio.wait([writing])

    assert writing.cancelled()
    assert file.taken == len(b"bytes")
