"""A snapshot's record of one file, directory or link, and the order these come in.

Paths are bytes, relative to the app's directory, which itself is ``b""``. They have no leading or
trailing slash and no ``.`` or ``..`` component, and need not be UTF-8.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec

from holdfast.form.sparse import sparse_bytes

MAX_PATH_BYTES: Final = 4096
MAX_COMPONENT_BYTES: Final = 255
MAX_TARGET_BYTES: Final = 4096
MAX_MODE: Final = 0o7777
MAX_OWNER: Final = 2**32 - 2
"""The largest uid or gid: the one above means "leave it" to chown."""

MAX_FILE_BYTES: Final = 2**62
MAX_TIME_NS: Final = 2**63 - 1
"""Times lie within plus and minus this (the years 1678 to 2262); others are moved to the bound."""

MAX_XATTRS: Final = 256
MAX_XATTR_NAME_BYTES: Final = 255
MAX_XATTRS_BYTES: Final = 256 * 1024
"""Names and values of one entry together; they all lie in its header, hence in one frame."""


class Kind(IntEnum):
    """The kinds of entries. Other kinds of file are not archived."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    HARDLINK = 3


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One member of a snapshot.

    ``mode`` has the bits of 0o7777. ``size`` is the apparent size of a FILE, otherwise 0.
    ``mtime_ns`` counts from 1970. ``target`` is the text of a SYMLINK, or for a HARDLINK the path
    of the FILE it is another name of, which comes before it. ``segments`` are (offset, length) of
    the data of a sparse FILE, ascending; None where the file is plain.

    ``frame`` and ``offset`` tell where the data begins: the frame's number within the page, and
    the byte in it. Entries without data have the frame of their header, and 0. Only a page knows
    them: a maker of entries leaves them out.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    segments: tuple[tuple[int, int], ...] | None = None
    frame: int = 0
    offset: int = 0


def clamped(time_ns: int) -> int:
    """``time_ns``, or the nearest time that a snapshot can record."""
    if -MAX_TIME_NS <= time_ns <= MAX_TIME_NS:
        return time_ns
    return MAX_TIME_NS if time_ns > 0 else -MAX_TIME_NS


def order_key(path: bytes) -> bytes:
    """Entries ascend by this: a directory comes just before what is in it."""
    return path.replace(b"/", b"\0")


def stored_bytes(entry: Entry) -> int:
    """Bytes of data that follow the entry's header in the tar, without padding."""
    if entry.segments is not None:
        return sparse_bytes(entry.segments, entry.size)
    return entry.size
