"""Comparing snapshots: what is told, that nothing else is, and how little is read for it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive.tars import (
    LONG_AGO,
    CountingStore,
    Member,
    archive_tar,
    directory,
    file,
    hardlink,
    large_tree,
    members_of,
    snapshot_of,
    symlink,
)
from tests.archive.test_snapshot import sparse_tar
from tests.examples import examples

from holdfast.archive.read.diff import PathChange, diff
from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.form.entries import order_key
from holdfast.form.terms import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Generator

    from holdfast.form.manifest import Page

LATER = LONG_AGO + 60
ROOT = directory(".")


def changes(before: list[Member], after: list[Member]) -> list[tuple[str, str]]:
    found = diff(snapshot_of([ROOT, *before]), snapshot_of([ROOT, *after]))
    return [(change.path.decode(), change.change) for change in found]


def test_a_snapshot_does_not_differ_from_itself() -> None:
    members = [file("a", b"1"), directory("d"), symlink("s", "a")]

    assert changes(members, members) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [file("a")], [("a", "added")]),
        ([file("a")], [], [("a", "removed")]),
        ([file("a", b"1")], [file("a", b"22")], [("a", "modified")]),
        ([file("a", b"1")], [file("a", b"2")], [("a", "modified")]),
        ([file("a", b"1")], [file("a", b"2", mtime=LATER)], [("a", "modified")]),
        ([file("a", b"1")], [file("a", b"1", mtime=LATER)], [("a", "metadata")]),
        ([file("a")], [file("a", mode=0o600)], [("a", "metadata")]),
        ([file("a")], [file("a", uid=7)], [("a", "metadata")]),
        ([file("a")], [file("a", gid=7)], [("a", "metadata")]),
        (
            [file("a")],
            [file("a", pax_headers={"SCHILY.xattr.user.x": "1"})],
            [("a", "metadata")],
        ),
        ([file("a")], [directory("a")], [("a", "modified")]),
        ([symlink("a", "x")], [symlink("a", "y")], [("a", "modified")]),
        ([symlink("a", "x")], [file("a")], [("a", "modified")]),
        ([directory("a")], [directory("a", mtime=LATER)], [("a", "metadata")]),
        ([file("a"), file("b")], [file("a"), hardlink("b", "a")], [("b", "modified")]),
    ],
    ids=lambda value: "-".join(str(item) for item in value) if isinstance(value, tuple) else None,
)
def test_each_change_is_told_as_what_it_is(
    before: list[Member], after: list[Member], expected: list[tuple[str, str]]
) -> None:
    assert changes(before, after) == expected


@pytest.mark.parametrize("size", [250, 20_000, 700_000])
def test_content_counts_whatever_frames_it_lies_in(size: int) -> None:
    data = bytes(range(250)) * (size // 250)
    other = data[:-1] + b"!"

    assert changes([file("a", data)], [file("a", other)]) == [("a", "modified")]
    assert changes([file("a", data)], [file("a", data, mtime=LATER)]) == [("a", "metadata")]


def test_a_neighbour_in_the_same_run_is_not_told() -> None:
    before = [file("a", b"first"), file("b", b"1"), file("c", b"last")]
    after = [file("a", b"first"), file("b", b"22"), file("c", b"last", mtime=LATER)]

    assert changes(before, after) == [("b", "modified"), ("c", "metadata")]


def test_both_entries_come_with_the_change() -> None:
    found = list(diff(snapshot_of([file("a", b"1")]), snapshot_of([file("a", b"22"), file("b")])))

    modified, added = found
    assert modified.before is not None
    assert modified.after is not None
    assert (modified.before.size, modified.after.size) == (1, 2)
    assert added.before is None
    assert added.after is not None
    assert added.after.path == b"b"


def test_a_sparse_file_with_a_huge_hole_is_compared_by_what_it_stores() -> None:
    one = archive_tar(sparse_tar([(2**40, b"data")], 2**41))
    same = archive_tar(sparse_tar([(2**40, b"data")], 2**41))
    other = archive_tar(sparse_tar([(2**40, b"DATA")], 2**41))
    moved = archive_tar(sparse_tar([(2**39, b"data")], 2**41))

    assert list(diff(one, same)) == []
    assert [change.change for change in diff(one, other)] == ["modified"]
    assert [change.change for change in diff(one, moved)] == ["modified"]


TREES = st.dictionaries(
    st.sampled_from(["a", "a-b", "b/c", "b/d/e", "b/d/f", "b-", "z"]),
    st.tuples(
        st.sampled_from([b"", b"1", b"2", b"x" * 16_384, b"y" * 16_384]),
        st.sampled_from([LONG_AGO, LATER]),
    ),
)


def files_of(tree: dict[str, tuple[bytes, int]]) -> SnapshotReader:
    parents = [directory("."), directory("b"), directory("b/d")]
    return snapshot_of(
        [*parents, *(file(path, data, mtime=mtime) for path, (data, mtime) in tree.items())]
    )


def expected_changes(
    before: dict[str, tuple[bytes, int]], after: dict[str, tuple[bytes, int]]
) -> list[tuple[bytes, ChangeKind]]:
    found: list[tuple[bytes, ChangeKind]] = []
    for path in before.keys() | after.keys():
        if path not in before:
            found.append((path.encode(), "added"))
        elif path not in after:
            found.append((path.encode(), "removed"))
        elif before[path][0] != after[path][0]:
            found.append((path.encode(), "modified"))
        elif before[path] != after[path]:
            found.append((path.encode(), "metadata"))
    return sorted(found, key=lambda change: order_key(change[0]))


@examples(60)
@given(before=TREES, after=TREES)
def test_what_is_told_is_what_differs(
    before: dict[str, tuple[bytes, int]], after: dict[str, tuple[bytes, int]]
) -> None:
    found = diff(files_of(before), files_of(after))

    assert [(change.path, change.change) for change in found] == expected_changes(before, after)


def changed_large_tree(store: CountingStore) -> tuple[SnapshotReader, SnapshotReader]:
    files = large_tree()
    before = snapshot_of(members_of(files), store)
    files["d00/s0/f0000"] = b"new"
    files["m/chunked"] = files["m/chunked"][:-1] + b"!"
    files["d20/new"] = b"new"
    del files["d30/s0/f0030"]
    return before, snapshot_of(members_of(files), store)


def test_it_continues_behind_any_path() -> None:
    before, after = changed_large_tree(CountingStore())
    whole: list[PathChange] = list(diff(before, after))

    assert len(whole) >= 4
    for number, change in enumerate(whole):
        assert list(diff(before, after, behind=change.path)) == whole[number + 1 :]
    assert list(diff(before, after, behind=b"d00/s0/e")) == whole[-len(whole) :]
    assert list(diff(before, after, behind=b"zzz")) == []


def test_it_ends_when_told_and_says_behind_which_path_to_go_on() -> None:
    before, after = changed_large_tree(CountingStore())
    whole = list(diff(before, after))
    looks = itertools.count(1)
    found: list[PathChange] = []
    ends: list[bytes | None] = [None]

    def collected(behind: bytes | None) -> Generator[PathChange, None, bytes | None]:
        part = diff(before, after, behind=behind, stop=lambda: next(looks) % 70 == 0)
        reached = yield from part
        ends.append(reached)
        return reached

    while len(ends) == 1 or ends[-1] is not None:
        found += collected(ends[-1])

    assert found == whole
    reached = [order_key(path) for path in ends if path is not None]
    assert len(reached) > len(whole)
    assert reached == sorted(set(reached))


def test_pages_that_both_have_are_not_read() -> None:
    store = CountingStore()
    before, after = changed_large_tree(store)
    shared = {ref.digest for n in range(before.page_count) for ref in before.root.page_frames(n)}
    changed = [
        ref
        for n in range(after.page_count)
        for ref in after.root.page_frames(n)
        if ref.digest not in shared
    ]
    loaded: list[int] = []

    class Watched(SnapshotReader):
        def page(self, number: int) -> Page:
            loaded.append(number)
            return super().page(number)

    left, right = SnapshotReader(store, before.digest), Watched(store, after.digest)

    assert len(list(diff(left, right))) >= 4

    assert 0 < len(changed) < after.page_count
    assert len(set(loaded)) == len(changed)
