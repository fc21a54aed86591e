"""Where frames are: the columns that pages and roots keep about them.

Kept are digests, sizes and packs; a frame usually begins where the one before it in its pack ends,
so only the gap is written, which is nearly always 0. Digests do not compress and are kept raw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from holdfast.domain.digest import Digest
from holdfast.domain.kept import joined
from holdfast.errors import CorruptError
from holdfast.form.layout import MAX_FRAME_BYTES
from holdfast.form.packing import PACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.domain.kept import Range, Ranges

DIGEST_BYTES: Final = 32

MAX_FRAMES_LISTED: Final = 2**21
"""In one table: a terabyte of one file."""

type _Column[T] = Annotated[list[T], Meta(max_length=MAX_FRAMES_LISTED)]


class FrameRef(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A frame and where it is stored.

    ``digest`` is the SHA-256 of its ``raw_size`` raw bytes. The compressed frame is the
    ``stored_size`` bytes from ``offset`` of the pack whose digest is ``pack``. Both digests are 32
    bytes.
    """

    digest: bytes
    raw_size: int
    pack: bytes
    offset: int
    stored_size: int

    @property
    def address(self) -> Digest:
        """The pack's digest as stores know it."""
        return Digest(self.pack.hex())


class FrameColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The written form. ``gaps`` are from the end of the frame before, if that is in one pack."""

    digests: bytes
    raw_sizes: _Column[Annotated[int, Meta(ge=1, le=MAX_FRAME_BYTES)]]
    stored_sizes: _Column[Annotated[int, Meta(ge=1, le=PACK_BYTES)]]
    packs: bytes
    pack_numbers: _Column[Annotated[int, Meta(ge=0)]]
    gaps: _Column[Annotated[int, Meta(ge=-PACK_BYTES, le=PACK_BYTES)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTable:
    """Frames by number. ``digests`` and ``packs`` are 32 bytes each, one after the other.

    ``pack_numbers`` count in ``packs``.
    """

    digests: bytes
    raw_sizes: Sequence[int]
    stored_sizes: Sequence[int]
    packs: bytes
    pack_numbers: Sequence[int]
    offsets: Sequence[int]

    def __len__(self) -> int:
        """The count of frames."""
        return len(self.raw_sizes)

    def __getitem__(self, number: int) -> FrameRef:
        """Frame ``number``, from 0."""
        return FrameRef(
            digest=digest_at(self.digests, number),
            raw_size=self.raw_sizes[number],
            pack=digest_at(self.packs, self.pack_numbers[number]),
            offset=self.offsets[number],
            stored_size=self.stored_sizes[number],
        )


def digest_at(digests: bytes, number: int) -> bytes:
    """The digest ``number`` of those written one after the other."""
    return digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]


def split_digests(digests: bytes) -> list[bytes]:
    """All digests of those written one after the other."""
    return [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]


def ranges_of(table: FrameTable) -> dict[bytes, Ranges]:
    """The ranges of each pack that the frames of ``table`` need, by its digest."""
    found: dict[int, list[Range]] = {}
    for number, offset, size in zip(
        table.pack_numbers, table.offsets, table.stored_sizes, strict=True
    ):
        of_pack = found.setdefault(number, [])
        if of_pack and of_pack[-1][1] == offset:
            of_pack[-1] = of_pack[-1][0], offset + size
        else:
            of_pack.append((offset, offset + size))
    return {digest_at(table.packs, number): joined(ranges) for number, ranges in found.items()}


def table_of(frames: Sequence[FrameRef], packs: Iterable[bytes] | None = None) -> FrameTable:
    """The table of ``frames``.

    Its packs are ``packs``, which hold them all; without that, those of ``frames`` in the order
    of their first use.
    """
    order = dict.fromkeys(packs if packs is not None else [frame.pack for frame in frames])
    numbers = {pack: number for number, pack in enumerate(order)}
    return FrameTable(
        digests=b"".join([frame.digest for frame in frames]),
        raw_sizes=[frame.raw_size for frame in frames],
        stored_sizes=[frame.stored_size for frame in frames],
        packs=b"".join(order),
        pack_numbers=[numbers[frame.pack] for frame in frames],
        offsets=[frame.offset for frame in frames],
    )


def to_columns(table: FrameTable) -> FrameColumns:
    """The written form of ``table``."""
    gaps = []
    last = end = 0
    for number, offset, stored in zip(
        table.pack_numbers, table.offsets, table.stored_sizes, strict=True
    ):
        gaps.append(offset - end if number == last else offset)
        last, end = number, offset + stored
    return FrameColumns(
        digests=table.digests,
        raw_sizes=list(table.raw_sizes),
        stored_sizes=list(table.stored_sizes),
        packs=table.packs,
        pack_numbers=list(table.pack_numbers),
        gaps=gaps,
    )


def from_columns(columns: FrameColumns) -> FrameTable:
    """The table that ``columns`` write down, checked: each frame lies within a pack of the table.

    Raises CorruptError.
    """
    count = len(columns.raw_sizes)
    pack_count, rest = divmod(len(columns.packs), DIGEST_BYTES)
    if (
        rest
        or len(columns.digests) != count * DIGEST_BYTES
        or {len(columns.stored_sizes), len(columns.pack_numbers), len(columns.gaps)} != {count}
    ):
        raise CorruptError("the manifest's columns of frames differ in length")
    if max(columns.pack_numbers, default=-1) >= pack_count:
        raise CorruptError("the manifest names a pack that it does not list")
    offsets = []
    ends = []
    last = end = 0
    for number, gap, stored in zip(
        columns.pack_numbers, columns.gaps, columns.stored_sizes, strict=True
    ):
        offset = end + gap if number == last else gap
        last, end = number, offset + stored
        offsets.append(offset)
        ends.append(end)
    if min(offsets, default=0) < 0 or max(ends, default=0) > PACK_BYTES:
        raise CorruptError("the manifest has a frame that lies outside its pack")
    return FrameTable(
        digests=columns.digests,
        raw_sizes=columns.raw_sizes,
        stored_sizes=columns.stored_sizes,
        packs=columns.packs,
        pack_numbers=columns.pack_numbers,
        offsets=offsets,
    )
