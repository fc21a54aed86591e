"""Reading a stored snapshot: its pages, its entries, and the bytes of its files.

Everything is found through the root, which is small: a path by bisecting it, a byte of a file by
the page's frame sizes. One file is read without reading the rest. All output has been compared
with its digest; bytes that do not match raise CorruptError and are not returned.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from holdfast.archive.paths import is_below, path_text
from holdfast.archive.read.lru import ByteLru
from holdfast.domain.digest import Digest
from holdfast.domain.kept import PartialBytes
from holdfast.domain.limits import KIB, MIB
from holdfast.errors import CorruptError, InvalidError, NotFoundError
from holdfast.form.columns import MAX_PAGE_BYTES
from holdfast.form.entries import Entry, Kind, order_key
from holdfast.form.frames import decompress_frame
from holdfast.form.manifest import Page, StatPage, decode_frames, decode_page, decode_stat_page
from holdfast.form.root import ANY_ROOT, RootLimits, join_root, root_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from holdfast.archive.ports import Pack, PackStore
    from holdfast.form.frame_table import FrameRef, FrameTable

HOLE_PIECE_BYTES: Final = 256 * KIB
"""Holes of sparse files are given out in pieces of zeros of at most this size."""

PREFETCH_PACKS: Final = 16
"""Packs ahead that a sequential reader announces to the store."""

_PAGE_ENTRY_BYTES: Final = 512
_PAGE_FRAME_BYTES: Final = 256
"""Bytes that an entry and a frame of a decoded page take in memory, roughly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderLimits:
    """Bytes that a reader may keep in memory beside those in use."""

    pack_cache_bytes: int = 16 * MIB
    frame_cache_bytes: int = 4 * MIB
    page_cache_bytes: int = 16 * MIB


SCATTERED_PACKS_BYTES: Final = 64 * MIB
"""Memory for a page of an old tree: its files lie in the packs of a hundred snapshots. With less
of them at hand, a pack is fetched again for nearly every file."""

DEFAULT_LIMITS: Final = ReaderLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """An entry and where it stands: the number of its page, and its index there."""

    page_no: int
    index: int
    entry: Entry


