"""Whether anything in a page may have changed, told from what a walk sees without opening a file.

Equal fingerprints mean that every member has the name, kind, inode, times and owners it had: the
parent snapshot's page is then used as it is, and none of its files is read.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FINGERPRINT_BYTES: Final = 32
NEVER_EQUAL: Final = bytes(FINGERPRINT_BYTES)
"""Written instead of a fingerprint where a member was modified just before the walk."""

_VERSION: Final = b"holdfast page 1\0"


def fingerprint(
    *,
    paths: Sequence[bytes],
    kinds: bytes,
    modes: Sequence[int],
    uids: Sequence[int],
    gids: Sequence[int],
    sizes: Sequence[int],
    mtimes_ns: Sequence[int],
    inodes: Sequence[int],
    ctimes_ns: Sequence[int],
    links: Mapping[int, bytes],
) -> bytes:
    """32 bytes that differ when anything given differs. All columns have the same length.

    ``links`` has the targets of hard links by index, ascending; a symlink's target cannot change
    under its inode. Times are within plus and minus 2**63 - 1, sizes and inodes below 2**64, the
    other numbers below 2**32. (On a machine of the other byte order all fingerprints differ, and
    files are read once more.)
    """
    text = b"\0".join([*paths, *links.values()])
    sha256 = hashlib.sha256(_VERSION)
    sha256.update(array("Q", [len(paths), len(text), *links]))
    for column in (modes, uids, gids):
        sha256.update(array("I", column))
    for column in (sizes, inodes):
        sha256.update(array("Q", column))
    for column in (mtimes_ns, ctimes_ns):
        sha256.update(array("q", column))
    sha256.update(kinds)
    sha256.update(text)
    return sha256.digest()
