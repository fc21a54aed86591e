"""Extended attributes in PAX records, and the attributes that are lost.

GNU tar, star and bsdtar all write ``SCHILY.xattr.``. Access control lists they also write as text,
with names of users, which are looked up here as tar does. NFSv4's lists are not kept.
"""

from __future__ import annotations

import grp
import os
import pwd
from typing import TYPE_CHECKING, Final

from holdfast.form.acl import ACL_KEYWORDS, acl_value, is_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

_XATTR: Final = b"SCHILY.xattr."
_ACCESS: Final = b"SCHILY.acl.access"
_NOT_KEPT: Final = (b"SCHILY.acl.ace",)

type _Xattrs = tuple[tuple[bytes, bytes], ...]


def attributes(records: Mapping[bytes, bytes]) -> tuple[_Xattrs, tuple[str, ...]]:
    """Names and values, unchecked, and the keywords of what ``records`` say and these do not.

    ``=`` and ``%`` in names are escaped in a tar.
    """
    xattrs = [
        (key.removeprefix(_XATTR).replace(b"%3D", b"=").replace(b"%25", b"%"), value)
        for key, value in records.items()
        if key.startswith(_XATTR)
    ]
    names = {name for name, _ in xattrs}
    lost = [key.decode() for key in _NOT_KEPT if key in records]
    for key, name in ACL_KEYWORDS:
        if key not in records or name in names:
            continue
        value = acl_value(records[key], _number_of)
        if value is None:
            lost.append(key.decode())
        elif key != _ACCESS or not is_mode(value):
            xattrs.append((name, value))
    return tuple(xattrs), tuple(lost)


def _number_of(kind: bytes, name: bytes) -> int | None:
    """The number of a user or group of this machine."""
    text = os.fsdecode(name)
    try:
        return pwd.getpwnam(text).pw_uid if kind == b"user" else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        return None
