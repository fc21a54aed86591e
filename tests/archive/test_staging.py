"""Staging directories: how they are made, found after a crash, and removed."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from tests.archive.trees import nasty

from holdfast.archive.directories import open_directory
from holdfast.archive.staging import list_stagings, make_staging, remove_staging
from holdfast.errors import ConflictError, InvalidError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    fd = open_directory(tmp_path)
    yield fd
    os.close(fd)


def test_what_restores_left_behind_is_listed_and_removed(tmp_path: Path, parent: int) -> None:
    os.close(make_staging(parent, "b-2"))
    os.close(make_staging(parent, "a_1"))
    nasty(tmp_path / ".holdfast-a_1")
    for other in ("app", ".holdfast", ".holdfast-no id", "x.holdfast-x"):
        (tmp_path / other).mkdir()
    (tmp_path / ".holdfast-file").touch()

    assert list_stagings(tmp_path) == ["a_1", "b-2"]
    assert remove_staging(tmp_path, "a_1")
    assert not remove_staging(tmp_path, "a_1")

    assert list_stagings(tmp_path) == ["b-2"]
    assert (tmp_path / "app").is_dir()


@pytest.mark.parametrize("staging_id", ["", "..", "a/b", "a.b", "x" * 65, "a\n"])
def test_what_is_no_identifier_never_reaches_the_file_system(
    tmp_path: Path, parent: int, staging_id: str
) -> None:
    with pytest.raises(InvalidError):
        make_staging(parent, staging_id)
    with pytest.raises(InvalidError):
        remove_staging(tmp_path, staging_id)

    assert os.listdir(tmp_path) == []


def test_two_restores_do_not_share_a_staging_directory(parent: int) -> None:
    os.close(make_staging(parent, "same"))

    with pytest.raises(ConflictError):
        make_staging(parent, "same")


def test_nobody_else_gets_in_and_nothing_is_inherited(tmp_path: Path, parent: int) -> None:
    os.chmod(tmp_path, 0o2777)  # noqa: S103 - what a staging directory must not inherit

    fd = make_staging(parent, "private")

    try:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o700
    finally:
        os.close(fd)


def test_a_directory_that_is_gone_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        list_stagings(tmp_path / "gone")


def test_what_dies_is_found_again_and_its_name_is_free(tmp_path: Path, parent: int) -> None:
    (tmp_path / ".holdfast-gone.dying" / "rest").mkdir(parents=True)
    os.close(make_staging(parent, "gone"))

    assert list_stagings(tmp_path) == ["gone"]
    assert remove_staging(tmp_path, "gone")

    assert os.listdir(tmp_path) == []
