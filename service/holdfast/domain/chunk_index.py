"""Where in the stream the parts of a blob lie: a sparse map from part number to stream sequence.

Uploads interleave, so a blob's chunk sequences have gaps and cannot be computed. The index holds
at most 4,096 entries, one per ``stride`` parts, so a range can start without reading what lies
before it. Runs of equal steps are written once: an upload that was alone takes a few bytes.

Written form (metadata ``hf-index``): ``<stride>;<first>;<step>x<count>,<step>,…``, in decimal.
An empty blob has no parts: ``1;0;``.

Why: docs/decisions.md, "The chunk index is a hint".
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.domain.limits import MAX_INDEX_ENTRIES
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RUN: Final = r"\d{1,20}(?:x\d{1,6})?"
_FORM: Final = re.compile(rf"(\d{{1,12}});(\d{{1,20}});((?:{_RUN}(?:,{_RUN})*)?)", re.ASCII)
_HEAD: Final = re.compile(r"0*[1-9]\d{0,11};(0*[1-9]\d{0,18});", re.ASCII)
_MAX_SEQUENCE: Final = 2**64 - 1
_REMEMBERED: Final = 32
"""Indexes kept decoded, for the windows of blobs being read: up to 160 KB each."""


class _Entries(NamedTuple):
    stride: int
    sequences: tuple[int, ...]


class ChunkIndex:
    """Entry ``i`` is the stream sequence of part ``i * stride``. Sequences rise strictly.

    Parts are asked for only where the blob has any. One that comes from a record (`written`) is
    decoded when an entry is asked for: most records are only listed. Its entries are hints,
    for a copied stream has other sequences; reading one may raise CorruptError.
    """

    __slots__ = ("_entries", "_text")

    def __init__(self, stride: int, sequences: Sequence[int]) -> None:
        self._entries: _Entries | None = _Entries(stride, tuple(sequences))
        self._text: str | None = None

    @classmethod
    def written(cls, text: str) -> ChunkIndex:
        """The index that ``text`` writes down, which is not looked at yet."""
        index = cls.__new__(cls)
        index._entries, index._text = None, text
        return index

    @property
    def text(self) -> str:
        """The written form."""
        if self._text is None:
            self._text = _encode(self._decoded)
        return self._text

    @property
    def stride(self) -> int:
        """Every how many parts there is an entry."""
        return self._decoded.stride

    @property
    def sequences(self) -> tuple[int, ...]:
        """The entries."""
        return self._decoded.sequences

    @property
    def _decoded(self) -> _Entries:
        if self._entries is None:
            self._entries = _decode(self.text)
        return self._entries

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkIndex) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"ChunkIndex.written({self.text[:60]!r})"

    def locate(self, part: int) -> tuple[int, int]:
        """``(entry part, sequence)`` of the last entry at or before ``part``."""
        if part == 0 and self._entries is None and (head := _HEAD.match(self.text)) is not None:
            return 0, int(head[1])
        entries = self._decoded
        entry = self._entry_at(part)
        return entry * entries.stride, entries.sequences[entry]

    def bounds(self, part: int) -> tuple[int, int | None]:
        """Sequences between which ``part`` lies: first possible, and first impossible or None."""
        entry = self._entry_at(part)
        after = self.sequences[entry + 1] if entry + 1 < len(self.sequences) else None
        return self.sequences[entry], after

    def _entry_at(self, part: int) -> int:
        stride, sequences = self._decoded
        if not sequences:
            raise CorruptError("the blob's chunk index has no entries")
        return min(part // stride, len(sequences) - 1)

    def coarser(self) -> ChunkIndex:
        """With every other entry."""
        return ChunkIndex(self.stride * 2, self.sequences[::2])


def build_index(sequences: Sequence[int], max_entries: int = MAX_INDEX_ENTRIES) -> ChunkIndex:
    """The index of a blob whose part ``i`` has stream sequence ``sequences[i]``."""
    stride = 1
    while (len(sequences) + stride - 1) // stride > max_entries:
        stride *= 2
    return ChunkIndex(stride, sequences[::stride])


def _encode(index: _Entries) -> str:
    first = index.sequences[0] if index.sequences else 0
    steps = (b - a for a, b in zip(index.sequences, index.sequences[1:], strict=False))
    runs = ((step, sum(1 for _ in run)) for step, run in groupby(steps))
    text = ",".join(str(step) if count == 1 else f"{step}x{count}" for step, count in runs)
    return f"{index.stride};{first};{text}"


@lru_cache(maxsize=_REMEMBERED)
def _decode(text: str) -> _Entries:
    """Raises CorruptError when ``text`` is no such form."""
    match = _FORM.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise CorruptError("the blob's chunk index is unreadable")
    first = int(match[2])
    sequences = [first] if first else []  # streams count from 1
    for run in filter(None, match[3].split(",")):
        step_text, _, count = run.partition("x")
        step, times = int(step_text), int(count or 1)
        if not (sequences and step and times) or len(sequences) + times > MAX_INDEX_ENTRIES:
            raise CorruptError("the blob's chunk index is out of bounds")
        last = sequences[-1]
        sequences.extend(range(last + step, last + step * times + 1, step))
    if sequences and sequences[-1] > _MAX_SEQUENCE:
        raise CorruptError("the blob's chunk index is out of bounds")
    return _Entries(int(match[1]), tuple(sequences))
