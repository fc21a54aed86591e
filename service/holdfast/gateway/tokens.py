"""Bearer tokens: what a caller shows, and what is kept of it in a file: a hash, and its scopes.

A scope is a verb and the beginning of the paths that it is for, such as ``write:/store/photos/``.
``admin`` may what ``write`` may, and that what ``read`` may.

Why: docs/decisions.md, "Tokens and keys lie in files".
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from holdfast.domain.link_keys import ZonedTime
from holdfast.errors import InvalidError, NotFoundError
from holdfast.live_file import LiveFile

MAX_TOKENS: Final = 10_000
TOKEN_PREFIX: Final = "hf"  # noqa: S105  (what a token begins with, for those who look for leaks)

Right = Literal["read", "write", "admin"]
RIGHTS: Final[tuple[Right, ...]] = ("read", "write", "admin")
_RANKS: Final[Mapping[str, int]] = {right: rank for rank, right in enumerate(RIGHTS)}
Scope = Annotated[str, Meta(pattern=r"^(read|write|admin):/", max_length=2048)]
_SECRET_BYTES: Final = 32
_NOBODY: Final = "0" * 64


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``hash`` is the SHA-256 of the whole token, which has 256 random bits."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]{1,32}$(?!\n)")]
    hash: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=64)]
    created_at: ZonedTime
    expires_at: ZonedTime | None = None
    note: Annotated[str, Meta(max_length=200)] = ""

    def may(self, right: Right, path: str) -> bool:
        """Whether it is for ``right`` at ``path``, which is not percent-encoded."""
        for scope in self.scopes:
            granted, _, prefix = scope.partition(":")
            if path.startswith(prefix) and _RANKS[right] <= _RANKS[granted]:
                return True
        return False

    def holds(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or now < self.expires_at


class _TokenFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tokens: Annotated[list[Token], Meta(max_length=MAX_TOKENS)]


def live_tokens(path: str | None) -> LiveFile[tuple[Token, ...]] | None:
    """The tokens of the file at ``path`` as it is now; None where there is no such file."""
    return None if path is None else LiveFile(path, read_tokens)


def read_tokens(text: bytes) -> tuple[Token, ...]:
    """The tokens of a file. Raises InvalidError."""
    try:
        tokens = msgspec.json.decode(text, type=_TokenFile).tokens
    except (msgspec.MsgspecError, UnicodeDecodeError):
        msg = "it is not a file of tokens, as `holdfast token create` writes it"
        raise InvalidError(msg) from None
    if len({token.id for token in tokens}) < len(tokens):
        raise InvalidError("two tokens have the same id")
    return tuple(tokens)


def write_tokens(tokens: Sequence[Token]) -> bytes:
    """The file of tokens."""
    return msgspec.json.format(msgspec.json.encode(_TokenFile([*tokens])), indent=2) + b"\n"


def new_token(
    scopes: Sequence[str], *, now: datetime, expires_at: datetime | None, note: str
) -> tuple[str, Token]:
    """A token that nobody had before: what a caller shows, and what is kept. Raises InvalidError.

    The id and the secret are random.
    """
    text = token_text(secrets.token_hex(6), secrets.token_urlsafe(_SECRET_BYTES))
    token = Token(
        id=text.split("_")[1],
        hash=hash_of(text),
        scopes=tuple(_checked(scope) for scope in scopes),
        created_at=now,
        expires_at=expires_at,
        note=note,
    )
    return text, token


def without(tokens: Sequence[Token], ids: Sequence[str]) -> Sequence[Token]:
    """``tokens`` but for those with ``ids``. Raises NotFoundError unless all are there."""
    if missing := set(ids) - {token.id for token in tokens}:
        raise NotFoundError(f"there is no token {min(missing)}")
    return [token for token in tokens if token.id not in ids]


def token_text(id_: str, secret: str) -> str:
    """The token as text."""
    return f"{TOKEN_PREFIX}_{id_}_{secret}"


def hash_of(text: str) -> str:
    """The hash that is kept."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def find_token(tokens: Sequence[Token], text: str, now: datetime) -> Token | None:
    """The token that ``text`` is; None where there is none, or it has expired."""
    _, _, rest = text.partition("_")
    id_ = rest.partition("_")[0]
    found = next((token for token in tokens if token.id == id_), None)
    is_right = hmac.compare_digest(hash_of(text), _NOBODY if found is None else found.hash)
    return found if found is not None and is_right and found.holds(now) else None


def _checked(scope: str) -> str:
    """Raises InvalidError."""
    right, colon, prefix = scope.partition(":")
    if right not in RIGHTS or not colon or not prefix.startswith("/"):
        raise InvalidError(f"a scope is read, write or admin, a colon and a path, not {scope!r}")
    return scope
