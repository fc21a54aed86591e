"""Restoring trees: completely, into new, replaced and living directories, or only a part."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive.compare import differences, look_at
from tests.archive.memory import MemoryPackStore
from tests.archive.tars import (
    CountingStore,
    archive_source,
    directory,
    file,
    hardlink,
    large_tree,
    members_of,
    restore,
    snapshot_of,
    symlink,
)
from tests.archive.trees import nasty, noise, write
from tests.examples import examples

from holdfast.archive.create.source import DirectorySource
from holdfast.archive.ports import Cancelled, Progress
from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.archive.restore.options import (
    MAX_PLANNED,
    RestoreLimits,
    RestoreOptions,
)
from holdfast.archive.restore.owners import parse_owners
from holdfast.archive.restore.restore import restore_tree
from holdfast.archive.staging import remove_staging
from holdfast.errors import ConflictError, InvalidError, NotFoundError, TooLargeError
from holdfast.form.terms import RestoreMode

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@cache
def large() -> SnapshotReader:
    return snapshot_of(members_of(large_tree()))


def snapshot_tree(tree: Path) -> SnapshotReader:
    return archive_source(DirectorySource(tree), MemoryPackStore())


def text_tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_tree_comes_back_in_everything(tmp_path: Path, mode: str, threads: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    nasty(source)
    snapshot = snapshot_tree(source)
    if mode != "new":
        target.mkdir()
        write(target, "one", b"older")
        write(target, "a", b"a file where a directory comes")
        write(target, "sparse/not", b"a directory where a file comes")
        (target / "up").mkdir()

    restored = restore(snapshot, target, mode=mode, threads=threads)

    assert differences(source, target) == {}
    assert restored.entries == snapshot.root.entries
    assert restored.files == snapshot.root.files
    assert restored.bytes == snapshot.root.size_bytes
    assert restored.warnings == ()
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]


def test_files_of_all_sizes_in_many_pages_come_back(tmp_path: Path) -> None:
    restore(large(), tmp_path / "new", threads=2)

    expected = {name.encode(): data for name, data in large_tree().items()}
    found = {
        os.fsencode(path.relative_to(tmp_path / "new")): path.read_bytes()
        for path in (tmp_path / "new").rglob("*")
        if path.is_file()
    }
    assert found == expected


def test_paths_longer_than_the_kernel_takes_come_back(tmp_path: Path) -> None:
    name = "/".join(["d" * 90] * 44)
    snapshot = snapshot_of([file(f"{name}/end", b"deep")])

    restore(snapshot, tmp_path / "new")

    assert f"{name}/end".encode() in look_at(tmp_path / "new")


def test_many_levels_of_directories_keep_few_descriptors_open(tmp_path: Path) -> None:
    names = ["/".join(["d"] * level) for level in range(1, 300)]
    snapshot = snapshot_of(
        [*[directory(name, mode=0o700 + len(name) % 8) for name in names], symlink("d/e", "x")]
    )

    restore(snapshot, tmp_path / "new")

    modes = {path: look.mode for path, look in look_at(tmp_path / "new").items() if path}
    assert modes.pop(b"d/e") == 0o777
    assert modes == {name.encode(): 0o700 + len(name) % 8 for name in names}


@pytest.mark.fault("S04")
@pytest.mark.parametrize("kind", ["directory", "empty directory", "file", "symlink"])
def test_a_new_tree_never_takes_the_place_of_anything(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.touch()
    elif kind == "symlink":
        target.symlink_to("nowhere")
    else:
        target.mkdir()
    if kind == "directory":
        (target / "old").touch()
    before = os.lstat(target)

    with pytest.raises(ConflictError):
        restore(large(), target)

    assert os.lstat(target) == before
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("mode", ["replace", "merge"])
def test_a_symlink_in_place_of_the_target_is_not_followed(tmp_path: Path, mode: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "target").symlink_to(outside)

    with pytest.raises(InvalidError, match="symlink"):
        restore(large(), tmp_path / "target", mode=mode)

    assert os.listdir(outside) == []


def test_replacing_removes_the_old_tree_and_counts_it(tmp_path: Path) -> None:
    target = tmp_path / "target"
    write(target, "old/file", b"old")
    snapshot = snapshot_of([file("new", b"new")])

    restored = restore(snapshot, target, mode="replace")

    assert text_tree(target) == {"new": "new"}
    assert restored.removed == 3
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("mode", ["replace", "merge"])
def test_a_target_that_is_missing_is_made(tmp_path: Path, mode: str) -> None:
    restored = restore(snapshot_of([file("new", b"new")]), tmp_path / "target", mode=mode)

    assert text_tree(tmp_path / "target") == {"new": "new"}
    assert restored.removed == 0


def test_replacing_a_mount_point_is_refused_with_advice(tmp_path: Path) -> None:
    from pathlib import Path

    del tmp_path

    with pytest.raises(InvalidError, match="merge"):
        restore(large(), Path("/proc"), mode="replace", dry_run=True)


def test_merging_keeps_what_the_snapshot_lacks(tmp_path: Path) -> None:
    write(tmp_path, "target/kept", b"kept")
    write(tmp_path, "target/d/kept", b"kept")
    write(tmp_path, "target/d/f", b"old")

    restore(snapshot_of([file("d/f", b"new")]), tmp_path / "target", mode="merge")

    assert text_tree(tmp_path / "target") == {"kept": "kept", "d/kept": "kept", "d/f": "new"}


def test_merging_with_delete_removes_what_the_snapshot_lacks(tmp_path: Path) -> None:
    write(tmp_path, "target/gone/x", b"")
    write(tmp_path, "target/d/gone", b"")
    write(tmp_path, "target/d/f", b"old")

    restored = restore(
        snapshot_of([file("d/f", b"new")]), tmp_path / "target", mode="merge", delete=True
    )

    assert text_tree(tmp_path / "target") == {"d/f": "new"}
    assert not (tmp_path / "target" / "gone").exists()
    assert restored.removed == 3


def test_deleting_stays_within_the_paths_that_are_restored(tmp_path: Path) -> None:
    write(tmp_path, "target/other", b"other")
    write(tmp_path, "target/d/gone", b"")
    write(tmp_path, "target/e/gone.txt", b"")
    write(tmp_path, "target/e/kept", b"kept")
    snapshot = snapshot_of([file("d/f", b"new"), file("e/f.txt", b"new")])

    restore(snapshot, tmp_path / "target", mode="merge", delete=True, paths=("d", "e/*.txt"))

    assert text_tree(tmp_path / "target") == {
        "other": "other",
        "d/f": "new",
        "e/f.txt": "new",
        "e/kept": "kept",
    }


def test_merging_goes_through_no_symlink_of_the_living_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write(tmp_path, "outside/f", b"canary")
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to(outside)
    (target / "g").symlink_to(outside / "f")
    snapshot = snapshot_of([file("d/f", b"new"), file("g", b"new")])

    restore(snapshot, target, mode="merge")

    assert text_tree(outside) == {"f": "canary"}
    assert text_tree(target) == {"d/f": "new", "g": "new"}
    assert not (target / "g").is_symlink()


def test_merging_a_file_leaves_the_directories_above_it_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    write(target, "there/x", b"")
    os.chmod(target, 0o710)  # noqa: S103
    os.chmod(target / "there", 0o701)
    snapshot = snapshot_of(
        [
            directory("there", mode=0o755),
            file("there/f", b""),
            directory("missing", mode=0o751),
            file("missing/f", b""),
        ]
    )

    restore(snapshot, target, mode="merge", paths=("there/f", "missing/f"))

    modes = [stat.S_IMODE(os.stat(target / name).st_mode) for name in ("", "there", "missing")]
    assert modes == [0o710, 0o701, 0o751]


def test_hard_links_are_joined_wherever_their_first_name_is(tmp_path: Path) -> None:
    first = "d00/s0/f0000"
    files = members_of(large_tree())
    snapshot = snapshot_of([*files, hardlink("z/one", first), hardlink("z/two", first)])
    assert snapshot.page_count > 1
    write(tmp_path, "live/z/one", b"older")

    restore(snapshot, tmp_path / "some", paths=("z",))
    restore(snapshot, tmp_path / "live", mode="merge", paths=(first, "z"))

    for name, links in (("some", 2), ("live", 3)):
        one = os.stat(tmp_path / name / "z" / "one")
        assert one.st_nlink == links
        assert one.st_ino == os.stat(tmp_path / name / "z" / "two").st_ino
        assert (tmp_path / name / "z" / "one").read_bytes() == large_tree()[first]


@needs_root
def test_parents_of_what_is_selected_come_with_their_metadata(tmp_path: Path) -> None:
    snapshot = snapshot_of(
        [
            directory("a", mode=0o710, uid=12, mtime=5),
            directory("a/b", mode=0o701, mtime=6),
            file("a/b/f", b"1"),
            file("a/b/g", b"2"),
            directory("c"),
        ]
    )

    restored = restore(snapshot, tmp_path / "new", paths=("a/b/f",))

    looks = look_at(tmp_path / "new")
    assert sorted(looks) == [b"", b"a", b"a/b", b"a/b/f"]
    assert (looks[b"a"].mode, looks[b"a"].owner[0], looks[b"a"].mtime_ns) == (0o710, 12, 5 * 10**9)
    assert (looks[b"a/b"].mode, looks[b"a/b"].mtime_ns) == (0o701, 6 * 10**9)
    assert (restored.entries, restored.files, restored.bytes) == (1, 1, 1)


def test_one_file_is_restored_without_reading_the_others(tmp_path: Path) -> None:
    store = CountingStore()
    snapshot = snapshot_of(members_of(large_tree()), store)
    store.fetched.clear()

    restore(snapshot, tmp_path / "new", paths=("d03/own3",))

    assert (tmp_path / "new" / "d03" / "own3").read_bytes() == large_tree()["d03/own3"]
    assert len(set(store.fetched)) < len(store.packs) / 2


@pytest.mark.parametrize("mode", ["new", "merge"])
def test_a_pattern_that_matches_nothing_is_named_and_nothing_is_done(
    tmp_path: Path, mode: str
) -> None:
    if mode != "new":
        (tmp_path / "target").mkdir()
    before = look_at(tmp_path)

    with pytest.raises(NotFoundError, match=r"no/such/\*"):
        restore(large(), tmp_path / "target", mode=mode, paths=("m/text", "no/such/*"))

    assert look_at(tmp_path) == before


def test_names_to_remove_are_not_restored_and_are_removed(tmp_path: Path) -> None:
    snapshot = snapshot_of([file(".chowned", b"x"), file("sub/.chowned", b"y"), file("f", b"z")])
    write(tmp_path, "live/.chowned", b"")
    expected = {"sub/.chowned": "y", "f": "z"}

    restore(snapshot, tmp_path / "new", remove=(".chowned",))
    merged = restore(snapshot, tmp_path / "live", mode="merge", remove=(".chowned",))
    restore(snapshot, tmp_path / "all")

    assert text_tree(tmp_path / "new") == text_tree(tmp_path / "live") == expected
    assert merged.removed == 1
    assert text_tree(tmp_path / "all") == expected | {".chowned": "x"}


@needs_root
@pytest.mark.fault("T02")
def test_owners_are_kept_or_given(tmp_path: Path) -> None:
    snapshot = snapshot_of([file("f", b"", uid=1000, gid=2000, mode=0o6755)])

    def look(name: str, owners: Any) -> tuple[object, ...]:
        restored = restore(snapshot, tmp_path / name, owners=owners)
        status = os.stat(tmp_path / name / "f")
        warned = [warning.kind for warning in restored.warnings]
        return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), warned

    assert look("kept", parse_owners("keep")) == (1000, 2000, 0o6755, [])
    assert look("given", parse_owners("5:6")) == (5, 6, 0o755, ["mode"])
    assert look("same", (1000, 2000)) == (1000, 2000, 0o6755, [])
    assert look("current", parse_owners("current")) == (0, os.getegid(), 0o755, ["mode"])


@pytest.mark.parametrize("text", ["", "root", "1:", "1:2:3", "-1:0", "4294967295:0"])
def test_owners_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        parse_owners(text)


@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
def test_a_dry_run_tells_what_would_be_done_and_touches_nothing(tmp_path: Path, mode: str) -> None:
    target = tmp_path / "target"
    snapshot = snapshot_of(
        [
            directory("d"),
            file("d/added", b"123"),
            file("modified", b"new"),
            file("same", b"same"),
            file("times", b"1"),
            directory("kind"),
        ]
    )
    if mode != "new":
        restore(snapshot, target, owners=parse_owners("keep"))
        os.unlink(target / "d" / "added")
        write(target, "modified", b"older")
        write(target, "extra/x", b"")
        os.rmdir(target / "kind")
        write(target, "kind", b"")
        os.chmod(target / "times", 0o600)
    before = look_at(tmp_path)
    options: dict[str, Any] = {"delete": True} if mode == "merge" else {}

    planned = restore(snapshot, target, mode=mode, dry_run=True, **options)

    assert look_at(tmp_path) == before
    assert (planned.entries, planned.files, planned.bytes) == (snapshot.root.entries, 4, 11)
    changes = {line.path: line.change for line in planned.plan if line.change != "metadata"}
    if mode == "new":
        assert set(changes.values()) == {"added"}
        assert planned.plan_count == snapshot.root.entries
        return
    assert changes == {
        b"d/added": "added",
        b"extra": "removed",
        b"kind": "modified",
        b"modified": "modified",
    }
    assert planned.removed == 2
    sizes = {line.path: (line.size_before, line.size_after) for line in planned.plan}
    assert sizes[b"modified"] == (5, 3)
    assert sizes[b"d/added"] == (None, 3)
    assert b"times" in sizes
    assert b"same" not in sizes


def test_a_plan_is_bounded_and_says_how_long_it_would_be(tmp_path: Path) -> None:
    planned = restore(large(), tmp_path / "target", dry_run=True)

    assert len(planned.plan) == MAX_PLANNED
    assert planned.plan_count == large().root.entries


def test_a_plan_begins_with_what_would_be_lost(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for name in ("zz/2", "zz/10", "zy"):
        write(target, name, b"")

    planned = restore(large(), target, mode="replace", dry_run=True)

    assert [(line.change, line.path) for line in planned.plan[:2]] == [
        ("removed", b"zy"),
        ("removed", b"zz"),
    ]
    assert planned.plan[2].change != "removed"
    assert len(planned.plan) == MAX_PLANNED < planned.plan_count


def test_a_plan_sees_where_symlinks_lead_and_what_hard_links_share(tmp_path: Path) -> None:
    snapshot = snapshot_of(
        [
            file("first", b"1"),
            hardlink("joined", "first"),
            symlink("led astray", "here"),
            symlink("left alone", "here"),
            hardlink("parted", "first"),
        ]
    )
    target = tmp_path / "target"
    restore(snapshot, target)
    times = os.stat(target / "led astray", follow_symlinks=False)
    for name in ("parted", "led astray"):
        os.unlink(target / name)
    os.symlink("away", target / "led astray")
    os.utime(
        target / "led astray", ns=(times.st_atime_ns, times.st_mtime_ns), follow_symlinks=False
    )
    write(target, "parted", b"1")
    mtime = os.stat(target / "first").st_mtime_ns
    os.utime(target / "parted", ns=(mtime, mtime))

    planned = restore(snapshot, target, mode="merge", dry_run=True)
    parted = restore(snapshot, target, mode="merge", dry_run=True, paths=("parted",))
    write(target, "parted", b"longer")
    longer = restore(snapshot, target, mode="merge", dry_run=True, paths=("parted",))

    changes = {line.path: line.change for line in planned.plan if line.change == "modified"}
    assert changes == {b"led astray": "modified", b"parted": "modified"}
    assert parted.plan == ()
    assert [line.change for line in longer.plan] == ["modified"]


def test_paths_do_not_go_with_replace_which_would_remove_all_others(tmp_path: Path) -> None:
    write(tmp_path, "target/other", b"other")

    with pytest.raises(InvalidError, match="merge"):
        restore(snapshot_of([file("f", b"new")]), tmp_path / "target", mode="replace", paths=("f",))

    assert text_tree(tmp_path) == {"target/other": "other"}


@pytest.mark.parametrize("target", ["/", "."])
def test_a_target_without_a_name_is_refused(target: str) -> None:
    from pathlib import Path

    with pytest.raises(InvalidError, match="name"):
        restore(large(), Path(target), mode="merge")


@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
def test_what_is_wrong_about_the_way_to_the_target_is_told(tmp_path: Path, mode: str) -> None:
    write(tmp_path, "file", b"")
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(NotFoundError):
        restore(large(), tmp_path / "missing" / "app", mode=mode)
    for name in ("file", "loop"):
        with pytest.raises(InvalidError):
            restore(large(), tmp_path / name / "app", mode=mode)


def test_delete_goes_with_merge_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="merge"):
        restore(large(), tmp_path / "target", mode="replace", delete=True)


@pytest.mark.parametrize("phase", ["restore", "finish"])
def test_a_restore_that_is_stopped_leaves_the_old_tree_and_nothing_else(
    tmp_path: Path, phase: str
) -> None:
    write(tmp_path, "target/old", b"old")
    seen: list[str] = []
    before = look_at(tmp_path / "target")

    with pytest.raises(Cancelled):
        restore_tree(
            large(),
            tmp_path / "target",
            options=RestoreOptions(staging_id="test", mode="replace"),
            progress=lambda progress: seen.append(progress.phase),
            stop=lambda: phase in seen,
        )

    assert look_at(tmp_path / "target") == before
    assert os.listdir(tmp_path) == ["target"]


def test_progress_never_falls_and_ends_with_everything(tmp_path: Path) -> None:
    seen: list[Progress] = []

    restored = restore_tree(
        large(),
        tmp_path / "target",
        options=RestoreOptions(staging_id="test"),
        progress=seen.append,
    )

    assert [each.entries for each in seen] == sorted(each.entries for each in seen)
    assert [each.bytes for each in seen] == sorted(each.bytes for each in seen)
    assert (seen[-1].entries, seen[-1].bytes) == (restored.entries, restored.bytes)
    assert {each.phase for each in seen} == {"restore", "finish", "exchange"}


LIMITS = RestoreLimits()


@pytest.mark.fault("T04")
@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (replace(LIMITS, entries=4), "entries"),
        (replace(LIMITS, total_bytes=1_000_003), "total_bytes"),
        (replace(LIMITS, file_bytes=999_999), "file_bytes"),
        (replace(LIMITS, path_bytes=6), "path_bytes"),
        (replace(LIMITS, depth=3), "depth"),
        (replace(LIMITS, expansion=1, expansion_free_bytes=0), "expansion"),
    ],
)
def test_each_limit_holds_at_its_edge_before_anything_is_there(
    tmp_path: Path, limits: RestoreLimits, name: str
) -> None:
    snapshot = snapshot_of([file("a/b/c/d", b"1234"), file("zeros", bytes(1_000_000))])
    edge = replace(
        LIMITS, entries=6, total_bytes=1_000_004, file_bytes=1_000_000, path_bytes=7, depth=4
    )

    with pytest.raises(TooLargeError, match=name):
        restore(snapshot, tmp_path / "target", limits=limits)
    assert os.listdir(tmp_path) == []
    restore(snapshot, tmp_path / "target", limits=edge)

    assert (tmp_path / "target" / "a/b/c/d").read_bytes() == b"1234"


@pytest.mark.fault("T04")
@pytest.mark.parametrize("paths", [("zeros",), ("z*",)])
def test_some_paths_may_not_expand_more_than_all(tmp_path: Path, paths: tuple[str, ...]) -> None:
    snapshot = snapshot_of([file("zeros", bytes(1_000_000))])
    limits = replace(LIMITS, expansion=1, expansion_free_bytes=0)

    with pytest.raises(TooLargeError, match="expansion"):
        restore(snapshot, tmp_path / "target", limits=limits, paths=paths)

    assert os.listdir(tmp_path) == []


@pytest.mark.fault("T04")
def test_hard_links_that_become_files_count_like_files(tmp_path: Path) -> None:
    files = [file(f"f{n}", noise(1000, n)) for n in range(3)]
    snapshot = snapshot_of([*files, *[hardlink(f"z/{n}", f"f{n}") for n in range(3)]])

    with pytest.raises(TooLargeError, match="total_bytes"):
        restore(snapshot, tmp_path / "app", paths=("z",), limits=replace(LIMITS, total_bytes=2999))
    assert os.listdir(tmp_path) == []
    restore(snapshot, tmp_path / "app", paths=("z",), limits=replace(LIMITS, total_bytes=3000))

    assert (tmp_path / "app" / "z" / "2").read_bytes() == noise(1000, 2)


FILES = st.dictionaries(
    st.text("ab", min_size=1, max_size=3), st.integers(0, 40_000), min_size=1, max_size=8
)


@given(wanted=FILES, there=FILES, mode=st.sampled_from(["replace", "merge"]))
@examples(15)
def test_whatever_was_there_a_restore_with_deletion_makes_it_the_snapshot(
    tmp_path_factory: pytest.TempPathFactory,
    wanted: dict[str, int],
    there: dict[str, int],
    mode: str,
) -> None:
    base = tmp_path_factory.mktemp("law")
    for side, files in (("source", wanted), ("target", there)):
        for names, size in files.items():
            with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
                write(base / side, "/".join(names), noise(size, size))
    options: dict[str, Any] = {"delete": True} if mode == "merge" else {}

    restore(snapshot_tree(base / "source"), base / "target", mode=mode, **options)

    assert differences(base / "source", base / "target") == {}


@pytest.mark.fault("S03")
@pytest.mark.parametrize("mode", ["new", "replace"])
def test_a_restore_whose_staging_was_cleared_away_leaves_the_target_as_it_was(
    tmp_path: Path, mode: RestoreMode
) -> None:
    reader = snapshot_of([file("a", b"new")])
    if mode == "replace":
        write(tmp_path, "app/old", b"old")

    def clear_away() -> None:
        assert remove_staging(tmp_path, "r1")

    with pytest.raises(ConflictError, match="given up"):
        restore_tree(
            reader,
            tmp_path / "app",
            options=RestoreOptions(staging_id="r1", mode=mode),
            before_exchange=clear_away,
        )

    assert os.listdir(tmp_path) == (["app"] if mode == "replace" else [])
    if mode == "replace":
        assert os.listdir(tmp_path / "app") == ["old"]


@pytest.mark.parametrize("mode", ["new", "replace"])
def test_who_is_asked_before_the_exchange_can_prevent_it(tmp_path: Path, mode: RestoreMode) -> None:
    reader = snapshot_of([file("a", b"new")])
    if mode == "replace":
        write(tmp_path, "app/old", b"old")

    def refuse() -> None:
        raise ConflictError("it was given up")

    with pytest.raises(ConflictError):
        restore_tree(
            reader,
            tmp_path / "app",
            options=RestoreOptions(staging_id="r1", mode=mode),
            before_exchange=refuse,
        )

    assert os.listdir(tmp_path) == (["app"] if mode == "replace" else [])
