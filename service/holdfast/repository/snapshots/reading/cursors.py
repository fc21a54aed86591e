"""The end of a page or window, as opaque text: a place in a snapshot that never changes.

A cursor starts with a part of the root's digest, so that it is not taken for one of another
snapshot, and ends with two numbers: of a page and an entry in it, or of bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holdfast.errors import InvalidError

if TYPE_CHECKING:
    from holdfast.archive.read.snapshot import Located, SnapshotReader
    from holdfast.domain.digest import Digest

_TAG_CHARS: Final = 16
_NUMBER: Final = r"(\d{1,16})"
_PLACE: Final = re.compile(rf"([0-9a-f]{{{_TAG_CHARS}}})\.{_NUMBER}\.{_NUMBER}", re.ASCII)
_CHANGE: Final = re.compile(
    rf"([0-9a-f]{{{_TAG_CHARS}}})\.([0-9a-f]{{{_TAG_CHARS}}})\.([ab])\.{_NUMBER}\.{_NUMBER}",
    re.ASCII,
)
NOT_A_CURSOR: Final = "not a cursor of this snapshot"


def cursor_after_entry(root: Digest, located: Located) -> str:
    """The cursor of the entries after ``located``."""
    return encode_place(root, located.page_no, located.index)


def encode_place(root: Digest, first: int, second: int) -> str:
    """A cursor with two numbers."""
    return f"{_tag(root)}.{first}.{second}"


def decode_place(cursor: str, root: Digest) -> tuple[int, int]:
    """Its numbers. Raises InvalidError when it is none of this root."""
    match = _PLACE.fullmatch(cursor)
    if match is None or match[1] != _tag(root):
        raise InvalidError(NOT_A_CURSOR)
    return int(match[2]), int(match[3])


def encode_change(a: Digest, b: Digest, side: str, page: int, index: int) -> str:
    """The cursor of the changes after an entry of the snapshot ``side``: ``a`` or ``b``."""
    return f"{_tag(a)}.{_tag(b)}.{side}.{page}.{index}"


def decode_change(cursor: str, a: Digest, b: Digest) -> tuple[str, int, int]:
    """Side, page and index. Raises InvalidError when it is none of these two."""
    match = _CHANGE.fullmatch(cursor)
    if match is None or (match[1], match[2]) != (_tag(a), _tag(b)):
        raise InvalidError(NOT_A_CURSOR)
    return match[3], int(match[4]), int(match[5])


def path_at(reader: SnapshotReader, page: int, index: int) -> bytes:
    """The path of an entry. Raises InvalidError when there is no such entry."""
    if page >= reader.page_count or index >= reader.page(page).entry_count:
        raise InvalidError(NOT_A_CURSOR)
    return reader.page(page).paths[index]


def _tag(root: Digest) -> str:
    return root[:_TAG_CHARS]
