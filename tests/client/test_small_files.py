"""Small files read together: each ends as if it had been read alone."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast.client import small_files
from holdfast.client.small_files import SmallFiles

if TYPE_CHECKING:
    from pathlib import Path


async def test_each_gives_its_own_bytes_and_no_more_than_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(100)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%d" % number * 10)
    files = SmallFiles()
    found = await asyncio.gather(*(files.read(path, 12) for path in paths))
    assert found == [(b"%d" % number * 10)[:12] for number in range(100)]


async def test_one_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"bytes")
    files = SmallFiles()
    there, gone, odd = await asyncio.gather(
        files.read(tmp_path / "there", 10),
        files.read(tmp_path / "gone", 10),
        files.read("a\0b", 10),
        return_exceptions=True,
    )
    assert there == b"bytes"
    assert isinstance(gone, FileNotFoundError)
    assert isinstance(odd, ValueError)


async def test_whoever_gives_up_leaves_the_others_theirs(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"bytes")
    files = SmallFiles()
    given_up = asyncio.create_task(files.read(tmp_path / "there", 10))
    kept = asyncio.create_task(files.read(tmp_path / "there", 10))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await kept == b"bytes"
    assert given_up.cancelled()


async def test_a_file_that_hangs_keeps_up_only_those_that_are_read_with_it(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"bytes")
    os.mkfifo(tmp_path / "hangs")
    files = SmallFiles()
    hanging = asyncio.create_task(files.read(tmp_path / "hangs", 10))
    await asyncio.sleep(0)  # it is asked for alone
    await asyncio.sleep(0)
    assert await files.read(tmp_path / "there", 10) == b"bytes"
    assert not hanging.done()
    (tmp_path / "hangs").write_bytes(b"late")
    assert await hanging == b"late"


async def test_many_take_few_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").write_bytes(b"bytes")
    threads: list[threading.Thread] = []
    read_all = small_files._read_all

    def counted(wanted: list[small_files.Wanted]) -> list[bytes | Exception]:
        threads.append(threading.current_thread())
        return read_all(wanted)

    monkeypatch.setattr(small_files, "_read_all", counted)
    files = SmallFiles()
    await asyncio.gather(*(files.read(tmp_path / "there", 10) for _ in range(64)))
    assert len(threads) == 4  # of 16 files each
