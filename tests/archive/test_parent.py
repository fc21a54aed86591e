"""Building on a parent: never anything else than archiving afresh, only less work."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive import trees
from tests.archive.archiving import Spy, archive, content, entries, tar
from tests.archive.memory import MemoryPackStore
from tests.examples import examples

from holdfast.domain.digest import Digest
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.sampled_from(["a", "b", "c/a", "c/b", "c/d/a", "e", "large", "f/x"])
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["write", "remove", "chmod", "link", "symlink", "move"]),
        NAMES,
        NAMES,
        st.integers(0, 5),
    ),
    max_size=6,
)
SIZES = (0, 700, 5000, 16_384, 40_000, 600_000)


def edit(root: Path, what: str, name: str, other: str, number: int) -> None:
    path, second = root / name, root / other
    path.parent.mkdir(parents=True, exist_ok=True)
    second.parent.mkdir(parents=True, exist_ok=True)
    if what == "write":
        path.unlink(missing_ok=True)
        path.write_bytes(trees.noise(SIZES[number], number))
    elif what == "symlink":
        path.unlink(missing_ok=True)
        path.symlink_to(f"to {number}")
    elif not os.path.lexists(path):
        return
    elif what == "remove":
        path.unlink()
    elif what == "chmod" and not path.is_symlink():
        path.chmod(0o600 + number)
    elif what == "link" and not os.path.lexists(second):
        os.link(path, second, follow_symlinks=False)
    elif what == "move":
        path.rename(second)


@examples(15)
@given(rounds=st.lists(EDITS, min_size=1, max_size=3))
def test_an_archive_on_a_parent_equals_one_made_afresh(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, str, str, int]]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for number in range(150):
        trees.write(root, f"m/{number}", b"%d" % number * 100)
    store = MemoryPackStore()
    last = archive(root, store)

    for edits in rounds:
        for what, name, other, number in edits:
            edit(root, what, name, other, number)
        last = archive(root, store, last)
    fresh_store = MemoryPackStore()
    fresh = archive(root, fresh_store)

    assert entries(store, last.root) == entries(fresh_store, fresh.root)
    assert tar(store, last.root) == tar(fresh_store, fresh.root)
    shutil.rmtree(root)


def test_pages_that_did_not_change_are_taken_over(tmp_path: Path) -> None:
    for number in range(4000):
        trees.write(tmp_path, f"{number // 100:02}/{number:04}", b"%d" % number)
    store = MemoryPackStore()
    first = archive(tmp_path, store)
    trees.rewrite(tmp_path, "30/3050", b"changed")

    second = archive(tmp_path, store, first)

    assert first.pages > 3
    assert second.reused_pages >= second.pages - 2
    assert second.new_bytes < 32 * 1024
    assert content(store, second.root, b"30/3050") == b"changed"


def test_an_entry_added_in_front_moves_no_other_frame(tmp_path: Path) -> None:
    for number in range(3000):
        trees.write(tmp_path, f"m/{number:04}", trees.noise(500, number))
    store = MemoryPackStore()
    first = archive(tmp_path, store)
    trees.write(tmp_path, "a", b"new")

    second = archive(tmp_path, store, first)

    assert second.new_bytes < 48 * 1024


def test_a_parent_of_another_tree_only_lends_its_frames(tmp_path: Path) -> None:
    trees.write(tmp_path, "one/x", trees.noise(100_000))
    trees.write(tmp_path, "two/y", trees.noise(100_000))
    store = MemoryPackStore()
    one = archive(tmp_path / "one", store)

    two = archive(tmp_path / "two", store, one)

    assert set(entries(store, two.root)) == {b"", b"y"}
    assert two.new_bytes < 4096


def test_extended_attributes_of_unchanged_entries_come_from_the_parent(tmp_path: Path) -> None:
    trees.write(tmp_path, "a", b"data")
    trees.write(tmp_path, "b", b"data")
    if not trees.set_xattr(tmp_path / "a", "user.k", b"v"):
        pytest.skip("this file system has no extended attributes")
    store = MemoryPackStore()
    first = archive(tmp_path, store)
    trees.rewrite(tmp_path, "b", b"other")
    spy = Spy(tmp_path)

    second = archive(tmp_path, store, first, source=spy)

    assert entries(store, second.root)[b"a"].xattrs == ((b"user.k", b"v"),)


def test_a_parent_that_is_not_stored_is_corrupt(tmp_path: Path) -> None:
    store = MemoryPackStore()
    first = archive(tmp_path, store)
    store.packs.clear()

    with pytest.raises(CorruptError, match="missing"):
        archive(tmp_path, store, first)


def test_a_parent_whose_pages_are_gone_is_corrupt_when_they_are_needed(tmp_path: Path) -> None:
    trees.write(tmp_path, "file", b"data")
    store = MemoryPackStore()
    first = archive(tmp_path, store)
    for digest in [d for d in store.packs if d != first.root]:
        del store.packs[Digest(digest)]

    unchanged = archive(tmp_path, store, first)
    trees.rewrite(tmp_path, "file", b"other")

    assert unchanged.root == first.root
    with pytest.raises(CorruptError, match="missing"):
        archive(tmp_path, store, first)


def test_a_snapshot_without_inodes_lends_only_frames(tmp_path: Path) -> None:
    trees.write(tmp_path, "file", b"data")
    store = MemoryPackStore()
    first = archive(tmp_path, store, started_at_ns=0)
    spy = Spy(tmp_path)

    archive(tmp_path, store, first, source=spy)

    assert spy.described == [b"", b"file"]


@pytest.mark.parametrize("what", ["vanishes", "grows", "is changed"])
def test_a_neighbour_that_changes_while_its_run_is_read_again_is_not_mixed_up(
    tmp_path: Path, what: str
) -> None:
    for number in range(40):
        trees.write(tmp_path, f"{number:02}", b"%02d" % number * 400)
    store = MemoryPackStore()
    first = archive(tmp_path, store)
    trees.rewrite(tmp_path, "20", b"changed" * 100)
    spy = Spy(tmp_path)
    neighbours: list[bytes] = []

    def interfere(path: bytes) -> None:
        if path == b"20" or path in neighbours:
            return
        neighbours.append(path)
        if what == "vanishes":
            (tmp_path / path.decode()).unlink()
        else:
            size = 5000 if what == "grows" else 800
            trees.rewrite(tmp_path, path.decode(), b"x" * size)

    spy.before = interfere
    second = archive(tmp_path, store, first, source=spy)

    kind = "vanished" if what == "vanishes" else "changed"
    assert neighbours
    assert {(w.kind, w.path) for w in second.warnings} == {(kind, path) for path in neighbours}
    found = set(entries(store, second.root)) - {b""}
    assert found == {entry.name.encode() for entry in tmp_path.iterdir()}
    for path in found:
        assert content(store, second.root, path) == (tmp_path / path.decode()).read_bytes()
