"""Archiving a tree: complete, the same every time, and with nothing done twice."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive import trees
from tests.archive.archiving import (
    Spy,
    archive,
    content,
    entries,
    extract,
    started_just_after,
    tar,
)
from tests.archive.memory import MemoryPackStore
from tests.examples import examples

from holdfast.archive.create import members
from holdfast.archive.create.content import cut, cut_blocks
from holdfast.archive.create.create import create_archive
from holdfast.archive.create.frame_pool import MAX_POOL_FILE_BYTES
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.create.walk import WalkOptions
from holdfast.archive.ports import Cancelled, Progress
from holdfast.domain.limits import KIB
from holdfast.errors import InvalidError, QuotaExceededError
from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.archive.ports import Described, Scanned, Warn
    from holdfast.domain.digest import Digest


@pytest.fixture
def store() -> MemoryPackStore:
    return MemoryPackStore()


def test_gnu_tar_unpacks_everything_just_as_it_was(tmp_path: Path, store: MemoryPackStore) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    trees.nasty(root)

    archived = archive(root, store)
    extract(store, archived.root, tmp_path / "copy")

    assert trees.listing(tmp_path / "copy") == trees.listing(root)
    assert archived.warning_count == 0


def test_the_result_counts_what_is_in_the_archive(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.write(tmp_path, "a/one", b"1234")
    trees.write(tmp_path, "two", b"56")
    os.link(tmp_path / "two", tmp_path / "zwei")

    archived = archive(tmp_path, store)

    assert (archived.entries, archived.files, archived.size_bytes) == (5, 2, 6)
    assert archived.raw_bytes == len(tar(store, archived.root)) - 1024 == archived.new_bytes
    assert archived.added_bytes == sum(map(len, store.packs.values()))


def test_an_empty_directory_is_an_archive_too(tmp_path: Path, store: MemoryPackStore) -> None:
    archived = archive(tmp_path, store)

    assert list(entries(store, archived.root)) == [b""]


def test_the_packs_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    trees.nasty(tmp_path)
    for number in range(300):
        trees.write(tmp_path, f"many/{number}", trees.noise(number * 37, number))
    one, four = MemoryPackStore(), MemoryPackStore()

    results = archive(tmp_path, one, threads=1), archive(tmp_path, four, threads=4)

    assert results[0] == results[1]
    assert one.packs == four.packs


def test_a_copy_of_a_tree_shares_all_its_data(tmp_path: Path, store: MemoryPackStore) -> None:
    for number in range(300):
        trees.write(tmp_path, f"app/{number}", trees.noise(number * 37, number))
    trees.write(tmp_path, "app/large", trees.noise(5 * 2**20, 9))
    shutil.copytree(tmp_path / "app", tmp_path / "other")
    archive(tmp_path / "app", store)
    before = sum(map(len, store.packs.values()))

    archive(tmp_path / "other", store)

    # Its own are only the root and the pages' stat cache, for the inodes are others.
    assert sum(map(len, store.packs.values())) < before + 100 * KIB


def test_an_unchanged_tree_is_not_read_again(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.nasty(tmp_path)
    first = archive(tmp_path, store)
    packs = dict(store.packs)
    spy = Spy(tmp_path)

    second = archive(tmp_path, store, first, source=spy)

    assert (spy.described, spy.opened) == ([], [])
    assert second.root == first.root
    assert store.packs == packs
    assert (second.new_bytes, second.reused_pages) == (0, second.pages)


def test_of_a_changed_tree_only_what_changed_is_read(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    for number in range(400):
        trees.write(tmp_path, f"{number:03}", trees.noise(3000, number))
    trees.write(tmp_path, "large", trees.noise(100_000))
    first = archive(tmp_path, store)
    trees.rewrite(tmp_path, "200", trees.noise(3000, 1000))
    spy = Spy(tmp_path)

    second = archive(tmp_path, store, first, source=spy)

    assert b"200" in spy.described
    assert len(spy.described) < 40
    assert spy.opened == []
    assert second.new_bytes <= 64 * KIB
    assert content(store, second.root, b"200") == trees.noise(3000, 1000)
    assert content(store, first.root, b"200") == trees.noise(3000, 200)


def test_what_was_touched_but_not_changed_is_not_stored_again(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    trees.write(tmp_path, "large", trees.noise(700_000))
    trees.write(tmp_path, "small", b"data")
    first = archive(tmp_path, store)
    trees.rewrite(tmp_path, "large", trees.noise(700_000))

    second = archive(tmp_path, store, first)

    assert second.new_bytes <= 2 * KIB  # the header has another time


def test_a_moved_file_is_not_stored_again(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.write(tmp_path, "z/large", trees.noise(3 * 2**20))
    first = archive(tmp_path, store)
    (tmp_path / "z/large").rename(tmp_path / "a large one")

    second = archive(tmp_path, store, first)

    assert second.new_bytes <= 4 * KIB
    assert content(store, second.root, b"a large one") == trees.noise(3 * 2**20)


def test_identical_files_are_stored_once(tmp_path: Path, store: MemoryPackStore) -> None:
    for name in ("a", "b", "c"):
        trees.write(tmp_path, name, trees.noise(200_000))

    archived = archive(tmp_path, store)

    assert archived.new_bytes < 210_000
    assert content(store, archived.root, b"c") == trees.noise(200_000)


def test_bytes_inserted_into_a_large_file_are_nearly_all_that_is_stored(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    data = trees.noise(12 * 2**20)
    trees.write(tmp_path, "large", data)
    first = archive(tmp_path, store)
    trees.rewrite(tmp_path, "large", data[: 2**20] + b"inserted" + data[2**20 :])

    second = archive(tmp_path, store, first)

    assert second.new_bytes < 2 * 2**20
    assert content(store, second.root, b"large")[2**20 : 2**20 + 8] == b"inserted"


def test_a_change_of_the_mode_alone_is_seen(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.write(tmp_path, "file", b"data")
    first = archive(tmp_path, store)
    (tmp_path / "file").chmod(0o600)

    second = archive(tmp_path, store, first)

    assert entries(store, second.root)[b"file"].mode == 0o600


def test_a_hard_link_to_another_file_is_seen(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.write(tmp_path, "a", b"same")
    trees.write(tmp_path, "b", b"same")
    os.link(tmp_path / "a", tmp_path / "link")
    first = archive(tmp_path, store)
    (tmp_path / "link").unlink()
    os.link(tmp_path / "b", tmp_path / "link")

    second = archive(tmp_path, store, first)

    assert entries(store, first.root)[b"link"].target == b"a"
    assert entries(store, second.root)[b"link"].target == b"b"


def test_what_changed_just_before_the_walk_is_looked_at_again(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    trees.write(tmp_path, "file", b"data")
    changed_at = max((tmp_path / n).stat().st_ctime_ns for n in ("file", "."))
    first = archive(tmp_path, store, started_at_ns=started_just_after(changed_at) - 2)
    spy = Spy(tmp_path)

    second = archive(tmp_path, store, first, source=spy)
    settled = Spy(tmp_path)
    third = archive(tmp_path, store, second, source=settled)

    assert b"file" in spy.described
    assert settled.described == []
    assert third.root == second.root != first.root


def test_what_vanishes_before_it_is_read_is_not_in_the_archive(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    trees.nasty(tmp_path)
    gone = {b"block", b"own frame", b"a/chunked, too", b"a.b/after the directory"}
    spy = Spy(tmp_path)
    spy.before = lambda path: remove(tmp_path, path) if path in gone else None

    archived = archive(tmp_path, store, source=spy)

    found = entries(store, archived.root)
    assert gone.isdisjoint(found)
    assert {(w.kind, w.path) for w in archived.warnings} == {("vanished", path) for path in gone}
    assert found[b"chunked"].kind is Kind.FILE
    assert content(store, archived.root, b"chunked") == trees.noise(2 * 2**20 + 17, 2)
    extract(store, archived.root, beside(tmp_path))


@pytest.mark.parametrize("size", [100, 20_000, 600_000, MAX_POOL_FILE_BYTES + 1])
def test_a_large_file_that_vanishes_at_the_last_moment_is_not_in_the_archive(
    tmp_path: Path, store: MemoryPackStore, size: int
) -> None:
    for name in ("a", "b", "c"):
        trees.write(tmp_path, name, trees.noise(size, ord(name)))
    spy = Spy(tmp_path)
    spy.before = lambda path: remove(tmp_path, b"b") if spy.described[-1:] == [path] else None

    archived = archive(tmp_path, store, source=spy)

    kept = set(entries(store, archived.root)) - {b""}
    assert b"a" in kept or size == 100
    assert [content(store, archived.root, p) for p in sorted(kept)] == [
        trees.noise(size, ord(p)) for p in sorted(kept)
    ]


def test_the_next_name_of_a_file_takes_the_place_of_one_that_vanished(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    trees.write(tmp_path, "1", b"data")
    for name in ("2", "3", "4"):
        os.link(tmp_path / "1", tmp_path / name)
    spy = Spy(tmp_path)
    spy.before = lambda path: remove(tmp_path, path) if path in (b"1", b"2") else None

    archived = archive(tmp_path, store, source=spy)

    found = entries(store, archived.root)
    assert list(found) == [b"", b"3", b"4"]
    assert (found[b"3"].kind, found[b"4"].kind, found[b"4"].target) == (
        Kind.FILE,
        Kind.HARDLINK,
        b"3",
    )
    assert content(store, archived.root, b"4") == b"data"


@pytest.mark.parametrize("size", [3000, 20_000, 600_000, MAX_POOL_FILE_BYTES + 1])
@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_file_whose_size_changes_while_it_is_read_leaves_the_archive_valid(
    tmp_path: Path, store: MemoryPackStore, size: int, factor: float
) -> None:
    trees.write(tmp_path, "file", trees.noise(size))
    trees.write(tmp_path, "next", b"next")
    spy = Spy(tmp_path)
    spy.before = lambda path: (
        os.truncate(tmp_path / "file", int(size * factor)) if path == b"file" else None
    )

    first = archive(tmp_path, store, source=spy)
    extract(store, first.root, beside(tmp_path))
    second = archive(tmp_path, store, first)

    assert [(w.kind, w.path) for w in first.warnings] == [("changed", b"file")]
    assert content(store, first.root, b"next") == b"next"
    assert content(store, second.root, b"file") == (tmp_path / "file").read_bytes()


def test_a_file_that_shrinks_after_it_was_opened_is_filled_with_zeros(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    trees.write(tmp_path, "file", b"x" * 100_000)

    class Shrinking(Spy):
        def open(self, scanned: Scanned, size: int, warn: Warn) -> Any:
            reader: Any = super().open(scanned, size, warn)
            os.truncate(tmp_path / "file", 1000)
            return reader

    first = archive(tmp_path, store, source=Shrinking(tmp_path))
    second = archive(tmp_path, store, first)

    assert content(store, first.root, b"file") == b"x" * 1000 + bytes(99_000)
    assert [(w.kind, w.path) for w in first.warnings] == [("changed", b"file")]
    assert content(store, second.root, b"file") == b"x" * 1000


def test_excluded_files_are_not_in_the_archive(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.write(tmp_path, "a.log")
    trees.write(tmp_path, "a.txt")

    archived = archive(
        tmp_path, store, source=DirectorySource(tmp_path, WalkOptions(exclude=("*.log",)))
    )

    assert list(entries(store, archived.root)) == [b"", b"a.txt"]


def test_progress_only_grows_and_ends_with_the_totals(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    for number in range(2000):
        trees.write(tmp_path, f"{number}", b"%d" % number)
    seen: list[Progress] = []
    source = DirectorySource(tmp_path)

    archived = create_archive(source, store, parent=None, started_at_ns=0, progress=seen.append)

    assert [p.entries for p in seen] == sorted(p.entries for p in seen)
    assert len(seen) > 2
    assert (seen[-1].phase, seen[-1].entries, seen[-1].bytes) == (
        "done",
        archived.entries,
        archived.size_bytes,
    )
    source.close()


def test_stopping_raises_cancelled_and_leaves_nothing_open(
    tmp_path: Path, store: MemoryPackStore
) -> None:
    for number in range(50):
        trees.write(tmp_path, f"{number}", trees.noise(300_000, number))
    spy = Spy(tmp_path)
    before = len(os.listdir("/proc/self/fd"))

    with pytest.raises(Cancelled):
        create_archive(spy, store, parent=None, started_at_ns=0, stop=lambda: len(spy.opened) > 20)

    assert len(os.listdir("/proc/self/fd")) == before
    spy.close()


def test_a_store_that_fails_fails_the_archive(tmp_path: Path) -> None:
    class Full(MemoryPackStore):
        def put(self, digest: Digest, data: bytes) -> None:
            raise QuotaExceededError

    trees.write(tmp_path, "file", b"data")

    with pytest.raises(QuotaExceededError):
        archive(tmp_path, Full())


def test_a_failing_read_fails_the_archive(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.write(tmp_path, "file", trees.noise(100_000))

    class Failing(Spy):
        def open(self, scanned: Scanned, size: int, warn: Warn) -> Any:
            reader: Any = super().open(scanned, size, warn)
            fd = os.open(tmp_path, os.O_RDONLY)  # reading a directory fails
            os.dup2(fd, reader._fd)
            os.close(fd)
            return reader

    with pytest.raises(InvalidError, match="cannot read file: Is a directory"):
        archive(tmp_path, store, source=Failing(tmp_path))


@examples(20)
@given(
    data=st.builds(trees.noise, st.integers(600_000, 5_000_000), st.integers(0, 3)),
    block=st.integers(200_000, 3_000_000),
)
def test_cuts_do_not_depend_on_how_a_file_is_read(data: bytes, block: int) -> None:
    padded = data + bytes(-len(data) % 512)
    blocks = (data[at : at + block] for at in range(0, len(data), block))

    whole = [bytes(chunk) for chunk in cut(memoryview(padded), len(data))]
    in_blocks = [bytes(chunk) for chunk in cut_blocks(blocks, len(data))]

    assert whole == in_blocks
    assert b"".join(whole) == padded


def beside(root: Path) -> Path:
    return root.with_name(f"{root.name}-copy")


def remove(root: Path, path: bytes) -> None:
    target = os.path.join(os.fsencode(root), path)
    if os.path.lexists(target):
        os.unlink(target)


class Strange(DirectorySource):
    """A directory whose files have an attribute that no reader takes."""

    def describe(self, scanned: Scanned, content_limit: int, warn: Warn) -> Described | None:
        described = super().describe(scanned, content_limit, warn)
        assert described is not None
        return msgspec.structs.replace(described, xattrs=((b"", b"v"),))


def test_what_nobody_could_read_is_not_written(tmp_path: Path, store: MemoryPackStore) -> None:
    trees.write(tmp_path, "a", b"1")

    with pytest.raises(InvalidError, match="nobody could read"):
        archive(tmp_path, store, source=Strange(tmp_path))


def test_sparse_files_beyond_what_a_page_holds_are_plain_ones(
    tmp_path: Path, store: MemoryPackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "MAX_PAGE_SEGMENTS", 3)
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "b", "c"):
        with (root / name).open("wb") as file:
            for position in (0, 1_000_000)[: 1 + (name != "c")]:
                file.seek(position)
                file.write(b"data")
            file.truncate(2_000_000)

    first = archive(root, store)
    (root / "a").touch()
    second = archive(root, store, first)

    for archived in (first, second):
        segments = {path: entry.segments for path, entry in entries(store, archived.root).items()}
        assert [len(segments[path] or ()) for path in (b"a", b"b", b"c")] == [2, 0, 1]
    extract(store, second.root, tmp_path / "copy")
    for name in ("a", "b", "c"):
        assert (tmp_path / "copy" / name).read_bytes() == (root / name).read_bytes()