class SnapshotReader:
    """A snapshot, opened. Methods may be called from several threads.

    ``root_blobs`` are those that its root lies in.

    Any of them may raise CorruptError, which names the pack, and the path where one is concerned,
    and what the store raises when it is not reached.
    """

    def __init__(
        self,
        store: PackStore,
        root: Digest,
        *,
        limits: ReaderLimits = DEFAULT_LIMITS,
        root_limits: RootLimits = ANY_ROOT,
        packs: ByteLru[bytes, Pack] | None = None,
    ) -> None:
        """Read and check the root. ``packs`` are kept for several readers of one store.

        Raises CorruptError when it is missing or not a root, TooLargeError beyond ``root_limits``.
        """
        self.digest = root
        self._store = store
        self._packs = packs if packs is not None else ByteLru(limits.pack_cache_bytes, len)
        self._frames: ByteLru[bytes, bytes] = ByteLru(limits.frame_cache_bytes, len)
        self._pages: ByteLru[int, Page] = ByteLru(limits.page_cache_bytes, _page_weight)
        self._tables: ByteLru[int, FrameTable] = ByteLru(limits.page_cache_bytes, _table_weight)
        head = self._fetch_root(root)
        self.root_blobs = (root, *root_pieces(head))
        self.root = join_root(head, self._fetch_root, root_limits)

    @property
    def page_count(self) -> int:
        """The count of pages; at least 1."""
        return self.root.page_count

    def page(self, number: int) -> Page:
        """Page ``number``, from 0; recently used ones are kept."""
        return self._pages.get(number, lambda: self._load_page(number))

    def frame_table(self, number: int) -> FrameTable:
        """Only the frames of page ``number``, at a tenth of the cost; recently used ones are kept.

        Checked against the root as far as it tells of frames.
        """
        return self._tables.get(number, lambda: self._load_table(number))

    def pages(self, first: int = 0) -> Iterator[tuple[int, Page]]:
        """The pages from ``first`` on, with their numbers."""
        for number in range(first, self.page_count):
            page = self.page(number)
            self.prefetch_page(number + 1)
            yield number, page

    def stat_page(self, number: int) -> StatPage | None:
        """The fingerprint that tells whether members of page ``number`` changed, if it was kept."""
        refs = self.root.stat_frames(number)
        if not refs:
            return None
        return decode_stat_page(self._joined(refs), self.page(number))

    def find(self, path: bytes) -> tuple[int, int] | None:
        """``(page number, index)`` of the entry ``path``, or None when there is none."""
        number = self.root.page_of_path(path)
        paths = self.page(number).paths
        index = bisect_left(paths, order_key(path), key=order_key)
        return (number, index) if index < len(paths) and paths[index] == path else None

    def entry(self, path: bytes) -> Located:
        """The entry ``path``. Raises NotFoundError."""
        found = self.find(path)
        if found is None:
            raise NotFoundError(f"the snapshot has no {path_text(path)!r}")
        number, index = found
        return Located(page_no=number, index=index, entry=self.page(number).entry(index))

    def entries(self, under: bytes = b"", after: bytes | None = None) -> Iterator[Located]:
        """The entry ``under`` and everything below it, in path order; all by default.

        ``after`` starts behind that path, whether or not there is such an entry.
        """
        number = self.root.page_of_path(under)
        index = bisect_left(self.page(number).paths, order_key(under), key=order_key)
        if after is not None and order_key(after) >= order_key(under):
            number = self.root.page_of_path(after)
            index = bisect_right(self.page(number).paths, order_key(after), key=order_key)
        for page_no, page in self.pages(number):
            for at in range(index, page.entry_count):
                if not is_below(page.paths[at], under):
                    return
                yield Located(page_no=page_no, index=at, entry=page.entry(at))
            index = 0

    def content(self, page_no: int, index: int) -> tuple[int, int]:
        """Where the content of an entry is: a hard link's first member, otherwise itself."""
        page = self.page(page_no)
        if page.kinds[index] != Kind.HARDLINK:
            return page_no, index
        target = page.targets[index]
        found = self.find(target)
        if found is None or self.page(found[0]).kinds[found[1]] != Kind.FILE:
            msg = (
                f"{path_text(page.paths[index])!r} is a hard link to {path_text(target)!r}, "
                "which is not a file of this snapshot"
            )
            raise CorruptError(msg)
        return found

    def read_file(
        self, page_no: int, index: int, start: int = 0, stop: int | None = None
    ) -> Iterator[bytes]:
        """Bytes ``start`` to ``stop`` (by default the end) of a file, clipped to its size.

        In pieces of at most a frame; holes are zeros. A hard link is read through its first
        member. Raises InvalidError, at once, for what has no content.
        """
        page_no, index = self.content(page_no, index)
        page = self.page(page_no)
        if page.kinds[index] != Kind.FILE:
            raise InvalidError(f"{path_text(page.paths[index])!r} is not a file")
        size = page.sizes[index]
        stop = size if stop is None else min(stop, size)
        return self._content(page, index, max(start, 0), stop)

    def tar_data(self, page_no: int, index: int) -> Iterator[bytes]:
        """The data of an entry as the tar has it, without padding; nothing for a link.

        A sparse file has its map and its segments there, however large its holes are.
        """
        page = self.page(page_no)
        start = page.starts[index] + page.header_sizes[index]
        return self._tar_bytes(page, index, start, start + page.data_sizes[index])

    def frame(self, ref: FrameRef, *, path: bytes | None = None) -> bytes:
        """The raw bytes of a frame, compared with its digest.

        ``path`` is an entry in it, for the message when it is damaged.
        """
        return self._frames.get(ref.digest, lambda: self.fresh_frame(ref, path=path))

    def fresh_frame(self, ref: FrameRef, *, path: bytes | None = None) -> bytes:
        """The same from the pack, without looking among those that were read before."""
        try:
            raw = decompress_frame(self.stored(ref), ref.raw_size)
        except CorruptError as error:
            raise CorruptError(f"{error.detail} (pack {ref.address}{_needed_by(path)})") from error
        if hashlib.sha256(raw).digest() != ref.digest:
            msg = f"a frame in pack {ref.address}{_needed_by(path)} does not match its digest"
            raise CorruptError(msg)
        return raw

    def stored(self, ref: FrameRef) -> memoryview:
        """A frame as it is stored. Its pack has been checked, the frame itself has not."""
        return self.cut(ref.pack, ref.offset, ref.stored_size)

    def cut(self, pack: bytes, offset: int, size: int) -> memoryview:
        """So many bytes of the pack with these 32 digest bytes. It has been checked."""
        data = _cut(self.pack(pack), offset, size)
        return data if len(data) == size else self.cuts(pack, [(offset, size)])[0]

    def cuts(self, pack: bytes, spans: Sequence[tuple[int, int]]) -> list[memoryview]:
        """The same for several spans of one pack, each an offset with a size."""
        found = _cuts(self.pack(pack), spans)
        if found is None:
            latest = self._fetched(self._store.get_latest, Digest(pack.hex()), "pack")
            self._packs.put(pack, latest)
            found = _cuts(latest, spans)
        if found is None:
            msg = f"pack {pack.hex()} is shorter than the manifest says, or bytes were dropped"
            raise CorruptError(msg)
        return found

    def pack(self, digest: bytes) -> Pack:
        """The stored bytes of a pack, by its 32 digest bytes; recently used ones are kept."""
        return self._packs.get(
            digest, lambda: self._fetched(self._store.get, Digest(digest.hex()), "pack")
        )

    def holds(self, pack: bytes) -> bool:
        """Whether the pack is at hand."""
        return pack in self._packs

    def prefetch(self, packs: Iterable[bytes]) -> None:
        """Announce packs that will be asked for soon, in this order. A hint: never raises."""
        wanted = [Digest(pack.hex()) for pack in dict.fromkeys(packs) if pack not in self._packs]
        if wanted:
            self._store.prefetch(wanted)

    def prefetch_page(self, number: int) -> None:
        """Announce page ``number``, if there is such a page."""
        if number < self.page_count:
            self.prefetch([ref.pack for ref in self.root.page_frames(number)])

    def _content(self, page: Page, index: int, start: int, stop: int) -> Iterator[bytes]:
        begin = page.starts[index] + page.header_sizes[index]
        segments = page.segments.get(index)
        if segments is None:
            yield from self._tar_bytes(page, index, begin + start, begin + stop)
            return
        # The segments lie one after the other behind the map, which is what is not segments.
        position = begin + page.data_sizes[index] - sum([length for _, length in segments])
        for offset, length in segments:
            yield from _zeros(min(offset, stop) - start)
            start = max(start, min(offset, stop))
            end = min(offset + length, stop)
            at = position - offset
            yield from self._tar_bytes(page, index, at + start, at + end)
            start = max(start, end)
            position += length
        yield from _zeros(stop - start)

    def _tar_bytes(self, page: Page, index: int, start: int, stop: int) -> Iterator[bytes]:
        """Bytes of the page's tar, of which member ``index`` is the owner."""
        if start >= stop:
            return
        starts = page.frame_starts
        first = bisect_right(starts, start) - 1
        last = bisect_left(starts, stop)
        for number in range(first, last):
            if (number - first) % PREFETCH_PACKS == 0 and last - number > 1:
                ahead = range(number, min(number + 2 * PREFETCH_PACKS, last))
                self.prefetch([page.frame(number).pack for number in ahead])
            raw = self.frame(page.frame(number), path=page.paths[index])
            begin = starts[number]
            yield raw[max(start - begin, 0) : stop - begin]

    def _load_page(self, number: int) -> Page:
        page = decode_page(self._joined(self.root.page_frames(number)))
        self.root.check_page(number, page)
        return page

    def _load_table(self, number: int) -> FrameTable:
        table = decode_frames(self._joined(self.root.page_frames(number)))
        sums = (len(table), sum(table.stored_sizes), sum(table.raw_sizes))
        said = self.root.columns
        if sums != (said.frames[number], said.stored_bytes[number], said.raw_bytes[number]):
            msg = f"page {number} of snapshot {self.digest} has other frames than its root says"
            raise CorruptError(msg)
        return table

    def _joined(self, refs: Sequence[FrameRef]) -> bytes:
        if sum([ref.raw_size for ref in refs]) > MAX_PAGE_BYTES:
            msg = f"a page of the manifest of snapshot {self.digest} is larger than a page can be"
            raise CorruptError(msg)
        pieces = [self.fresh_frame(ref) for ref in refs]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fetch_root(self, digest: Digest) -> bytes:
        stored = self._fetched(self._store.get, digest, "root")
        if not isinstance(stored, bytes):
            stored = self._fetched(self._store.get_latest, digest, "root")
        if isinstance(stored, bytes):
            return stored
        raise CorruptError(f"of the root {digest} of snapshot {self.digest} bytes were dropped")

    def _fetched(self, get: Callable[[Digest], Pack], digest: Digest, what: str) -> Pack:
        try:
            return get(digest)
        except NotFoundError as error:
            raise CorruptError(f"{what} {digest} of snapshot {self.digest} is missing") from error


