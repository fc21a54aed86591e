"""The trees of a benchmark: changes are drawn by seed, and are what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.bench.trees import (
    change_blocks,
    mid_file,
    regular_files,
    scatter_change,
    write_large_file,
)

from holdfast.cli.bench.snapshots import copy_tree, describe_tree
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path


def make_tree(root: Path, files: int = 250) -> Path:
    root.mkdir()
    (root / "empty").touch()
    (root / "link").symlink_to("empty")
    for number in range(files):
        path = root / f"{number % 7}" / f"{number:04}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"%d " % number * 40)
    return root


def contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in regular_files(root)}


def test_one_file_in_a_hundred_changes_and_keeps_its_size(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    before = contents(tree)

    change = scatter_change(tree, seed=1)

    after = contents(tree)
    changed = [path for path in before if before[path] != after[path]]
    assert len(changed) == change.places == 3
    assert all(len(before[path]) == len(after[path]) for path in before)
    assert 16 * 3 <= change.size <= 64 * 3


def test_the_same_seed_changes_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (make_tree(tmp_path / name) for name in ("first", "second", "other"))

    scatter_change(first, seed=1)
    scatter_change(second, seed=1)
    scatter_change(other, seed=2)

    assert contents(first) == contents(second) != contents(other)


def test_a_file_shorter_than_the_change_is_overwritten_as_a_whole(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "short").write_bytes(b"x")

    change = scatter_change(tree, seed=3)

    assert (change.places, change.size) == (1, 1)
    assert (tree / "short").read_bytes() != b"x"


def test_one_block_in_a_hundred_of_a_large_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "large"
    write_large_file(file, 201 * 1024 + 5, seed=1)
    before = file.read_bytes()

    change = change_blocks(file, seed=2, block=1024)

    after = file.read_bytes()
    differing = {at // 1024 for at in range(len(before)) if before[at] != after[at]}
    assert len(before) == len(after)
    assert len(differing) == change.places == 3
    assert change.size == 3 * 1024


def test_a_tree_is_counted_without_following_links(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", files=10)

    told, size = describe_tree(tree)

    assert f"{11 + 1 + 7} entries, 11 files" in told
    assert size == sum(len(data) for data in contents(tree).values())


def test_the_one_file_is_from_the_middle_of_the_tree(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", files=100)
    (tree / "0" / "0000").write_bytes(bytes(32 * 1024))

    chosen = mid_file(tree)

    position = regular_files(tree).index(tree / chosen)
    assert 45 <= position <= 55


def test_a_tree_without_files_has_no_file_to_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no file"):
        mid_file(tmp_path)


def test_a_tree_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="absent"):
        copy_tree(tmp_path / "absent", tmp_path / "copy")
