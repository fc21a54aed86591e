"""Placing frames in packs, each frame once, in the order of the archive.

A frame gets its place when its pack is closed, so its user keeps the ``Frame`` and
looks for it later. Used by one thread, except for ``has``.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.errors import InternalError
from holdfast.form.frame_table import FrameRef, FrameTable, split_digests
from holdfast.form.packing import ClosedPack, Packer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.archive.ports import PackStore

MAX_KNOWN_FRAMES: Final = 262_144
"""Remembered per archive, in some 40 MiB. Beyond that a repeated frame may be stored again."""


@dataclass(slots=True, eq=False)
class Frame:
    """A piece of the archive on its way into a pack.

    ``digest`` is set, and ``stored`` unless the frame is known, when it has been hashed; then
    ``ref`` when its pack has been closed.
    """

    raw_size: int
    digest: bytes = b""
    stored: bytes | None = None
    ref: FrameRef | None = None


class KnownFrames:
    """Where frames are that need not be stored again; in arrays, for there may be many."""

    def __init__(self, limit: int = MAX_KNOWN_FRAMES) -> None:
        self._limit = limit
        self._numbers: dict[bytes, int] = {}
        self._packs: list[bytes] = []
        self._pack_numbers = array("L")
        self._offsets = array("L")
        self._stored_sizes = array("L")
        self._raw_sizes = array("L")

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._numbers

    def find(self, digest: bytes) -> FrameRef | None:
        """Where the frame ``digest`` is, if that is remembered."""
        number = self._numbers.get(digest)
        if number is None:
            return None
        return FrameRef(
            digest=digest,
            raw_size=self._raw_sizes[number],
            pack=self._packs[self._pack_numbers[number]],
            offset=self._offsets[number],
            stored_size=self._stored_sizes[number],
        )

    def add_table(self, table: FrameTable) -> bool:
        """Remember all frames of ``table``; False, and none of them, when there are too many."""
        if len(self) + len(table) > self._limit:
            return False
        base = len(self._packs)
        self._packs += split_digests(table.packs)
        for digest, raw_size, stored_size, pack_number, offset in zip(
            split_digests(table.digests),
            table.raw_sizes,
            table.stored_sizes,
            table.pack_numbers,
            table.offsets,
            strict=True,
        ):
            if digest not in self._numbers:
                self._append(digest, raw_size, base + pack_number, offset, stored_size)
        return True

    def add_pack(self, closed: ClosedPack, raw_sizes: list[int]) -> None:
        """Remember the frames of a pack, unless there are too many."""
        if len(self) + len(raw_sizes) > self._limit:
            return
        pack_number = len(self._packs)
        self._packs.append(closed.digest)
        for (digest, offset, stored_size), raw_size in zip(closed.members, raw_sizes, strict=True):
            self._append(digest, raw_size, pack_number, offset, stored_size)

    def _append(
        self, digest: bytes, raw_size: int, pack_number: int, offset: int, stored_size: int
    ) -> None:
        self._numbers[digest] = len(self._numbers)
        self._raw_sizes.append(raw_size)
        self._pack_numbers.append(pack_number)
        self._offsets.append(offset)
        self._stored_sizes.append(stored_size)


class Shelf:
    """One series of packs and the frames in it."""

    def __init__(self, store: PackStore, known: KnownFrames) -> None:
        """``known`` are frames stored before; new ones are added to it."""
        self._store = store
        self._known = known
        self._packer = Packer()
        self._open: dict[bytes, list[Frame]] = {}
        self.new_raw_bytes = 0
        self.new_stored_bytes = 0
        self.put_bytes = 0

    def has(self, digest: bytes) -> bool:
        """Whether the frame need not be compressed. May be asked by any thread.

        Those in the open pack do not count: they may be forgotten when it is closed.
        """
        return digest in self._known

    def place(self, frame: Frame) -> None:
        """Give ``frame`` a place, now or when its pack is closed.

        Its ``digest`` is set, and ``stored`` unless the frame was known.
        """
        stored, frame.stored = frame.stored, None
        frame.ref = self._known.find(frame.digest)
        if frame.ref is not None:
            return
        same = self._open.get(frame.digest)
        if same is not None:
            same.append(frame)
            return
        if stored is None:
            raise InternalError("a frame that is not stored anywhere was not compressed")
        self._put(self._packer.add(frame.digest, stored))
        self._open[frame.digest] = [frame]
        self.new_raw_bytes += frame.raw_size
        self.new_stored_bytes += len(stored)

    def end_page(self) -> None:
        """A page ends: its pack is closed if it is large enough."""
        self._put(self._packer.end_page())

    def finish(self) -> None:
        """Close the pack, whatever it holds: every frame then has its place."""
        self._put(self._packer.finish())

    def _put(self, closed: ClosedPack | None) -> None:
        if closed is None:
            return
        self._store.put(closed.address, closed.data)
        self.put_bytes += len(closed.data)
        self._known.add_pack(closed, list(self._settle(closed)))

    def _settle(self, closed: ClosedPack) -> Iterator[int]:
        for digest, offset, stored_size in closed.members:
            frames = self._open.pop(digest)
            raw_size = frames[0].raw_size
            ref = FrameRef(
                digest=digest,
                raw_size=raw_size,
                pack=closed.digest,
                offset=offset,
                stored_size=stored_size,
            )
            for frame in frames:
                frame.ref = ref
            yield raw_size
