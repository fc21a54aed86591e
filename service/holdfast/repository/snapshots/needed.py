"""Every blob that a snapshot needs, in as little memory as their digests take."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from holdfast.domain.digest import Digest
from holdfast.form.frame_table import DIGEST_BYTES, digest_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Needed:
    """The blobs that a root lies in, then the packs that it names."""

    def __init__(self, root_blobs: Sequence[Digest] = (), packs: bytes = b"") -> None:
        """``packs`` are digests of 32 bytes one after the other, ascending, each once."""
        self._root_blobs = tuple(root_blobs)
        self._packs = packs

    def __len__(self) -> int:
        """Their number."""
        return len(self._root_blobs) + self._pack_count

    @property
    def _pack_count(self) -> int:
        return len(self._packs) // DIGEST_BYTES

    def __iter__(self) -> Iterator[Digest]:
        """Each once."""
        yield from self._root_blobs
        for number in range(self._pack_count):
            yield Digest(digest_at(self._packs, number).hex())

    def __contains__(self, digest: object) -> bool:
        """Whether it is needed."""
        if not isinstance(digest, str):
            return False
        if digest in self._root_blobs:
            return True
        wanted = bytes.fromhex(digest)
        number = bisect_left(
            range(self._pack_count), wanted, key=lambda at: digest_at(self._packs, at)
        )
        return number < self._pack_count and digest_at(self._packs, number) == wanted
