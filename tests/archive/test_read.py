"""Reading entries: everything about them, and nothing but what the walk saw."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
from tests.archive import trees

from holdfast.archive.create.source import DirectorySource
from holdfast.archive.ports import Described, FileReader, Scanned
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMIT = 1024


class Tree:
    """A source, what it found, and what it warned of."""

    def __init__(self, root: Path) -> None:
        self.warnings: list[EntryWarning] = []
        self.source = DirectorySource(root)
        self.entries = {entry.path: entry for entry in self.source.scan(self.warnings.append)}

    def describe(self, path: bytes) -> Described | None:
        return self.source.describe(self.entries[path], LIMIT, self.warnings.append)

    def described(self, path: bytes) -> Described:
        described = self.describe(path)
        assert described is not None
        return described

    def open(self, path: bytes, size: int = 4) -> Any:
        return self.source.open(self.entries[path], size, self.warnings.append)

    def warned(self) -> list[tuple[str, bytes]]:
        return [(warning.kind, warning.path) for warning in self.warnings]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    trees.write(tmp_path, "dir/file", b"data")
    return tmp_path


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    tree = Tree(root)
    yield tree
    tree.source.close()


def test_small_files_come_with_their_content(tree: Tree) -> None:
    described = tree.described(b"dir/file")

    assert (described.content, described.size, described.settled) == (b"data", 4, True)


def test_files_over_the_limit_come_without_content(root: Path) -> None:
    trees.write(root, "limit", bytes(LIMIT))
    trees.write(root, "over", bytes(LIMIT + 1))
    tree = Tree(root)

    assert tree.described(b"limit").content == bytes(LIMIT)
    assert tree.described(b"over").content is None
    tree.source.close()


def test_symlinks_come_with_their_text(root: Path) -> None:
    (root / "link").symlink_to("/etc/passwd")
    tree = Tree(root)

    assert tree.described(b"link").target == b"/etc/passwd"
    tree.source.close()


def test_extended_attributes_and_acls_come_in_order_of_their_names(root: Path) -> None:
    acl = struct.pack(
        "<I" + "HHI" * 5,
        2,
        *(1, 6, 2**32 - 1),
        *(2, 4, 1000),
        *(4, 4, 2**32 - 1),
        *(16, 4, 2**32 - 1),
        *(32, 4, 2**32 - 1),
    )
    names = [("user.z", b"\0last"), ("user.a", b""), ("system.posix_acl_access", acl)]
    kept = sorted((n.encode(), v) for n, v in names if trees.set_xattr(root / "dir/file", n, v))
    if not kept:
        pytest.skip("this file system has no extended attributes")
    tree = Tree(root)

    assert tree.described(b"dir/file").xattrs == tuple(kept)
    tree.source.close()


def test_sparse_files_come_with_the_places_of_their_data(root: Path) -> None:
    trees.sparse(root / "sparse")
    trees.sparse(root / "hole", pieces=())
    if (root / "hole").stat().st_blocks:
        pytest.skip("this file system has no holes")
    tree = Tree(root)

    assert tree.described(b"sparse").segments == ((2**20, 4096), (2**21, 4096))
    assert tree.described(b"hole").segments == ()
    assert tree.described(b"dir/file").segments is None
    tree.source.close()


def test_a_file_that_changed_since_the_walk_is_described_as_it_is_now(
    root: Path, tree: Tree
) -> None:
    trees.rewrite(root, "dir/file", b"longer than before")

    described = tree.described(b"dir/file")

    assert (described.size, described.settled, described.content) == (18, False, None)
    assert tree.warned() == [("changed", b"dir/file")]


def test_a_new_link_to_a_file_does_not_count_as_a_change(root: Path, tree: Tree) -> None:
    os.link(root / "dir/file", root / "link")
    reader = tree.open(b"dir/file")

    assert tree.described(b"dir/file").content == b"data"
    assert reader.close() is True
    assert tree.warnings == []


def test_what_is_no_symlink_any_more_is_left_out(root: Path) -> None:
    (root / "link").symlink_to("somewhere")
    tree = Tree(root)
    (root / "link").unlink()
    trees.write(root, "link")

    assert tree.describe(b"link") is None
    assert tree.warned() == [("vanished", b"link")]
    tree.source.close()


def test_a_file_that_vanished_is_left_out_with_a_warning(root: Path, tree: Tree) -> None:
    (root / "dir/file").unlink()

    assert tree.describe(b"dir/file") is None
    assert tree.open(b"dir/file") is None
    assert tree.warned() == [("vanished", b"dir/file")] * 2


def test_a_directory_that_vanished_stays_for_what_the_walk_found_below_it(
    root: Path, tree: Tree
) -> None:
    (root / "dir").rename(root / "moved")

    assert tree.described(b"dir").settled is False
    assert tree.warned() == [("vanished", b"dir")]


@pytest.mark.fault("T01")
def test_a_symlink_swapped_into_the_middle_of_a_path_does_not_lead_out(
    root: Path, tree: Tree, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    trees.write(outside, "file", b"secret")

    (root / "dir").rename(root / "moved")
    (root / "dir").symlink_to(outside)

    assert tree.describe(b"dir/file") is None
    assert tree.open(b"dir/file") is None
    assert {kind for kind, _ in tree.warned()} == {"vanished"}


@pytest.mark.fault("T01")
def test_a_symlink_in_place_of_a_file_is_not_followed(root: Path, tree: Tree) -> None:
    (root / "dir/file").unlink()
    (root / "dir/file").symlink_to("/etc/passwd")

    assert tree.describe(b"dir/file") is None
    assert tree.open(b"dir/file") is None


@pytest.mark.fault("T02")
def test_a_pipe_in_place_of_a_file_does_not_hang(root: Path, tree: Tree) -> None:
    (root / "dir/file").unlink()
    os.mkfifo(root / "dir/file")

    assert tree.describe(b"dir/file") is None
    assert tree.open(b"dir/file") is None
    assert tree.warned() == [("vanished", b"dir/file")] * 2


def test_another_file_of_the_same_name_is_not_read(root: Path, tree: Tree) -> None:
    trees.write(root, "other", b"DATA")
    (root / "other").rename(root / "dir/file")

    assert tree.describe(b"dir/file") is None
    assert tree.open(b"dir/file") is None


def read(reader: FileReader, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    reader.read_into(memoryview(buffer), offset)
    return bytes(buffer)


def test_reading_gives_just_the_bytes_asked_for(tree: Tree) -> None:
    reader = tree.open(b"dir/file")

    assert (read(reader, 1, 2), read(reader, 2, 2)) == (b"at", b"ta")
    assert reader.close() is True


def test_what_a_file_no_longer_has_is_read_as_zeros(root: Path, tree: Tree) -> None:
    reader = tree.open(b"dir/file")

    os.truncate(root / "dir/file", 1)

    assert read(reader, 0, 4) == b"d\0\0\0"
    assert reader.close() is False


def test_a_file_written_to_while_it_is_open_is_found_changed(root: Path, tree: Tree) -> None:
    reader = tree.open(b"dir/file")
    before = read(reader, 0, 4)

    trees.rewrite(root, "dir/file", b"DATA")

    assert before == b"data"
    assert reader.close() is False


def test_a_file_of_another_size_than_was_promised_counts_as_changed(tree: Tree) -> None:
    reader = tree.open(b"dir/file", 3)

    assert read(reader, 0, 3) == b"dat"
    assert reader.close() is False


@pytest.mark.fault("T04")
def test_a_file_deeper_than_the_kernel_takes_paths_is_read(tmp_path: Path) -> None:
    path = trees.deep(tmp_path, 4096)
    tree = Tree(tmp_path)

    assert tree.described(path).content == b""
    assert tree.described(path.rpartition(b"/")[0]).settled is True
    assert tree.warnings == []
    tree.source.close()


def test_closing_a_source_twice_is_fine(tree: Tree) -> None:
    tree.source.close()
    tree.source.close()

    assert isinstance(tree.entries[b""], Scanned)
