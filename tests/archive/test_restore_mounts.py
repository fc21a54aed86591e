"""Merging into a tree in which something is mounted: nothing there is ever removed."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.archive.compare import look_at
from tests.archive.tars import directory, file, restore, snapshot_of, symlink
from tests.archive.trees import write

from holdfast.archive.directories import mount_of, mount_points, open_directory, remove_entry
from holdfast.archive.restore.mounts import Mounts
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount something")


@contextmanager
def bound(source: Path, where: Path) -> Iterator[None]:
    """``source`` at ``where``, too: the same device, another mount."""
    done = subprocess.run(["mount", "--bind", source, where], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("may not mount anything here")
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """An app with a volume at ``old/volume``, which others use as well, and a file of its own."""
    write(tmp_path, "volume/sub/data", b"data")
    write(tmp_path, "volume/more", b"more")
    write(tmp_path, "app/old/own", b"own")
    write(tmp_path, "app/old/closed/own", b"own")
    (tmp_path / "app" / "old" / "volume").mkdir()
    with bound(tmp_path / "volume", tmp_path / "app" / "old" / "volume"):
        yield tmp_path / "app"


@pytest.mark.fault("S03")
@pytest.mark.parametrize("paths", [(), ("new", "old"), ("new", "old/**")])
def test_deleting_leaves_a_volume_below_alone(target: Path, paths: tuple[str, ...]) -> None:
    snapshot = snapshot_of([file("new", b"new"), directory("old"), file("old/f", b"")])
    volume = look_at(target.parent / "volume")
    planned = restore(snapshot, target, mode="merge", delete=True, paths=paths, dry_run=True)

    restored = restore(snapshot, target, mode="merge", delete=True, paths=paths)

    assert look_at(target.parent / "volume") == volume
    assert sorted(os.listdir(target)) == ["new", "old"]
    assert sorted(os.listdir(target / "old")) == ["f", "volume"]
    assert restored.removed == planned.removed == 3


def test_a_directory_that_the_snapshot_lacks_stays_for_the_volume_in_it(target: Path) -> None:
    restore(snapshot_of([file("new", b"new")]), target, mode="merge", delete=True)

    assert os.listdir(target / "old") == ["volume"]
    assert (target / "old" / "volume" / "sub" / "data").read_bytes() == b"data"


@pytest.mark.fault("S03")
@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    "entry",
    [file("old", b""), symlink("old", "x"), file("old/volume", b"")],
    ids=["file above", "symlink above", "file"],
)
def test_what_would_take_the_place_of_a_volume_is_refused_beforehand(
    target: Path, entry: Any, dry_run: bool
) -> None:
    before = look_at(target.parent)

    with pytest.raises(InvalidError, match="mounted at 'old/volume'"):
        restore(snapshot_of([file("a", b"new"), entry]), target, mode="merge", dry_run=dry_run)
    with pytest.raises(InvalidError, match="mounted at"):
        restore(snapshot_of([file("a", b"new")]), target, mode="merge", remove=("old",))

    assert look_at(target.parent) == before


def test_what_is_not_selected_is_in_nobodys_way(target: Path) -> None:
    restore(snapshot_of([file("a", b"new"), file("old", b"")]), target, mode="merge", paths=("a",))

    assert (target / "a").read_bytes() == b"new"
    assert (target / "old" / "volume" / "more").read_bytes() == b"more"


def test_a_volume_is_written_into_where_the_snapshot_has_a_directory(target: Path) -> None:
    restore(snapshot_of([file("old/volume/more", b"new")]), target, mode="merge", delete=True)

    assert (target.parent / "volume" / "more").read_bytes() == b"new"
    assert (target.parent / "volume" / "sub" / "data").read_bytes() == b"data"


@pytest.mark.parametrize(
    "entry",
    [file("own", b"new"), directory("own"), file("own/f", b"")],
    ids=["file", "directory", "file below"],
)
def test_a_file_may_be_a_mount_point_too(tmp_path: Path, entry: Any) -> None:
    write(tmp_path, "secret", b"secret")
    write(tmp_path, "app/own", b"")
    with bound(tmp_path / "secret", tmp_path / "app" / "own"):
        with pytest.raises(InvalidError, match="mounted at 'own'"):
            restore(snapshot_of([entry]), tmp_path / "app", mode="merge")
        restore(snapshot_of([file("a", b"")]), tmp_path / "app", mode="merge", delete=True)

        assert sorted(os.listdir(tmp_path / "app")) == ["a", "own"]
    assert (tmp_path / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("name", [b"old", b"volume"])
def test_removing_stops_at_a_bind_mount_of_the_same_device(target: Path, name: bytes) -> None:
    before = look_at(target.parent / "volume")
    os.chmod(target.parent / "volume", 0o500)
    where = open_directory(target if name == b"old" else target / "old")
    try:
        with pytest.raises(InvalidError, match="mounted"):
            remove_entry(where, name)
    finally:
        os.close(where)

    assert os.stat(target.parent / "volume").st_mode & 0o777 == 0o500
    os.chmod(target.parent / "volume", before[b""].mode)
    assert look_at(target.parent / "volume").keys() == before.keys()


def test_what_is_mounted_later_is_not_entered_either(target: Path) -> None:
    root = open_directory(target)
    old = open_directory(target / "old")
    try:
        mounts = Mounts(old)

        assert mounts.holds(b"volume")
        assert mount_points(root) == [b"old/volume"]
        assert mount_of(root) == mount_of(old)
        os.close(mounts.enter(root, b"old", b"old"))
        with pytest.raises(NotADirectoryError):
            mounts.enter(old, b"volume", b"volume")
    finally:
        os.close(root)
        os.close(old)
