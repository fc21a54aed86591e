"""Privileges come back only with the owner they were of, and of what a client made if asked for."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.archive.compare import look_at
from tests.archive.tars import directory, file, restore, snapshot_of, symlink
from tests.archive.test_restore_system import NOBODY, as_nobody

from holdfast.archive.restore.owners import (
    Owners,
    Privileges,
    chosen_privileges,
)
from holdfast.errors import ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.archive.read.snapshot import SnapshotReader

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others have no privileges")

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 6, 0, 0, 0).decode("latin-1")
PRIVILEGES = {"set user ID", "set group ID", "capability", "trusted", "trusted directory"}


def xattr(name: str, value: str) -> dict[str, dict[str, str]]:
    return {"pax_headers": {f"SCHILY.xattr.{name}": value}}


def privileged(uid: int = 0) -> SnapshotReader:
    return snapshot_of(
        [
            directory("d", uid=uid, mode=0o2775, **xattr("trusted.overlay.opaque", "y")),
            file("d/set user ID", b"1", uid=uid, mode=0o4755),
            file("d/set user ID too", b"1", uid=uid, mode=0o4755),
            file("d/set group ID", b"1", uid=uid, mode=0o2755),
            file("d/capability", b"1", uid=uid, **xattr("security.capability", CAPABILITY)),
            file("d/trusted", b"1", uid=uid, mode=0o444, **xattr("trusted.x", "y")),
            file("d/user", b"1", uid=uid, mode=0o444, **xattr("user.x", "y")),
            symlink("d/link", "user", uid=uid),
        ]
    )


def found_in(app: Path) -> set[str]:
    """Which privileges there are."""
    looks = {
        "set user ID": bool(os.stat(app / "d" / "set user ID").st_mode & stat.S_ISUID),
        "set group ID": bool(os.stat(app / "d" / "set group ID").st_mode & stat.S_ISGID),
        "capability": "security.capability" in os.listxattr(app / "d" / "capability"),
        "trusted": "trusted.x" in os.listxattr(app / "d" / "trusted"),
        "trusted directory": "trusted.overlay.opaque" in os.listxattr(app / "d"),
    }
    return {name for name, found in looks.items() if found}


@pytest.mark.parametrize("mode", ["new", "replace", "merge"])
@pytest.mark.parametrize(
    ("owners", "privileges", "kept"),
    [
        ("keep", "owned", True),
        ("keep", "never", False),
        ("keep", "always", True),
        ("current", "owned", True),
        ("current", "never", False),
        ((0, 0), "owned", True),
        ((1000, 1000), "owned", False),
        ((1000, 1000), "never", False),
        ((1000, 1000), "always", True),
    ],
)
def test_all_privileges_follow_one_rule_and_each_that_is_left_out_is_told(
    tmp_path: Path, mode: str, owners: Owners, privileges: Privileges, *, kept: bool
) -> None:
    app = tmp_path / "app"
    if mode != "new":
        (app / "d").mkdir(parents=True)

    restored = restore(privileged(), app, mode=mode, owners=owners, privileges=privileges)

    told = sorted((warning.kind, warning.path) for warning in restored.warnings)
    assert found_in(app) == (PRIVILEGES if kept else set())
    assert told == (
        []
        if kept
        else [
            ("attribute", b"d"),
            ("attribute", b"d/capability"),
            ("attribute", b"d/trusted"),
            ("mode", b"d/set group ID"),
            ("mode", b"d/set user ID"),
            ("mode", b"d/set user ID too"),
        ]
    )
    assert os.getxattr(app / "d" / "user", "user.x") == b"y"
    assert stat.S_IMODE(os.stat(app / "d").st_mode) == 0o2775
    assert stat.S_IMODE(os.stat(app / "d" / "trusted").st_mode) == 0o444


def test_who_cannot_give_files_away_gets_no_privileges_even_if_asked_for(
    open_place: Path,
) -> None:
    snapshot = snapshot_of([file("f", b"1", mode=0o6755), file("g", b"1", uid=NOBODY, mode=0o755)])
    with as_nobody():
        restored = restore(snapshot, open_place / "app", privileges="always")

    assert stat.S_IMODE(os.stat(open_place / "app" / "f").st_mode) == 0o755
    assert sorted({warning.kind for warning in restored.warnings}) == ["mode", "owner"]


def test_only_what_a_worker_made_is_trusted_unasked() -> None:
    assert chosen_privileges(by_client=True, asked=False) == "never"
    assert chosen_privileges(by_client=False, asked=False) == "owned"
    assert chosen_privileges(by_client=True, asked=True) == "always"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory of NOBODY's that NOBODY can reach."""
    path = Path(tempfile.mkdtemp())
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def closed_tree(*more: tuple[Any, bytes]) -> SnapshotReader:
    owned = {"uid": NOBODY, "gid": NOBODY}
    return snapshot_of(
        [
            directory(".", mode=0o555, **owned),
            directory("a", mode=0o555, **owned, **xattr("user.x", "y")),
            file("a/f", b"1", mode=0o444, **owned, **xattr("user.x", "y")),
            directory("a/b", mode=0o500, **owned),
            file("a/b/g", b"2", mode=0o400, **owned),
            directory("empty", mode=0, **owned),
            symlink("a/link", "f", **owned),
            *more,
        ]
    )


