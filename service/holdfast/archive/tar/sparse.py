"""The four ways in which tars write sparse files: old GNU, and GNU's PAX formats 0.0, 0.1, 1.0.

All end up as the same (offset, length) segments. Nothing of what a map claims is believed: neither
its length, nor its order, nor that the data is there. A segment that ends within a block, but for
the last one, is refused: tools disagree about where the data of the next one begins then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Final

from holdfast.errors import InvalidError, TooLargeError
from holdfast.form.entries import MAX_FILE_BYTES
from holdfast.form.sparse import BLOCK_BYTES, MAX_SEGMENTS, are_segments

ReadAt = Callable[[int, int], bytes]
"""Exactly ``length`` bytes at ``position``, or InvalidError."""

_GNU_PAIRS: Final = 4
_GNU_MORE_PAIRS: Final = 21
_PAIR_BYTES: Final = 24
_DECIMAL: Final = re.compile(rb"[0-9]{1,19}")
_OCTAL: Final = re.compile(rb"[ ]*([0-7]*)[ \0]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """A sparse file of ``size`` bytes; ``map_bytes`` of its stored data are a map."""

    size: int
    segments: tuple[tuple[int, int], ...]
    map_bytes: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it has no hole at all."""
        return self.data_bytes == self.size

    @property
    def data_bytes(self) -> int:
        """The bytes of the segments, which are all that is stored of the content."""
        return sum([length for _, length in self.segments])


def gnu_sparse(block: bytes, read: ReadAt, position: int) -> tuple[Sparse, int]:
    """The map in an old GNU header and the blocks at ``position``; and where the data begins."""
    pairs = _gnu_pairs(block[386:], _GNU_PAIRS)
    more = block[482]
    while more:
        _check_count(len(pairs))
        block_ = read(position, BLOCK_BYTES)
        position += BLOCK_BYTES
        pairs += _gnu_pairs(block_, _GNU_MORE_PAIRS)
        more = block_[504]
    return Sparse(size=(size := _gnu_number(block[483:495])), segments=_segments(pairs, size)), (
        position
    )


def _gnu_pairs(data: bytes, count: int) -> list[tuple[int, int]]:
    """Up to ``count`` pairs of numbers; the first one without a length ends them."""
    found = []
    for at in range(0, count * _PAIR_BYTES, _PAIR_BYTES):
        if not data[at]:
            break
        found.append((_gnu_number(data[at : at + 12]), _gnu_number(data[at + 12 : at + 24])))
    return found


def _gnu_number(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise _damaged()
    return int(match[1] or b"0", 8)


def pax_sparse(
    records: Mapping[bytes, bytes],
    pairs: Sequence[bytes],
    read: ReadAt,
    position: int,
    stored: int,
) -> Sparse | None:
    """The map of a member with these PAX records, or None for a plain one.

    ``pairs`` are the values of repeated offset and numbytes records, in order; ``position`` is
    where ``stored`` bytes of data begin.
    """
    if records.get(b"GNU.sparse.major") == b"1" and records.get(b"GNU.sparse.minor") == b"0":
        size = _number(records.get(b"GNU.sparse.realsize", b""))
        numbers, map_bytes = _leading_map(read, position, stored)
        return Sparse(size=size, segments=_paired(numbers, size), map_bytes=map_bytes)
    if b"GNU.sparse.major" in records:
        raise InvalidError("a sparse tar member has a version that is not supported")
    if b"GNU.sparse.map" in records:
        values: Sequence[bytes] = records[b"GNU.sparse.map"].split(b",")
    elif pairs:
        values = pairs
    else:
        return None
    size = _number(records.get(b"GNU.sparse.size", b""))
    _check_count(len(values) // 2)
    return Sparse(size=size, segments=_paired([_number(value) for value in values], size))


def _leading_map(read: ReadAt, position: int, stored: int) -> tuple[list[int], int]:
    """The numbers of a map in front of the data (format 1.0), and how many bytes it takes.

    Numbers of one line each: how many pairs follow, then these. Padded to a block.
    """
    lines: list[bytes] = []
    rest = b""
    taken = 0
    wanted = 1
    while len(lines) < wanted:
        if taken + BLOCK_BYTES > stored + -stored % BLOCK_BYTES:
            raise _damaged()
        *whole, rest = (rest + read(position + taken, BLOCK_BYTES)).split(b"\n")
        taken += BLOCK_BYTES
        lines += whole
        if lines and wanted == 1:
            count = _number(lines[0])
            _check_count(count)
            wanted = 1 + 2 * count
        if len(rest) > BLOCK_BYTES:
            raise _damaged()
    return [_number(line) for line in lines[1:wanted]], taken


def _paired(numbers: Sequence[int], size: int) -> tuple[tuple[int, int], ...]:
    if len(numbers) % 2:
        raise _damaged()
    return _segments([(offset, length) for offset, length in batched(numbers, 2)], size)


def _segments(pairs: Iterable[tuple[int, int]], size: int) -> tuple[tuple[int, int], ...]:
    """Without the empty pairs that only tell where the file ends."""
    segments = tuple([(offset, length) for offset, length in pairs if length])
    if size > MAX_FILE_BYTES or not are_segments(segments, size):
        raise _damaged()
    return segments


def _number(text: bytes) -> int:
    if _DECIMAL.fullmatch(text) is None:
        raise _damaged()
    return int(text)


def _check_count(count: int) -> None:
    if count > MAX_SEGMENTS + 1:  # one only tells where the file ends
        raise TooLargeError(f"a sparse tar member has more than {MAX_SEGMENTS} segments")


def _damaged() -> InvalidError:
    return InvalidError("the map of a sparse tar member is damaged")
