"""Digests by their first digits: the names of a large bucket, small enough to be kept.

A map from digest to a number. 40 bytes each, in 4,096 pieces by the first three digits, so that
adding one costs a look through a piece, and finding some a sorting of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast.domain.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

_DIGITS: Final = 3
_RAW_BYTES: Final = 32
_NUMBER_BYTES: Final = 8
_ENTRY_BYTES: Final = _RAW_BYTES + _NUMBER_BYTES


class DigestIndex:
    """Digests with a number each."""

    def __init__(self) -> None:
        self._pieces = [bytearray() for _ in range(16**_DIGITS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def note(self, digest: Digest, number: int) -> None:
        """Set the number of ``digest``, 0 to 2**64 - 1."""
        piece = self._pieces[int(digest[:_DIGITS], 16)]
        raw = bytes.fromhex(digest)
        at = piece.find(raw)
        while at >= 0 and at % _ENTRY_BYTES:
            at = piece.find(raw, at + 1)
        if at < 0:
            piece += raw
            piece += number.to_bytes(_NUMBER_BYTES)
            self._count += 1
        else:
            piece[at + _RAW_BYTES : at + _ENTRY_BYTES] = number.to_bytes(_NUMBER_BYTES)

    def find(self, prefix: str, after: str, limit: int) -> list[tuple[Digest, int]]:
        """Up to ``limit`` that begin with ``prefix`` and come after ``after``, ascending."""
        found: list[tuple[Digest, int]] = []
        for piece in self._pieces_of(prefix, after):
            entries = sorted(
                bytes(piece[at : at + _ENTRY_BYTES]) for at in range(0, len(piece), _ENTRY_BYTES)
            )
            for entry in entries:
                digest = entry[:_RAW_BYTES].hex()
                if digest > after and digest.startswith(prefix):
                    found.append((Digest(digest), int.from_bytes(entry[_RAW_BYTES:])))
                    if len(found) == limit:
                        return found
        return found

    def _pieces_of(self, prefix: str, after: str) -> Iterator[bytearray]:
        head = prefix[:_DIGITS]
        first = max(int(head.ljust(_DIGITS, "0"), 16), int(after[:_DIGITS].ljust(_DIGITS, "0"), 16))
        last = int(head.ljust(_DIGITS, "f"), 16)
        yield from self._pieces[first : last + 1]
