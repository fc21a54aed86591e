"""Where in the stream the parts of a blob lie: a sparse map from part number to stream sequence.

Uploads interleave, so a blob's chunk sequences have gaps and cannot be computed. The index holds
at most 4,096 entries, one per ``stride`` parts, so a range can start without reading what lies
before it. Runs of equal steps are written once: an upload that was alone takes a few bytes.

Written form (metadata ``hf-index``): ``<stride>;<first>;<step>x<count>,<step>,…``, in decimal.
An empty blob has no parts: ``1;0;``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

from holdfast.domain.limits import MAX_INDEX_ENTRIES
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RUN: Final = r"\d{1,20}(?:x\d{1,6})?"
_FORM: Final = re.compile(rf"(\d{{1,12}});(\d{{1,20}});((?:{_RUN}(?:,{_RUN})*)?)", re.ASCII)
_MAX_SEQUENCE: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class ChunkIndex:
    """Entry ``i`` is the stream sequence of part ``i * stride``. Sequences rise strictly.

    Parts are asked for only where the blob has any.
    """

    stride: int
    sequences: tuple[int, ...]

    def locate(self, part: int) -> tuple[int, int]:
        """``(entry part, sequence)`` of the last entry at or before ``part``."""
        entry = min(part // self.stride, len(self.sequences) - 1)
        return entry * self.stride, self.sequences[entry]

    def bounds(self, part: int) -> tuple[int, int | None]:
        """Sequences between which ``part`` lies: first possible, and first impossible or None."""
        entry = min(part // self.stride, len(self.sequences) - 1)
        after = self.sequences[entry + 1] if entry + 1 < len(self.sequences) else None
        return self.sequences[entry], after


def build_index(sequences: Sequence[int], max_entries: int = MAX_INDEX_ENTRIES) -> ChunkIndex:
    """The index of a blob whose part ``i`` has stream sequence ``sequences[i]``."""
    stride = 1
    while (len(sequences) + stride - 1) // stride > max_entries:
        stride *= 2
    return ChunkIndex(stride=stride, sequences=tuple(sequences[::stride]))


def encode_index(index: ChunkIndex) -> str:
    """The written form of ``index``."""
    first = index.sequences[0] if index.sequences else 0
    steps = (b - a for a, b in zip(index.sequences, index.sequences[1:], strict=False))
    runs = ((step, sum(1 for _ in run)) for step, run in groupby(steps))
    text = ",".join(str(step) if count == 1 else f"{step}x{count}" for step, count in runs)
    return f"{index.stride};{first};{text}"


def decode_index(text: str) -> ChunkIndex:
    """The index that ``text`` writes down. Raises CorruptError when it is no such form."""
    match = _FORM.fullmatch(text)
    if match is None or int(match[1]) == 0:
        msg = "the blob's chunk index is unreadable"
        raise CorruptError(msg)
    first = int(match[2])
    sequences = [first] if first else []  # streams count from 1
    for run in filter(None, match[3].split(",")):
        step_text, _, count = run.partition("x")
        step, times = int(step_text), int(count or 1)
        if not (sequences and step and times) or len(sequences) + times > MAX_INDEX_ENTRIES:
            msg = "the blob's chunk index is out of bounds"
            raise CorruptError(msg)
        last = sequences[-1]
        sequences.extend(range(last + step, last + step * times + 1, step))
    if sequences and sequences[-1] > _MAX_SEQUENCE:
        msg = "the blob's chunk index is out of bounds"
        raise CorruptError(msg)
    return ChunkIndex(stride=int(match[1]), sequences=tuple(sequences))
