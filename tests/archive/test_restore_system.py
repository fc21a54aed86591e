"""Restoring where the system says no: full disks, other users, mount points."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.archive.compare import look_at
from tests.archive.tars import directory, file, restore, snapshot_of, symlink
from tests.archive.trees import noise, write

from holdfast.errors import ForbiddenError, InvalidError, QuotaExceededError

if TYPE_CHECKING:
    from collections.abc import Iterator


NOBODY = 65_534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


@contextmanager
def mounted(where: Path, size: str) -> Iterator[None]:
    """A file system of ``size`` at ``where``."""
    where.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", where],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip("may not mount anything here")
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory of NOBODY's that NOBODY can reach."""
    path = Path(tempfile.mkdtemp())
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.fault("D06")
@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
def test_a_full_disk_is_told_and_the_old_tree_stays(tmp_path: Path, mode: str) -> None:
    snapshot = snapshot_of([file(f"f{n}", noise(100_000, n)) for n in range(8)])
    with mounted(tmp_path / "small", "400k"):
        target = tmp_path / "small" / "app"
        if mode != "new":
            write(target, "old", b"old")

        with pytest.raises(QuotaExceededError, match="disk is full"):
            restore(snapshot, target, mode=mode)

        assert os.listdir(tmp_path / "small") == ([] if mode == "new" else ["app"])
        assert not [path for path in look_at(tmp_path / "small") if b".holdfast" in path]
        if mode != "new":
            assert (target / "old").read_bytes() == b"old"


def test_a_mount_point_is_merged_into_and_not_replaced(tmp_path: Path) -> None:
    snapshot = snapshot_of([file("data/f", b"new"), file("g", b"new")])
    for mount in ("app", "app/data"):
        with mounted(tmp_path / mount, "1m"):
            with pytest.raises(InvalidError, match="merge"):
                restore(snapshot, tmp_path / "app", mode="replace")
            restore(snapshot, tmp_path / "app", mode="merge")

            assert (tmp_path / "app" / "data" / "f").read_bytes() == b"new"
        assert os.listdir(tmp_path) == ["app"]


def test_who_is_not_root_owns_what_is_restored_and_is_told_so_once(open_place: Path) -> None:
    snapshot = snapshot_of(
        [
            directory("closed", mode=0o500, uid=1, gid=1),
            file("closed/f", b"1", uid=1, gid=1, mode=0o4755),
            symlink("closed/link", "f", uid=1),
            file("none", b"2", uid=2, gid=2, mode=0),
            directory("closed/below", mode=0),
        ]
    )

    with as_nobody():
        restored = restore(snapshot, open_place / "app")
        again = restore(snapshot, open_place / "app", mode="replace", owners="current")

    looks = look_at(open_place / "app")
    assert {look.owner for look in looks.values()} == {(NOBODY, NOBODY)}
    assert looks[b"closed"].mode == 0o500
    assert looks[b"closed/f"].mode == 0o755
    assert looks[b"closed/below"].mode == 0
    assert looks[b"none"].mode == 0
    assert sorted(warning.kind for warning in restored.warnings) == ["mode", "owner"]
    assert [warning.kind for warning in again.warnings] == ["mode"]
    assert again.removed == len(looks)
    assert os.listdir(open_place) == ["app"]


@pytest.mark.parametrize("mode", ["new", "merge"])
def test_a_directory_that_may_not_be_written_to_is_forbidden(open_place: Path, mode: str) -> None:
    snapshot = snapshot_of([file("f", b"1")])
    (open_place / "root's").mkdir(mode=0o755)
    if mode == "merge":
        (open_place / "root's" / "app").mkdir(mode=0o755)

    with as_nobody(), pytest.raises(ForbiddenError):
        restore(snapshot, open_place / "root's" / "app", mode=mode)

    assert os.listdir(open_place / "root's") == (["app"] if mode == "merge" else [])


def test_a_parent_that_hands_down_its_group_does_not_change_the_tree(tmp_path: Path) -> None:
    apps = tmp_path / "apps"
    apps.mkdir()
    os.chown(apps, 0, 77)
    os.chmod(apps, 0o2775)  # noqa: S103 - what a shared directory has
    snapshot = snapshot_of([directory("d", mode=0o755), file("d/f", b"1", mode=0o644)])

    restore(snapshot, apps / "app")

    looks = look_at(apps / "app")
    assert {look.owner for path, look in looks.items() if path} == {(0, 0)}
    assert stat.S_IMODE(looks[b"d"].mode) == 0o755


def test_attributes_that_a_file_system_does_not_take_are_warned_of(tmp_path: Path) -> None:
    snapshot = snapshot_of(
        [file("f", b"1", pax_headers={"SCHILY.xattr.strange.name": "1"}), file("g", b"2")]
    )

    restored = restore(snapshot, tmp_path / "app")

    assert [(warning.kind, warning.path) for warning in restored.warnings] == [("attribute", b"f")]
    assert (tmp_path / "app" / "g").read_bytes() == b"2"
