"""Making, exchanging and removing names in directories, without following a link."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from tests.archive.trees import deep, nasty, strange

from holdfast.archive.directories import (
    MAX_REMOVE_ROUNDS,
    NAMES_PER_BATCH,
    exchange,
    failure_of,
    has_mounts,
    open_directory,
    remove_entry,
    rename_new,
    reported,
    sync_filesystem,
)
from holdfast.errors import (
    ForbiddenError,
    HoldfastError,
    InvalidError,
    QuotaExceededError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    fd = open_directory(tmp_path)
    yield fd
    os.close(fd)


def test_directories_change_places_in_one_step(tmp_path: Path, parent: int) -> None:
    (tmp_path / "a" / "in a").mkdir(parents=True)
    (tmp_path / "b" / "in b").mkdir(parents=True)

    exchange(parent, b"a", b"b")

    assert os.listdir(tmp_path / "a") == ["in b"]
    assert os.listdir(tmp_path / "b") == ["in a"]


def test_renaming_does_not_replace_what_is_there(tmp_path: Path, parent: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    with pytest.raises(FileExistsError):
        rename_new(parent, b"a", b"b")
    rename_new(parent, b"a", b"c")

    assert sorted(os.listdir(tmp_path)) == ["b", "c"]


def test_a_mount_point_cannot_be_exchanged_and_the_caller_learns_what_to_do() -> None:
    root = open_directory("/")
    try:
        with pytest.raises((InvalidError, OSError)) as raised:
            exchange(root, b"proc", b"sys")
    finally:
        os.close(root)

    if isinstance(raised.value, InvalidError):
        assert "merge" in raised.value.detail


def test_mount_points_are_found_below_a_directory(tmp_path: Path) -> None:
    plain, root = open_directory(tmp_path), open_directory("/")
    try:
        assert not has_mounts(plain)
        assert has_mounts(root)
    finally:
        os.close(plain)
        os.close(root)


def test_a_tree_is_removed_and_counted_with_everything_in_it(tmp_path: Path, parent: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nasty(tree)
    strange(tree)
    for number in range(NAMES_PER_BATCH + 1):
        (tree / f"many {number}").touch()
    expected = 1 + sum(len(names) + len(files) for _, names, files in os.walk(tree))

    removed = remove_entry(parent, b"tree")

    assert removed == expected
    assert os.listdir(tmp_path) == []


def test_a_tree_deeper_than_the_open_directories_is_removed(tmp_path: Path, parent: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    levels = deep(tree, 30_000).count(b"/")
    # A name that the removal would like to use itself:
    (tree / ".holdfast-deep-1").mkdir()

    removed = remove_entry(parent, b"tree")

    assert removed == levels + len(["tree", "the file", "the name"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("times", [3, MAX_REMOVE_ROUNDS + 1])
def test_removing_ends_though_somebody_keeps_making_files_in_the_tree(
    tmp_path: Path, parent: int, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    rmdir, left = os.rmdir, times
    (tmp_path / "tree" / "d").mkdir(parents=True)

    def busy(name: bytes, *, dir_fd: int) -> None:
        nonlocal left
        if left:
            left -= 1
            os.close(os.open(name + b"/x", os.O_CREAT | os.O_WRONLY, dir_fd=dir_fd))
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", busy)
    if times > MAX_REMOVE_ROUNDS:
        with pytest.raises(OSError, match="not empty"):
            remove_entry(parent, b"tree")
    else:
        assert remove_entry(parent, b"tree") == 2 + times
        assert os.listdir(tmp_path) == []


def test_removing_follows_no_link(tmp_path: Path, parent: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").touch()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (tmp_path / "link").symlink_to(outside)

    assert remove_entry(parent, b"tree") == 2
    assert remove_entry(parent, b"link") == 1
    assert remove_entry(parent, b"link") == 0

    assert os.listdir(outside) == ["canary"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, QuotaExceededError),
        (errno.EDQUOT, QuotaExceededError),
        (errno.EACCES, ForbiddenError),
        (errno.EPERM, ForbiddenError),
        (errno.EROFS, ForbiddenError),
        (errno.ENAMETOOLONG, InvalidError),
        (errno.ENOTDIR, InvalidError),
        (errno.EBUSY, InvalidError),
        (errno.ELOOP, InvalidError),
        (errno.EIO, UnavailableError),
        (errno.EMFILE, UnavailableError),
    ],
)
@pytest.mark.fault("D06")
def test_errors_of_the_system_become_what_a_caller_can_act_on(
    number: int, expected: type[HoldfastError]
) -> None:
    error = OSError(number, os.strerror(number))

    with pytest.raises(expected, match="writing 'x'"), reported("writing 'x'"):
        raise error

    assert type(failure_of(error, "y")) is expected


def test_a_file_system_is_synced_by_any_descriptor_in_it(parent: int) -> None:
    sync_filesystem(parent)

    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_filesystem(-1)
