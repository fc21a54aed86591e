"""A file of keys or tokens is read again when it changes, and never half."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.errors import InvalidError, UnavailableError
from holdfast.live_file import LiveFile

if TYPE_CHECKING:
    from pathlib import Path


def number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidError("that is no number") from error


def replace(path: Path, text: str) -> None:
    other = path.with_suffix(".new")
    other.write_text(text)
    other.replace(path)


def test_what_is_in_the_file_now_counts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    file = LiveFile(str(path), number)
    assert file.read() == 1

    replace(path, "2")

    assert file.read() == 2


def test_an_unchanged_file_is_not_parsed_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    parsed: list[bytes] = []
    file = LiveFile(str(path), parsed.append)

    for _ in range(3):
        file.read()

    assert parsed == [b"1"]


@pytest.mark.parametrize("spoil", ["gone", "nonsense"])
def test_nothing_is_remembered_of_a_file_that_cannot_be_read_any_more(
    tmp_path: Path, spoil: str
) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    file = LiveFile(str(path), number)
    file.read()

    if spoil == "gone":
        path.unlink()
    else:
        replace(path, "nonsense")

    with pytest.raises(UnavailableError, match=str(path)):
        file.read()
    replace(path, "3")
    assert file.read() == 3