def _cut(stored: Pack, offset: int, size: int) -> memoryview:
    """So many bytes, or fewer where they are not all there."""
    if isinstance(stored, bytes):
        return memoryview(stored)[offset : offset + size]
    return stored.cut(offset, offset + size)


def _cuts(stored: Pack, spans: Sequence[tuple[int, int]]) -> list[memoryview] | None:
    """None where one of them is not all there."""
    if isinstance(stored, PartialBytes):
        return stored.cuts(spans)
    view = memoryview(stored)
    if max([offset + size for offset, size in spans], default=0) > len(view):
        return None
    return [view[offset : offset + size] for offset, size in spans]


def _page_weight(page: Page) -> int:
    return page.entry_count * _PAGE_ENTRY_BYTES + page.frame_count * _PAGE_FRAME_BYTES


def _needed_by(path: bytes | None) -> str:
    return "" if path is None else f", which {path_text(path)!r} needs"


def _table_weight(table: FrameTable) -> int:
    return len(table) * _PAGE_FRAME_BYTES


def _zeros(count: int) -> Iterator[bytes]:
    """``count`` zero bytes; none if it is negative."""
    piece = bytes(max(min(count, HOLE_PIECE_BYTES), 0))
    while count > 0:
        yield piece[:count]
        count -= len(piece)
