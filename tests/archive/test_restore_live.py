"""A merge into a living tree: what it leaves, and what it must not take over."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from tests.archive.tars import directory, file, hardlink, snapshot_of, symlink
from tests.archive.trees import write

from holdfast.archive.restore.options import Restored, RestoreLimits, RestoreOptions
from holdfast.archive.restore.restore import restore_tree
from holdfast.errors import TooLargeError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.archive.read.snapshot import SnapshotReader

DAY_MS = 86_400_000
NOW_MS = 1_800_000_000_000


def id_at(milliseconds: int) -> str:
    """A UUID of version 7 of that time."""
    digits = f"{milliseconds:012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-{0:012x}"


def merge(snapshot: SnapshotReader, target: Path, **options: Any) -> Restored:
    return restore_tree(
        snapshot, target, options=RestoreOptions(staging_id=id_at(NOW_MS), mode="merge", **options)
    )


@pytest.mark.fault("S03")
def test_what_killed_merges_left_goes_a_day_later_and_nothing_else(tmp_path: Path) -> None:
    old, young = id_at(NOW_MS - DAY_MS - 1), id_at(NOW_MS - DAY_MS)
    kept = {
        f".holdfast-{young}",
        f".holdfast-{old}.txt",
        f"x.holdfast-{old}",
        ".holdfast-config",
        f"d/.holdfast-{old[:14]}4{old[15:]}",
    }
    for name in (*kept, f".holdfast-{old}", f"d/.holdfast-{old}", f"else/.holdfast-{old}"):
        write(tmp_path, f"app/{name}", b"half")
    os.symlink("x", tmp_path / "app" / f".holdfast-{id_at(1)}")
    write(tmp_path, f"app/.holdfast-{id_at(2)}/the staging directory of another", b"whole")

    merge(snapshot_of([directory("."), file("d/f", b"1")]), tmp_path / "app")

    app = tmp_path / "app"
    found = {str(path.relative_to(app)) for path in app.rglob("*") if not path.is_dir()}
    other = f".holdfast-{id_at(2)}/the staging directory of another"
    assert found == kept | {"d/f", f"else/.holdfast-{old}", other}


def test_what_an_earlier_attempt_of_the_same_merge_left_is_in_nobodys_way(tmp_path: Path) -> None:
    for place in ("", "d/", "links/"):
        write(tmp_path, f"app/{place}.holdfast-{id_at(NOW_MS)}", b"half")
    files = [file("d/f", b"1"), hardlink("links/one", "d/f"), symlink("link", "d/f")]

    merge(snapshot_of(files), tmp_path / "app")

    names = {path.name for path in (tmp_path / "app").rglob("*")}
    assert names == {"d", "f", "link", "links", "one"}


@pytest.mark.fault("T04")
def test_a_file_that_takes_no_more_links_is_copied_as_rarely_as_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_of_a_small_file_system(source: Any, name: Any, **options: Any) -> None:
        if os.stat(source, dir_fd=options["src_dir_fd"]).st_nlink >= 3:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, name, **options)

    monkeypatch.setattr(os, "link", link_of_a_small_file_system)
    files = [file("first", b"12"), *[hardlink(f"z{n}", "first") for n in range(8)]]
    options: dict[str, Any] = {"mode": "new", "staging_id": "test"}

    with pytest.raises(TooLargeError, match="total_bytes"):
        restore_tree(
            snapshot_of(files),
            tmp_path / "app",
            options=RestoreOptions(limits=RestoreLimits(total_bytes=5), **options),
        )
    restored = restore_tree(snapshot_of(files), tmp_path / "app", options=RestoreOptions(**options))

    counts = [path.stat().st_nlink for path in (tmp_path / "app").iterdir()]
    assert counts == [3] * 9
    assert restored.bytes == 6
    assert [warning.kind for warning in restored.warnings] == ["link", "link"]


def test_an_entry_of_the_snapshot_is_no_leftover(tmp_path: Path) -> None:
    name = f".holdfast-{id_at(1)}"

    merge_target = tmp_path / "app"
    merge_target.mkdir()
    merge(snapshot_of([file(name, b"1")]), merge_target)

    assert (merge_target / name).read_bytes() == b"1"


def test_a_living_directory_hands_no_acl_down_to_what_is_restored(tmp_path: Path) -> None:
    app = tmp_path / "app"
    write(app, "plain/kept", b"")
    setfacl = shutil.which("setfacl")
    if setfacl is None:
        pytest.skip("has no setfacl")
    rule = [setfacl, "-d", "-m", "u:1234:rwx", str(app)]
    if subprocess.run(rule, check=False, capture_output=True).returncode:
        pytest.skip("has no ACLs here")
    snapshot = snapshot_of(
        [
            file("f", b"1", mode=0o640),
            directory("new", mode=0o750),
            file("new/f", b"2", mode=0o600),
            file("on the way/f", b"3", mode=0o644),
        ]
    )

    merge(snapshot, app)

    for name, mode in (("f", 0o640), ("new", 0o750), ("new/f", 0o600), ("on the way/f", 0o644)):
        assert stat.S_IMODE(os.stat(app / name).st_mode) == mode
        assert [name for name in os.listxattr(app / name) if "acl" in name] == []
    assert os.listxattr(app / "on the way") == []
    assert "system.posix_acl_default" in os.listxattr(app)
