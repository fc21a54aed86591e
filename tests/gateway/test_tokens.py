"""A token is for a right and the beginning of paths; what is kept of it does not let anybody in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from holdfast.errors import InvalidError
from holdfast.gateway.tokens import (
    RIGHTS,
    Right,
    Token,
    find_token,
    hash_of,
    read_tokens,
    token_text,
    write_tokens,
)

NOW: Final = datetime(2026, 11, 29, 23, 15, 7, tzinfo=UTC)
TEXT: Final = token_text("a1", "S3cr_et-")


def token(*scopes: str, text: str = TEXT, expires_at: datetime | None = None) -> Token:
    return Token(
        id=text.split("_")[1],
        hash=hash_of(text),
        scopes=scopes or ("read:/",),
        created_at=NOW,
        expires_at=expires_at,
    )


@pytest.mark.parametrize(
    ("scope", "right", "path", "may"),
    [
        ("read:/", "read", "/store/a", True),
        ("read:/", "write", "/store/a", False),
        ("write:/", "read", "/store/a", True),
        ("write:/", "admin", "/collect", False),
        ("admin:/", "write", "/store/a", True),
        ("write:/store/a/", "write", "/store/a/b", True),
        ("write:/store/a/", "write", "/store/a", False),
        ("write:/store/a/", "write", "/store/ab", False),
        ("write:/store/a/", "write", "/store/", False),
        ("read:/store/a:b", "read", "/store/a:b/c", True),
    ],
)
def test_a_scope_is_for_a_right_and_those_below_it_and_for_paths_that_begin_so(
    scope: str, right: Right, path: str, may: bool
) -> None:
    assert token(scope).may(right, path) is may


def test_of_several_scopes_one_is_enough() -> None:
    both = token("read:/", "write:/store/drop/")

    assert both.may("read", "/blobs/x")
    assert both.may("write", "/store/drop/x")
    assert not both.may("write", "/blobs")


def test_a_token_is_found_by_its_text_and_by_nothing_else() -> None:
    tokens = [token(text=token_text("b2", "other")), token()]

    assert find_token(tokens, TEXT, NOW) == tokens[1]
    for position in range(len(TEXT)):
        altered = TEXT[:position] + chr(ord(TEXT[position]) ^ 1) + TEXT[position + 1 :]
        assert find_token(tokens, altered, NOW) is None
        assert find_token(tokens, TEXT[:position], NOW) is None
    assert find_token(tokens, tokens[1].hash, NOW) is None
    assert find_token(tokens, "\udcff", NOW) is None


def test_an_expired_token_is_none() -> None:
    tokens = [token(expires_at=NOW + timedelta(hours=1))]

    assert find_token(tokens, TEXT, NOW) is not None
    assert find_token(tokens, TEXT, NOW + timedelta(hours=1)) is None


def test_tokens_are_read_as_they_were_written_and_their_secrets_are_not_among_it() -> None:
    tokens = (token(), token("admin:/", text=token_text("b2", "x"), expires_at=NOW))
    text = write_tokens(tokens)

    assert read_tokens(text) == tokens
    assert b"S3cr_et" not in text


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"\xff", b'{"tokens": [{}]}', write_tokens([token(), token()])],
)
def test_a_file_that_is_none_of_tokens_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidError):
        read_tokens(text)


def test_rights_are_in_the_order_in_which_they_include_each_other() -> None:
    assert RIGHTS == ("read", "write", "admin")
