"""What snapshots need: as few bytes as their digests take, or page by page."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from itertools import batched
from typing import TYPE_CHECKING, Final

from holdfast.archive.read.snapshot import ReaderLimits, SnapshotReader
from holdfast.domain.digest import Digest
from holdfast.domain.kept import Ranges, joined
from holdfast.domain.limits import MIB
from holdfast.form.frame_table import DIGEST_BYTES, digest_at, ranges_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    from holdfast.form.root import Root

PAGES_AT_ONCE: Final = 16
LIMITS: Final = ReaderLimits(
    pack_cache_bytes=4 * MIB, frame_cache_bytes=1, page_cache_bytes=1 * MIB
)


class Needed:
    """Every blob that a snapshot needs: those its root lies in, then the packs that it names."""

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


async def needs_of_pages(
    reader: SnapshotReader, numbers: Iterable[int]
) -> AsyncIterator[Mapping[Digest, Ranges]]:
    """The needs of each of these pages, the frames that it lies in included.

    Raises as the methods of ``SnapshotReader``.
    """
    for several in batched(numbers, PAGES_AT_ONCE):
        for needs in await asyncio.to_thread(_needs, reader, several):
            yield needs


def _needs(reader: SnapshotReader, numbers: Iterable[int]) -> list[Mapping[Digest, Ranges]]:
    reader.prefetch(ref.pack for number in numbers for ref in reader.root.page_frames(number))
    return [_needs_of_page(reader, number) for number in numbers]


def _needs_of_page(reader: SnapshotReader, number: int) -> Mapping[Digest, Ranges]:
    ranges = ranges_of(reader.frame_table(number))
    root = reader.root
    for ref in (*root.page_frames(number), *root.stat_frames(number)):
        own = ref.offset, ref.offset + ref.stored_size
        ranges[ref.pack] = joined((*ranges.get(ref.pack, ()), own))
    return {Digest(pack.hex()): needed for pack, needed in ranges.items()}


def own_pages(root: Root, parent: Root) -> list[int]:
    """The pages of ``root`` that ``parent`` has not."""
    known = {parent.page_key(number) for number in range(parent.page_count)}
    return [number for number in range(root.page_count) if root.page_key(number) not in known]


def packs_of_pages(root: Root, numbers: Iterable[int]) -> frozenset[Digest]:
    """The packs of which these pages need anything."""
    packs: set[bytes] = set()
    for number in numbers:
        packs.update(root.packs[pack] for pack in root.pack_numbers[number])
        packs.update(ref.pack for ref in (*root.page_frames(number), *root.stat_frames(number)))
    return frozenset(Digest(pack.hex()) for pack in packs)
