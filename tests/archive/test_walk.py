"""Walking a tree: order, what is left out, and never out of the tree."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from tests.archive import trees

from holdfast.archive.chain import MAX_OPEN_LEVELS
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.create.walk import WalkOptions
from holdfast.archive.ports import Scanned
from holdfast.archive.troubles import Troubles
from holdfast.archive.warnings import Warnings
from holdfast.errors import ForbiddenError, InvalidError, NotFoundError
from holdfast.form.entries import Kind, order_key
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.archive.troubles import Unreadable


def walk(root: Path, **options: object) -> tuple[list[Scanned], list[EntryWarning]]:
    warnings: list[EntryWarning] = []
    source = DirectorySource(root, WalkOptions(**options))  # type: ignore[arg-type]
    try:
        return list(source.scan(warnings.append)), warnings
    finally:
        source.close()


def paths(root: Path, **options: object) -> list[bytes]:
    return [entry.path for entry in walk(root, **options)[0]]


def test_entries_come_in_path_order_with_the_root_first(tmp_path: Path) -> None:
    trees.nasty(tmp_path)

    found = paths(tmp_path)

    assert found[0] == b""
    assert found == sorted(found, key=order_key)
    assert sorted(found) == sorted(trees.listing(tmp_path))


def test_a_directory_comes_just_before_what_is_in_it(tmp_path: Path) -> None:
    for name in ("a/x", "a.b", "a!", "b"):
        trees.write(tmp_path, name)

    assert paths(tmp_path) == [b"", b"a", b"a/x", b"a!", b"a.b", b"b"]


def test_symlinks_are_entries_and_are_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    trees.write(outside, "secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)

    found, _ = walk(root)

    assert [(entry.path, entry.kind) for entry in found[1:]] == [(b"link", Kind.SYMLINK)]


def test_a_root_that_is_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    with pytest.raises(InvalidError):
        DirectorySource(tmp_path / "link")


def test_a_root_that_is_no_directory_or_not_there_is_refused(tmp_path: Path) -> None:
    trees.write(tmp_path, "file")

    with pytest.raises(InvalidError):
        DirectorySource(tmp_path / "file")
    with pytest.raises(NotFoundError):
        DirectorySource(tmp_path / "nothing")


@pytest.mark.fault("T02")
def test_pipes_and_sockets_are_skipped_with_a_warning(tmp_path: Path) -> None:
    trees.strange(tmp_path)
    trees.write(tmp_path, "file")

    found, warnings = walk(tmp_path)

    assert [entry.path for entry in found] == [b"", b"file"]
    assert [(w.kind, w.path, w.detail) for w in warnings] == [
        ("skipped", b"pipe", "a named pipe"),
        ("skipped", b"socket", "a socket"),
    ]


def test_the_first_name_of_a_file_is_the_file_and_the_others_link_to_it(tmp_path: Path) -> None:
    first = trees.write(tmp_path, "b/first", b"data")
    for name in ("c", "b/second"):
        os.link(first, tmp_path / name)
    os.link(first, tmp_path.parent / f"{tmp_path.name}-outside")

    links = {entry.path: (entry.kind, entry.link) for entry in walk(tmp_path)[0]}

    assert links[b"b/first"] == (Kind.FILE, b"")
    assert links[b"b/second"] == links[b"c"] == (Kind.HARDLINK, b"b/first")


def test_patterns_leave_out_files_and_whole_directories(tmp_path: Path) -> None:
    for name in ("keep.txt", "drop.log", "sub/drop.log", "build/x", "sub/build", "sub/keep.log"):
        trees.write(tmp_path, name)

    found = paths(tmp_path, exclude=("*.log", "!keep.log", "build/"))

    assert found == [b"", b"keep.txt", b"sub", b"sub/build", b"sub/keep.log"]


def test_patterns_match_names_that_are_not_utf_8(tmp_path: Path) -> None:
    trees.write(tmp_path, trees.LATIN_1)
    trees.write(tmp_path, "tea")

    assert paths(tmp_path, exclude=("caf?",)) == [b"", b"tea"]


@pytest.mark.parametrize("pattern", ["x" * 5000, "nul\0", "unfinished["])
def test_malformed_patterns_are_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InvalidError):
        DirectorySource(tmp_path, WalkOptions(exclude=(pattern,)))


def test_a_tagged_cache_keeps_only_its_tag(tmp_path: Path) -> None:
    tag = b"Signature: 8a477f597d28d172789f06886806bc55\n# made by a test\n"
    trees.write(tmp_path, "cache/CACHEDIR.TAG", tag)
    trees.write(tmp_path, "cache/big", b"x")
    trees.write(tmp_path, "fake/CACHEDIR.TAG", b"not the signature")
    trees.write(tmp_path, "fake/data", b"x")

    left = paths(tmp_path, exclude_caches=True)

    fake = [b"fake", b"fake/CACHEDIR.TAG", b"fake/data"]
    assert left == [b"", b"cache", b"cache/CACHEDIR.TAG", *fake]
    assert b"cache/big" in paths(tmp_path)


@pytest.mark.skipif(not os.path.ismount("/dev/pts"), reason="nothing is mounted there")
def test_what_is_mounted_in_the_tree_can_be_left_out() -> None:
    from pathlib import Path

    found, warnings = walk(Path("/dev"), one_file_system=True, unreadable="skip")

    assert b"pts" in [entry.path for entry in found]
    assert not any(entry.path.startswith(b"pts/") for entry in found)
    assert b"pts" in [warning.path for warning in warnings if warning.kind == "skipped"]


@pytest.mark.fault("T04")
def test_paths_longer_than_the_kernel_takes_whole_are_walked(tmp_path: Path) -> None:
    path = trees.deep(tmp_path, 4096)

    assert paths(tmp_path)[-1] == path


@pytest.mark.fault("T04")
def test_a_path_longer_than_the_limit_is_refused_or_skipped(tmp_path: Path) -> None:
    path = trees.deep(tmp_path, 4097)

    with pytest.raises(InvalidError, match="4096"):
        walk(tmp_path)
    found, warnings = walk(tmp_path, unreadable="skip")

    assert found[-1].path == path.rpartition(b"/")[0]
    assert [(w.kind, w.path) for w in warnings] == [("unreadable", path)]


def test_siblings_below_more_levels_than_stay_open_are_all_walked(tmp_path: Path) -> None:
    levels = MAX_OPEN_LEVELS + 40
    for level in range(0, levels, 7):
        trees.write(tmp_path, "/".join(["a"] * level + ["z"]))
    trees.write(tmp_path, "/".join(["a"] * levels + ["y"]))

    found = paths(tmp_path)

    assert len(found) == len(trees.listing(tmp_path)) == len(set(found))


def test_what_vanishes_during_the_walk_is_warned_of(tmp_path: Path) -> None:
    for name in ("a", "b", "c/d"):
        trees.write(tmp_path, name)
    warnings: list[EntryWarning] = []
    source = DirectorySource(tmp_path)
    entries = source.scan(warnings.append)
    assert next(entries).path == b""
    assert next(entries).path == b"a"

    (tmp_path / "b").unlink()
    assert next(entries).path == b"c"
    (tmp_path / "c").rename(tmp_path / "moved")

    assert list(entries) == []
    assert [(w.kind, w.path) for w in warnings] == [("vanished", b"b"), ("vanished", b"c")]
    source.close()


@pytest.mark.fault("T01")
def test_a_directory_swapped_for_a_symlink_does_not_lead_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    trees.write(root, "a/inside")
    trees.write(outside, "secret")
    warnings: list[EntryWarning] = []
    source = DirectorySource(root)
    entries = source.scan(warnings.append)
    assert [next(entries).path, next(entries).path] == [b"", b"a"]

    (root / "a").rename(root / "b")
    (root / "a").symlink_to(outside)

    assert list(entries) == []
    assert [(w.kind, w.path) for w in warnings] == [("vanished", b"a")]
    source.close()


@pytest.mark.parametrize(
    ("code", "error"), [(errno.EACCES, ForbiddenError), (errno.EIO, InvalidError)]
)
def test_what_cannot_be_read_fails_or_is_skipped_as_told(code: int, error: type[Exception]) -> None:
    warnings = Warnings()

    with pytest.raises(error, match="bad/file"):
        Troubles("fail").failed(b"bad/file", OSError(code, ""), warnings)
    Troubles("skip").failed(b"bad/file", OSError(code, ""), warnings)

    assert [(w.kind, w.path) for w in warnings.first] == [("unreadable", b"bad/file")]


@pytest.mark.parametrize("unreadable", ["fail", "skip"])
def test_what_has_vanished_never_fails_an_archive(unreadable: Unreadable) -> None:
    warnings = Warnings()

    Troubles(unreadable).failed(b"gone", OSError(errno.ENOENT, ""), warnings)

    assert [(w.kind, w.path) for w in warnings.first] == [("vanished", b"gone")]


def test_what_restores_have_under_way_is_no_ones_data(tmp_path: Path) -> None:
    leftover = ".holdfast-01890a5d-ac96-774b-bcce-b302099a8057"
    others = [".holdfast-", f"{leftover}x", leftover.replace("-7", "-4"), ".holdfasu"]
    for name in (leftover, f"sub/{leftover}", *others):
        trees.write(tmp_path, f"{name}/x")

    found, warnings = walk(tmp_path)

    directories = {os.fsdecode(entry.path) for entry in found if entry.kind == Kind.DIRECTORY}
    assert directories == {"", "sub", *others}
    assert warnings == []


def test_a_directory_that_cannot_be_listed_is_warned_of_once(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    warnings: list[EntryWarning] = []
    source = DirectorySource(tmp_path, WalkOptions(unreadable="skip"))
    found = []

    for entry in source.scan(warnings.append):
        found.append(entry)
        if entry.path == b"gone":
            (tmp_path / "gone").rmdir()
    described = [source.describe(entry, 0, warnings.append) for entry in found]

    assert [(w.kind, w.path) for w in warnings] == [("vanished", b"gone")]
    assert described[1] is not None
    assert described[1].settled is False
    source.close()
