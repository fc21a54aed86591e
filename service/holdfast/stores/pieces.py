"""Cutting bytes into the pieces that `BlobStore.read` gives: one per stored part."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def part_ranges(start: int, stop: int, part_size: int) -> Iterator[tuple[int, int]]:
    """The range ``start`` to ``stop`` of a blob, cut wherever a part of ``part_size`` ends."""
    while start < stop:
        end = min((start // part_size + 1) * part_size, stop)
        yield start, end
        start = end
