"""Access control lists between snapshots and other tars: out and in, in both forms."""

from __future__ import annotations

import os
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from tests.archive.archiving import archive, tar
from tests.archive.memory import MemoryPackStore
from tests.archive.tars import archive_tar, directory, file, snapshot_of

from holdfast.form.acl import acl_text

if TYPE_CHECKING:
    from pathlib import Path

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_NOBODY = 2**32 - 1


def acl(user: int) -> bytes:
    entries = [(1, 6, _NOBODY), (2, 6, user), (4, 4, _NOBODY), (16, 6, _NOBODY), (32, 4, _NOBODY)]
    return struct.pack("<I", 2) + b"".join([struct.pack("<HHI", *entry) for entry in entries])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"1")
    try:
        os.setxattr(root / "d" / "f", ACCESS, acl(1234))
        os.setxattr(root / "d", DEFAULT, acl(4321))
    except OSError:
        pytest.skip("the file system of temporary files has no ACLs")
    return root


def test_gnu_tar_finds_the_lists_of_an_export_with_its_option_for_them(
    tree: Path, tmp_path: Path
) -> None:
    store = MemoryPackStore()
    exported = tar(store, archive(tree, store).root)
    copy = tmp_path / "copy"
    copy.mkdir()

    subprocess.run(
        ["tar", "--acls", "--numeric-owner", "-xpf", "-", "-C", copy], input=exported, check=True
    )

    assert os.getxattr(copy / "d" / "f", ACCESS) == acl(1234)
    assert os.getxattr(copy / "d", DEFAULT) == acl(4321)
    assert b"SCHILY.xattr.system.posix_acl_access" in exported


@pytest.mark.parametrize("options", [["--acls"], ["--acls", "--numeric-owner"]])
def test_the_lists_of_gnu_tar_are_taken_from_their_text(tree: Path, options: list[str]) -> None:
    made = subprocess.run(
        ["tar", "--format=posix", *options, "-cf", "-", "-C", tree, "."],
        check=True,
        capture_output=True,
    ).stdout

    reader = archive_tar(made)

    assert dict(reader.entry(b"d/f").entry.xattrs) == {ACCESS.encode(): acl(1234)}
    assert dict(reader.entry(b"d").entry.xattrs) == {DEFAULT.encode(): acl(4321)}


def test_an_export_with_lists_comes_back_the_same(tree: Path) -> None:
    store = MemoryPackStore()
    exported = tar(store, archive(tree, store).root)

    again = archive_tar(exported)

    assert tar(again._store, again.digest) == exported  # type: ignore[arg-type]
    assert dict(again.entry(b"d/f").entry.xattrs) == {ACCESS.encode(): acl(1234)}


def test_a_list_that_says_no_more_than_the_mode_is_none() -> None:
    text = {"SCHILY.acl.access": "user::rw-,group::r--,other::r--"}
    both = {**text, "SCHILY.acl.default": "user::rw-,group::r--,other::r--"}

    reader = snapshot_of([directory("d", pax_headers=both), file("f", pax_headers=text)])

    assert reader.entry(b"f").entry.xattrs == ()
    ((name, value),) = reader.entry(b"d").entry.xattrs
    assert (name, acl_text(value)) == (DEFAULT.encode(), b"user::rw-,group::r--,other::r--")
