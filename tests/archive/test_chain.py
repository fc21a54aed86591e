"""A chain of open directories gives the one that is named, and no more than some stay open."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from tests.archive import trees

from holdfast.archive import chain as chains
from holdfast.archive.chain import MAX_OPEN_LEVELS, DirectoryChain
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

PATHS = [b"", b"a", b"a/b", b"a/b/c", b"a/b/c/d/e", b"a/b/x", b"a/y/z", b"q", b"q/r/s/t"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directories on more levels than stay open."""
    monkeypatch.setattr(chains, "MAX_OPEN_LEVELS", 2)
    for path in PATHS:
        (tmp_path / os.fsdecode(path)).mkdir(parents=True, exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("last", PATHS)
@pytest.mark.parametrize("first", PATHS)
def test_from_any_directory_a_chain_goes_to_any_other(
    first: bytes, last: bytes, tree: Path
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    chain = DirectoryChain(tree)

    for path in (first, last):
        assert os.path.samestat(os.fstat(chain.at(path)), (tree / os.fsdecode(path)).stat())
        assert len(os.listdir("/proc/self/fd")) - before <= 3
    chain.close()

    assert len(os.listdir("/proc/self/fd")) == before


def test_each_directory_is_left_once_after_those_in_it(tree: Path) -> None:
    left: list[bytes] = []
    entered: list[bytes] = []

    def enter(parent: int, name: bytes, path: bytes) -> int:
        entered.append(path)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=parent)

    def leave(path: bytes, fd: int) -> None:
        assert os.path.samestat(os.fstat(fd), (tree / os.fsdecode(path)).stat())
        left.append(path)

    chain = DirectoryChain(tree, enter, leave)
    for path in PATHS:
        chain.at(path)
    chain.finish()
    chain.close()

    assert sorted(left) == sorted([b"", *entered])
    assert len(set(left)) == len(left)
    for number, path in enumerate(left):
        assert not any(below.startswith(path + b"/") for below in left[number:])


def test_what_has_gone_behind_a_chain_does_not_hold_it_up(tree: Path) -> None:
    chain = DirectoryChain(tree)
    chain.at(b"a/b/c/d/e")
    shutil.rmtree(tree / "a/b/c")

    assert os.listdir(chain.at(b"a/b/x")) == []
    assert sorted(os.listdir(chain.at(b"a/b"))) == ["x"]
    with pytest.raises(FileNotFoundError):
        chain.at(b"a/b/c/d")
    assert sorted(os.listdir(chain.at(b"a"))) == ["b", "y"]
    chain.close()


def test_a_link_that_is_swapped_in_leads_nowhere(tree: Path, tmp_path: Path) -> None:
    chain = DirectoryChain(tree)
    shutil.rmtree(tree / "a/y")
    (tree / "a/y").symlink_to(tmp_path / "q")

    with pytest.raises(NotADirectoryError):
        chain.at(b"a/y")
    chain.close()


@pytest.mark.parametrize("name", [b".", b"..", b"a/../q", b"a//b"])
def test_a_chain_follows_names_only(name: bytes, tree: Path) -> None:
    chain = DirectoryChain(tree)

    with pytest.raises(CorruptError):
        chain.at(name)
    chain.close()


def test_a_chain_keeps_a_bounded_number_of_directories_open(tmp_path: Path) -> None:
    levels = 3 * MAX_OPEN_LEVELS
    trees.write(tmp_path, "/".join(["a"] * levels + ["file"]))
    before = len(os.listdir("/proc/self/fd"))
    chain = DirectoryChain(tmp_path)

    fd = chain.at(b"/".join([b"a"] * levels))
    opened = len(os.listdir("/proc/self/fd")) - before
    names = os.listdir(fd)
    upper = os.listdir(chain.at(b"/".join([b"a"] * (levels - 5))))
    chain.close()

    assert names == ["file"]
    assert upper == ["a"]
    assert opened <= MAX_OPEN_LEVELS + 2
    assert len(os.listdir("/proc/self/fd")) == before
