"""Whether anything in a page may have changed, told from what a walk sees without opening a file.

Equal fingerprints mean that every member has the name, kind, inode, times and owners it had: the
parent snapshot's page is then used as it is, and none of its files is read.

Why: docs/decisions.md, "One fingerprint per page decides whether it is looked at".
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FINGERPRINT_BYTES: Final = 32
NEVER_EQUAL: Final = bytes(FINGERPRINT_BYTES)
"""Written instead of a fingerprint where a member was modified just before the walk."""

_VERSION: Final = b"holdfast page 1\0"


@dataclass(frozen=True, kw_only=True)
class SeenColumns:
    """The entries of a page as a walk saw them. All columns have the same length.

    ``ctimes_ns`` are 0 for entries that changed too recently to be sure that the next change will
    show; ``sizes`` are 0 for all but FILEs. ``links`` has the targets of hard links by index,
    ascending; a symlink's target cannot change under its inode. Times are within plus and minus
    2**63 - 1, sizes and inodes below 2**64, the other numbers below 2**32.
    """

    paths: Sequence[bytes]
    kinds: bytes
    modes: Sequence[int]
    uids: Sequence[int]
    gids: Sequence[int]
    sizes: Sequence[int]
    mtimes_ns: Sequence[int]
    inodes: Sequence[int]
    ctimes_ns: Sequence[int]
    links: Mapping[int, bytes]

    def rows(self) -> list[tuple[int, ...]]:
        """Per entry what must be equal for it to be unchanged."""
        return list(
            zip(
                self.kinds,
                self.modes,
                self.uids,
                self.gids,
                self.sizes,
                self.mtimes_ns,
                self.inodes,
                self.ctimes_ns,
                strict=True,
            )
        )

    @cached_property
    def fingerprint(self) -> bytes:
        """The page's: NEVER_EQUAL where an entry changed too recently."""
        return NEVER_EQUAL if 0 in self.ctimes_ns else self.digest()

    def digest(self) -> bytes:
        """32 bytes that differ when any column does.

        On a machine of the other byte order all differ, and files are read once more.
        """
        text = b"\0".join([*self.paths, *self.links.values()])
        sha256 = hashlib.sha256(_VERSION)
        sha256.update(array("Q", [len(self.paths), len(text), *self.links]))
        for column in (self.modes, self.uids, self.gids):
            sha256.update(array("I", column))
        for column in (self.sizes, self.inodes):
            sha256.update(array("Q", column))
        for column in (self.mtimes_ns, self.ctimes_ns):
            sha256.update(array("q", column))
        sha256.update(self.kinds)
        sha256.update(text)
        return sha256.digest()
