"""Sparse files: which stretches of a file hold data, and how a tar writes that down (GNU 1.0).

A sparse file's data in the tar is a map (decimal numbers, one a line, padded to a block) and then
its segments one after the other. Holes take no room.

Why: docs/decisions.md, "Sparse maps in whole blocks".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

BLOCK_BYTES: Final = 512
MAX_SEGMENTS: Final = 65_536
"""Of one file. A file with more is archived as a plain one."""


def padding(size: int) -> int:
    """The zero bytes that follow ``size`` bytes of data to fill the block."""
    return -size % BLOCK_BYTES


def sparse_map(segments: Sequence[tuple[int, int]], size: int) -> bytes:
    """The map of a file of ``size`` bytes whose data lies in ``segments``, padded to a block.

    ``segments`` are (offset, length), ascending. A file that ends in a hole gets an empty last
    segment in the map: GNU tar learns from it how far the file reaches.
    """
    rows = [*segments]
    if not rows or sum(rows[-1]) < size:
        rows.append((size, 0))
    text = b"%d\n" % len(rows) + b"".join([b"%d\n%d\n" % row for row in rows])
    return text + bytes(padding(len(text)))


def sparse_bytes(segments: Sequence[tuple[int, int]], size: int) -> int:
    """Bytes of such a file in the tar after its header, before padding: map and segments."""
    return len(sparse_map(segments, size)) + sum([length for _, length in segments])


def to_blocks(segments: Iterable[tuple[int, int]], size: int) -> tuple[tuple[int, int], ...]:
    """``segments`` (ascending, within ``size``) widened to whole blocks; those that touch are one.

    Readers of tar disagree about the bytes after a segment that ends within a block: GNU tar takes
    them for padding, others for the next segment. Only the file's own end may lie there.
    """
    found: list[tuple[int, int]] = []
    for offset, length in segments:
        start = offset - offset % BLOCK_BYTES
        end = min(offset + length + padding(offset + length), size)
        if found and start <= sum(found[-1]):
            start = found.pop()[0]
        if end > start:
            found.append((start, end - start))
    return tuple(found)


def are_segments(segments: Sequence[tuple[int, int]], size: int) -> bool:
    """Whether ``segments`` are ascending, apart or adjacent, not empty, and inside ``size``.

    All but the last are whole blocks long.
    """
    ends = [offset + length for offset, length in segments]
    return (
        len(segments) <= MAX_SEGMENTS
        and all(offset >= 0 and length > 0 for offset, length in segments)
        and all(end <= offset for end, (offset, _) in zip(ends, segments[1:], strict=False))
        and not any(length % BLOCK_BYTES for _, length in segments[:-1])
        and (not ends or ends[-1] <= size)
    )
