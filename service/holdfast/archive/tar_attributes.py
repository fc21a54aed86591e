"""What PAX records say of extended attributes, and which attributes are lost.

GNU tar, star and bsdtar all write ``SCHILY.xattr.``. Access control lists they also write as text,
whose names of users mean something on the machine that made the tar only: these are not kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_XATTR: Final = b"SCHILY.xattr."
_ACLS: Final = {
    b"SCHILY.acl.access": b"system.posix_acl_access",
    b"SCHILY.acl.default": b"system.posix_acl_default",
}
"""Access control lists as text, and the extended attributes that hold the same."""

type _Xattrs = tuple[tuple[bytes, bytes], ...]


def extended_attributes(records: Mapping[bytes, bytes]) -> _Xattrs:
    """Names and values, unchecked. ``=`` and ``%`` in names are escaped in a tar."""
    return tuple(
        [
            (key.removeprefix(_XATTR).replace(b"%3D", b"=").replace(b"%25", b"%"), value)
            for key, value in records.items()
            if key.startswith(_XATTR)
        ]
    )


def lost_attributes(records: Mapping[bytes, bytes], xattrs: _Xattrs) -> tuple[str, ...]:
    """The keywords of what ``records`` say and ``xattrs`` do not hold."""
    return tuple(
        [
            key.decode()
            for key, xattr in _ACLS.items()
            if key in records and xattr not in dict(xattrs)
        ]
    )
