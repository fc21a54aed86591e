"""Which files the demonstration takes."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from holdfast.cli.serving.demo import find_files
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from pathlib import Path


def found(*roots: Path, besides: Path) -> tuple[list[Path], dict[str, int]]:
    skipped: Counter[str] = Counter()
    files = list(find_files(roots, besides=besides, skipped=skipped))
    return files, dict(skipped)


def test_regular_files_are_found_in_order_and_data_is_left_out(tmp_path: Path) -> None:
    for name in ("b", "a/2", "a/1", ".git/x", ".venv/x", "sub/.holdfast/x", "data/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    files, skipped = found(tmp_path, besides=tmp_path / "data")

    assert [str(path.relative_to(tmp_path)) for path in files] == ["b", "a/1", "a/2"]
    assert skipped == {}


def test_links_and_special_files_are_counted_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "file-link").symlink_to("real")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "broken").symlink_to("gone")
    os.mkfifo(tmp_path / "pipe")

    files, skipped = found(tmp_path, besides=tmp_path / "data")

    assert files == [tmp_path / "real"]
    assert skipped == {"symbolic link": 3, "special file": 1}


def test_a_link_that_is_named_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")

    files, skipped = found(tmp_path / "link", besides=tmp_path / "data")

    assert (files, skipped) == ([tmp_path / "real"], {})


def test_what_is_named_and_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="there is no"):
        found(tmp_path / "gone", besides=tmp_path)
