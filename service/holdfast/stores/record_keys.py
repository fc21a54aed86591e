"""The spelling of record keys, checked by the stores whose medium would accept more."""

from __future__ import annotations

import re
from typing import Final

from holdfast.errors import InvalidError

MAX_KEY_CHARS: Final = 256
_KEY: Final = re.compile(r"[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_=-]+)*", re.ASCII)


def check_record_key(key: str) -> None:
    """Raises InvalidError unless ``key`` is tokens of ``[A-Za-z0-9_=-]`` joined by dots."""
    if len(key) > MAX_KEY_CHARS or _KEY.fullmatch(key) is None:
        msg = "a record key is tokens of A-Z a-z 0-9 _ = - joined by dots, 256 characters at most"
        raise InvalidError(msg)


def has_prefix(key: str, prefix: str) -> bool:
    """Whether ``key`` starts with the tokens of ``prefix``; the empty prefix fits every key."""
    return not prefix or key == prefix or key.startswith(prefix + ".")
