"""Access control lists (POSIX.1e), as Linux keeps them in attributes and as tars have them.

Tars have two forms: the attribute as it is, which restores it exactly and which GNU tar takes with
``--xattrs-include``, and text, which ``tar --acls``, star and bsdtar take.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

ACL_KEYWORDS: Final = (
    (b"SCHILY.acl.access", b"system.posix_acl_access"),
    (b"SCHILY.acl.default", b"system.posix_acl_default"),
)
"""The PAX records with the text, and the attributes that hold the same."""

_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")
_NOBODY: Final = 2**32 - 1
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_BASE: Final = frozenset({_USER_OBJ, _GROUP_OBJ, _OTHER})
_NAMED: Final = frozenset({_USER, _GROUP})
_NAMES: Final = {
    _USER_OBJ: b"user",
    _USER: b"user",
    _GROUP_OBJ: b"group",
    _GROUP: b"group",
    _MASK: b"mask",
    _OTHER: b"other",
}
_TAGS: Final = {
    b"user": (_USER_OBJ, _USER),
    b"group": (_GROUP_OBJ, _GROUP),
    b"mask": (_MASK, _MASK),
    b"other": (_OTHER, _OTHER),
}
_LINE: Final = re.compile(
    rb"(?:default:)?(u(?:ser)?|g(?:roup)?|m(?:ask)?|o(?:ther)?):(?:([^:]*):)?"
    rb"([r-][w-][x-])(?::([0-9]{1,10}))?"
)
_SEPARATORS: Final = re.compile(rb"[,\n]")


def acl_text(value: bytes) -> bytes | None:
    """The text of an attribute's ``value``, with numbers for users; None if it is no list."""
    if value[:4] != _VERSION or (len(value) - 4) % _ENTRY.size:
        return None
    lines = []
    for tag, rights, number in _ENTRY.iter_unpack(value[4:]):
        if tag not in _NAMES or rights > 0o7:
            return None
        whom = b"%d" % number if tag in _NAMED else b""
        lines.append(b"%b:%b:%b" % (_NAMES[tag], whom, _letters(rights)))
    return b",".join(lines) or None


def acl_value(text: bytes, number_of: Callable[[bytes, bytes], int | None]) -> bytes | None:
    """The value that ``text`` stands for; None if that cannot be told.

    ``number_of`` gives the number of a ``user`` or ``group`` (what it is, its name).
    """
    entries: dict[tuple[int, int], int] = {}
    for line in _SEPARATORS.split(text):
        bare = line.partition(b"#")[0].strip()
        if not bare:
            continue
        entry = _entry(bare, number_of)
        if entry is None or entry[:2] in entries:
            return None
        entries[entry[:2]] = entry[2]
    tags = {tag for tag, _ in entries}
    if not tags >= _BASE:
        return None
    if tags & _NAMED and _MASK not in tags:
        mask = 0
        for (tag, _), rights in entries.items():
            mask |= rights if tag in _NAMED or tag == _GROUP_OBJ else 0
        entries[_MASK, _NOBODY] = mask
    rows = [_ENTRY.pack(tag, rights, whom) for (tag, whom), rights in sorted(entries.items())]
    return _VERSION + b"".join(rows)


def is_mode(value: bytes) -> bool:
    """Whether the list ``value`` says no more than a file's mode does."""
    return {tag for tag, _, _ in _ENTRY.iter_unpack(value[4:])} == _BASE


def _entry(
    line: bytes, number_of: Callable[[bytes, bytes], int | None]
) -> tuple[int, int, int] | None:
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    kind = next(name for name in _TAGS if name.startswith(found[1][:1]))
    unnamed, named = _TAGS[kind]
    rights = sum([bit for bit, letter in zip((4, 2, 1), found[3], strict=True) if letter != 45])
    if not found[2]:
        return unnamed, _NOBODY, rights
    if unnamed == named:
        return None
    digits = found[4] or (found[2] if found[2].isdigit() else None)
    number = int(digits) if digits is not None else number_of(kind, found[2])
    if number is None or not 0 <= number < _NOBODY:
        return None
    return named, number, rights


def _letters(rights: int) -> bytes:
    return bytes(
        [letter if rights & bit else 45 for bit, letter in zip((4, 2, 1), b"rwx", strict=True)]
    )
