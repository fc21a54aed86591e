"""Filling packs with frames: which go together depends on the frames and their order alone.

The same files therefore make the same packs, in another app and with any number of threads.

Why: docs/decisions.md, "Packs depend on content alone".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from holdfast.domain.digest import Digest
from holdfast.domain.limits import KIB

PACK_BYTES: Final = 896 * KIB
"""A pack is one blob and one message, whose server takes 1 MiB with headers."""

MIN_PACK_BYTES: Final = 256 * KIB
"""A pack that holds so much at the end of a page is closed there: the next page, if it changes,
then does not change this pack.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedPack:
    """A finished pack: ``digest`` (32 bytes) is that of ``data``.

    ``members`` are (frame digest, offset, stored size), in order of offset.
    """

    digest: bytes
    data: bytes
    members: tuple[tuple[bytes, int, int], ...]

    @property
    def address(self) -> Digest:
        """The digest as stores know it."""
        return Digest(self.digest.hex())


class Packer:
    """Collects frames, in the order of the archive, until a pack is full."""

    def __init__(self) -> None:
        """Nothing is collected yet."""
        self._parts: list[bytes] = []
        self._members: list[tuple[bytes, int, int]] = []
        self._size = 0

    def add(self, digest: bytes, stored: bytes) -> ClosedPack | None:
        """Take the frame ``digest``, which is ``stored`` (1 to PACK_BYTES) when compressed.

        Returns the pack before it, if the frame did not fit there.
        """
        closed = self.finish() if self._size + len(stored) > PACK_BYTES else None
        self._members.append((digest, self._size, len(stored)))
        self._parts.append(stored)
        self._size += len(stored)
        return closed

    def end_page(self) -> ClosedPack | None:
        """A page ends here: returns the pack if it is large enough to be closed."""
        return self.finish() if self._size >= MIN_PACK_BYTES else None

    def finish(self) -> ClosedPack | None:
        """The pack, whatever it holds; None if that is nothing."""
        if not self._members:
            return None
        data = b"".join(self._parts)
        closed = ClosedPack(
            digest=hashlib.sha256(data).digest(), data=data, members=tuple(self._members)
        )
        self._parts, self._members, self._size = [], [], 0
        return closed
