"""The kept bytes of a blob where only some of them are: a *partial* blob.

The ranges are of the blob as it was put; the bytes in them are stored one after the other. So a
byte is found by its offset in the blob, whatever else has been dropped.

Why: docs/decisions.md, "A pack of which little is needed is kept in part".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, Final, Self

import msgspec

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Buffer, Iterable

type Range = tuple[int, int]
"""``(start, stop)`` in bytes, start < stop."""

type Ranges = tuple[Range, ...]
"""Ascending, and neither overlapping nor adjacent."""

LEAST_GAP_BYTES: Final = 256
"""A gap between two ranges is at least so long: less is not worth being told."""

_FORM: Final = re.compile(r"([0-9a-f]{64});(\d{1,19},[1-9]\d{0,18}(?:,[1-9]\d{0,18})*)", re.ASCII)


def joined(ranges: Iterable[Range], *, gap: int = 0) -> Ranges:
    """All bytes of ``ranges``, in any order; and those in between where these are under ``gap``."""
    found: list[Range] = []
    for start, stop in sorted(ranges):
        if found and (start <= found[-1][1] or start - found[-1][1] < gap):
            found[-1] = found[-1][0], max(found[-1][1], stop)
        else:
            found.append((start, stop))
    return tuple(found)


def size_of(ranges: Iterable[Range]) -> int:
    """Their bytes together."""
    return sum(stop - start for start, stop in ranges)


def common(some: Ranges, others: Ranges) -> Ranges:
    """The bytes that both have."""
    found: list[Range] = []
    rest = iter(others)
    other = next(rest, None)
    for start, stop in some:
        while other is not None and other[0] < stop:
            if other[1] > start:
                found.append((max(start, other[0]), min(stop, other[1])))
            if other[1] > stop:
                break
            other = next(rest, None)
    return tuple(found)


class KeptBytes(msgspec.Struct, frozen=True):
    """The ``ranges`` that are kept, at least one, and the ``digest`` of their bytes together.

    Written form: ``<digest>;<skipped>,<kept>,<skipped>,<kept>,…``, in decimal.
    """

    digest: Digest
    ranges: Ranges

    @classmethod
    def written(cls, text: str) -> Self:
        """The ranges that ``text`` writes down. Raises CorruptError."""
        match = _FORM.fullmatch(text)
        steps = [int(step) for step in match[2].split(",")] if match is not None else [0]
        if match is None or len(steps) % 2:
            raise CorruptError("the ranges of a partial blob are unreadable")
        ends = list(accumulate(steps))
        ranges = tuple(zip(ends[::2], ends[1::2], strict=True))
        return cls(Digest(match[1]), ranges)

    @property
    def text(self) -> str:
        """The written form."""
        ends = (0, *chain.from_iterable(self.ranges))
        steps = ",".join(str(stop - start) for start, stop in pairwise(ends))
        return f"{self.digest};{steps}"

    @property
    def size(self) -> int:
        """The bytes kept."""
        return size_of(self.ranges)

    def covers(self, needed: Ranges) -> bool:
        """Whether all bytes of ``needed`` are kept."""
        return common(needed, self.ranges) == needed


def has_bytes(kept: KeptBytes | None, needed: Ranges | None) -> bool:
    """Whether a blob of which ``kept`` is there (None: all) has ``needed`` (None: all of it)."""
    return kept is None or (needed is not None and kept.covers(needed))


class PartialBytes:
    """The bytes of a partial blob, found by their offsets in the whole."""

    __slots__ = ("_data", "_skipped", "_starts", "_stops")

    def __init__(self, data: Buffer, kept: KeptBytes) -> None:
        """``data`` are the bytes kept, checked. Raises CorruptError if there are not so many."""
        self._data = memoryview(data)
        self._starts = [start for start, _ in kept.ranges]
        self._stops = [stop for _, stop in kept.ranges]
        ends = accumulate(stop - start for start, stop in kept.ranges)
        self._skipped = [stop - end for stop, end in zip(self._stops, ends, strict=True)]
        if self._data.nbytes != self._stops[-1] - self._skipped[-1]:
            raise CorruptError("a partial blob has other bytes than it says")

    def __len__(self) -> int:
        """The bytes kept."""
        return self._data.nbytes

    def cut(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop`` of the whole; none where they are not all kept."""
        number = bisect_right(self._starts, start) - 1
        if number < 0 or stop > self._stops[number]:
            return memoryview(b"")
        skipped = self._skipped[number]
        return self._data[start - skipped : stop - skipped]

    def cuts(self, spans: Iterable[tuple[int, int]]) -> list[memoryview] | None:
        """As many bytes from each offset as ``spans`` say; None where one is not all kept."""
        data, starts, stops, skipped = self._data, self._starts, self._stops, self._skipped
        found: list[memoryview] = []
        for start, size in spans:
            number = bisect_right(starts, start) - 1
            if number < 0 or start + size > stops[number]:
                return None
            at = start - skipped[number]
            found.append(data[at : at + size])
        return found


def reduced(data: Buffer, kept: KeptBytes | None, needed: Ranges) -> tuple[bytes, KeptBytes]:
    """The rest of a blob of which ``data`` is stored, once only ``needed`` is kept; its form.

    ``kept`` says what ``data`` is; None: all of the blob. Dropped bytes stay so. Raises
    CorruptError if nothing is left.
    """
    whole = KeptBytes(Digest(""), ((0, memoryview(data).nbytes),))
    stored = PartialBytes(data, kept or whole)
    ranges = common(needed, (kept or whole).ranges)
    left = b"".join([stored.cut(start, stop) for start, stop in ranges])
    if not left:
        raise CorruptError("nothing would be left of a blob that something needs")
    return left, KeptBytes(digest_of(left), ranges)