def modes(root: Path) -> dict[bytes, int]:
    return {path: look.mode for path, look in look_at(root).items()}


@pytest.mark.parametrize("delete", [False, True])
def test_ones_own_read_only_directories_are_merged_into_as_they_are_replaced(
    open_place: Path, *, delete: bool
) -> None:
    first = closed_tree(file("a/old", b"1", uid=NOBODY), file("empty/old", b"1", uid=NOBODY))
    with as_nobody():
        restore(first, open_place / "app")
        restored = restore(closed_tree(), open_place / "app", mode="merge", delete=delete)
        restore(closed_tree(), open_place / "new")

    merged, new = modes(open_place / "app"), modes(open_place / "new")
    extra = {path: mode for path, mode in merged.items() if path not in new}
    assert restored.warning_count == 0
    assert {path: mode for path, mode in merged.items() if path in new} == new
    assert set(extra) == (set() if delete else {b"a/old", b"empty/old"})
    assert os.getxattr(open_place / "app" / "a", "user.x") == b"y"
    assert os.getxattr(open_place / "app" / "a" / "f", "user.x") == b"y"


@pytest.mark.parametrize("fails", [False, True])
def test_directories_on_the_way_get_their_modes_back(
    open_place: Path, monkeypatch: pytest.MonkeyPatch, *, fails: bool
) -> None:
    with as_nobody():
        restore(closed_tree(), open_place / "app")
        os.chmod(open_place / "app" / "a", 0o100)
        os.chmod(open_place / "app", 0o500)
        if fails:
            monkeypatch.setattr(os, "utime", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                restore(closed_tree(), open_place / "app", mode="merge", paths=("a/b/g",))
        else:
            restore(closed_tree(), open_place / "app", mode="merge", paths=("a/b/g",))

    assert stat.S_IMODE(os.stat(open_place / "app").st_mode) == 0o500
    assert stat.S_IMODE(os.stat(open_place / "app" / "a").st_mode) == 0o100
    assert stat.S_IMODE(os.stat(open_place / "app" / "a" / "b").st_mode) == 0o500


def test_directories_of_others_stay_as_they_are(open_place: Path) -> None:
    (open_place / "app" / "a").mkdir(parents=True)

    with as_nobody(), pytest.raises(ForbiddenError):
        restore(closed_tree(), open_place / "app", mode="merge")

    assert stat.S_IMODE(os.stat(open_place / "app").st_mode) == 0o755
