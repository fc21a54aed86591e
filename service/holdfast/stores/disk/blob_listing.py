"""The names in the directories of blobs, in order, and cursors between them."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import is_digest
from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SHARD: Final = re.compile(r"[0-9a-f]{2}", re.ASCII)


def names_after(blobs: Path, prefix: str, after: tuple[str, str]) -> Iterator[tuple[str, str]]:
    """Every (shard, name) behind ``after`` whose name begins with ``prefix``, ascending."""
    for shard in shard_names(blobs):
        if shard < after[0] or not (prefix.startswith(shard) or shard.startswith(prefix)):
            continue
        for name in sorted(os.listdir(blobs / shard), key=os.fsencode):
            later = (shard, os.fsencode(name)) > (after[0], os.fsencode(after[1]))
            if later and name.startswith(prefix):
                yield shard, name


def shard_names(blobs: Path) -> list[str]:
    """The directories of blobs, ascending."""
    names = sorted(filter(_SHARD.fullmatch, os.listdir(blobs)))
    return [name for name in names if not (blobs / name).is_symlink()]


def is_blob(name: tuple[str, str]) -> bool:
    """Whether a blob lies at (shard, name); else it is none of ours."""
    return is_digest(name[1]) and name[1].startswith(name[0])


def encode_behind(name: tuple[str, str]) -> str:
    """The cursor `decode_behind` takes for this (shard, name)."""
    return base64.urlsafe_b64encode(os.fsencode("/".join(name))).decode()


def decode_behind(cursor: str | None) -> tuple[str, str]:
    """The (shard, name) behind which to go on. Raises InvalidError."""
    if cursor is None:
        return "", ""
    try:
        text = os.fsdecode(base64.b64decode(cursor, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        text = ""
    shard, _, name = text.partition("/")
    if _SHARD.fullmatch(shard) is None or not name:
        raise InvalidError("the cursor is not one that this store made")
    return shard, name
