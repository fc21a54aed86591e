"""A file of keys or tokens is read again when it changes, and never half."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from holdfast.errors import InvalidError, UnavailableError
from holdfast.gateway.tokens import new_token, read_tokens, without, write_tokens
from holdfast.live_file import LiveFile, change_live_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.gateway.tokens import Token


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


def test_what_was_removed_is_not_brought_back_by_who_changes_the_file_at_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tokens"
    now = datetime(2027, 1, 31, tzinfo=UTC)
    tokens = [new_token(["read:/"], now=now, expires_at=None, note="")[1] for _ in range(12)]
    path.write_bytes(write_tokens(tokens))
    at_once = threading.Barrier(len(tokens))

    def remove(id_: str) -> None:
        at_once.wait()
        change_live_file(path, read_tokens, write_tokens, lambda rest: without(rest, [id_]))

    with ThreadPoolExecutor(len(tokens)) as pool:
        list(pool.map(remove, [token.id for token in tokens]))

    assert read_tokens(path.read_bytes()) == ()


def test_of_files_that_are_made_at_once_what_each_was_to_have_is_there(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    now = datetime(2027, 1, 31, tzinfo=UTC)
    tokens = [new_token(["read:/"], now=now, expires_at=None, note="")[1] for _ in range(6)]
    at_once = threading.Barrier(len(tokens))

    def add(token: Token) -> None:
        def with_it(rest: Sequence[Token]) -> Sequence[Token]:
            return [*rest, token]

        at_once.wait()
        change_live_file(path, read_tokens, write_tokens, with_it, is_new=True)

    with ThreadPoolExecutor(len(tokens)) as pool:
        list(pool.map(add, tokens))

    assert {token.id for token in read_tokens(path.read_bytes())} == {token.id for token in tokens}
