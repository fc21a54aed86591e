"""Writing a snapshot's manifest: pages in order, as soon as the packs they name are closed.

Pages wait for their frames' places. Their number is bounded: a pack that fills slowly, because
little is new in each page, is closed for them.

Why: docs/decisions.md, "Pages lie in packs, as frames".
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from holdfast.archive.create.shelf import Frame, Shelf
from holdfast.errors import CorruptError, InternalError, InvalidError
from holdfast.form.frames import compress_piece, new_page_compressor
from holdfast.form.manifest import (
    StatPage,
    decode_page,
    encode_page,
    encode_stat_page,
    new_page,
    page_pieces,
)
from holdfast.form.root import PageRow, Root, join_root, page_row, root_of, split_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.archive.ports import PackStore
    from holdfast.domain.digest import Digest
    from holdfast.form.entries import Entry
    from holdfast.form.frame_table import FrameRef

MAX_WAITING_PAGES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPage:
    """A page whose frames are being placed."""

    entries: Sequence[Entry]
    header_sizes: Sequence[int]
    frames: Sequence[Frame | FrameRef]
    stat: StatPage
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRoot:
    """A root in its ``blobs``, the last of which is the head. ``put_bytes`` of them were put."""

    root: Root
    blobs: tuple[Digest, ...]
    put_bytes: int


class ManifestWriter:
    """Collects pages, new ones and those of the parent, and writes the root in the end."""

    def __init__(self, store: PackStore, data: Shelf, pages: Shelf) -> None:
        """``data`` is where the pages' frames are placed, ``pages`` where the pages go."""
        self._store = store
        self._data = data
        self._pages = pages
        self._compressor = new_page_compressor()
        self._rows: list[PageRow | tuple[PageRow, list[Frame], list[Frame]]] = []
        self._order: deque[NewPage | PageRow] = deque()

    def take_over(self, row: PageRow) -> None:
        """The next page is one of the parent's."""
        self._order.append(row)
        self._write_ready()

    def add(self, page: NewPage) -> None:
        """The next page is ``page``, all frames of which were given to the shelf."""
        self._order.append(page)
        self._data.end_page()
        self._write_ready()
        if len(self._order) > MAX_WAITING_PAGES:
            self._data.finish()
            self._write_ready()

    def finish(self, parent: Digest | None = None) -> WrittenRoot:
        """Write the rest. The root of ``parent``, which is there, is not put again."""
        self._data.finish()
        self._write_ready()
        self._pages.finish()
        root = root_of([_settled(row) for row in self._rows])
        blobs = split_root(root)
        digests = tuple(digest for digest, _ in blobs)
        if digests[-1] == parent:
            return WrittenRoot(root=root, blobs=digests, put_bytes=0)
        _check(lambda: join_root(blobs[-1][1], dict(blobs).__getitem__))
        for digest, data in blobs:
            self._store.put(digest, data)
        return WrittenRoot(
            root=root, blobs=digests, put_bytes=sum([len(data) for _, data in blobs])
        )

    def _write_ready(self) -> None:
        order = self._order
        while order:
            page = order[0]
            if isinstance(page, PageRow):
                self._rows.append(page)
            elif _is_placed(page):
                self._rows.append(self._write(page))
            else:
                return
            order.popleft()

    def _write(self, new: NewPage) -> tuple[PageRow, list[Frame], list[Frame]]:
        page = new_page(new.entries, new.header_sizes, [_ref(frame) for frame in new.frames])
        row = page_row(page, page_frames=(), stat_frames=(), fingerprint=new.fingerprint)
        encoded, stat = encode_page(page), encode_stat_page(new.stat, page)
        if page.xattrs or page.segments:
            # All else is bounded where it is scanned. Reading every page back took 0.3 s of the
            # 1.4 s that a scattered change of 50,000 files takes.
            _check(lambda: decode_page(encoded))
        return row, self._store_page(encoded), self._store_page(stat)

    def _store_page(self, raw: bytes) -> list[Frame]:
        frames = []
        for piece in page_pieces(raw):
            frame = Frame(len(piece))
            frame.digest = hashlib.sha256(piece).digest()
            if not self._pages.has(frame.digest):
                frame.stored = compress_piece(self._compressor, piece)
            self._pages.place(frame)
            frames.append(frame)
        return frames


def _check(read: Callable[[], object]) -> None:
    """Read what is about to be stored: a snapshot that nobody can read is worse than none.

    Raises InvalidError.
    """
    try:
        read()
    except CorruptError as error:
        raise InvalidError(f"nobody could read this snapshot: {error.detail}") from error


def _is_placed(page: NewPage) -> bool:
    """Asked backwards: frames get their places in order, except for those that were known."""
    return all(frame.ref is not None for frame in reversed(page.frames) if isinstance(frame, Frame))


def _ref(frame: Frame | FrameRef) -> FrameRef:
    ref = frame.ref if isinstance(frame, Frame) else frame
    if ref is None:
        raise InternalError("a page was written before its packs")
    return ref


def _settled(row: PageRow | tuple[PageRow, list[Frame], list[Frame]]) -> PageRow:
    if isinstance(row, PageRow):
        return row
    plain, page_frames, stat_frames = row
    return msgspec.structs.replace(
        plain,
        page_frames=tuple(map(_ref, page_frames)),
        stat_frames=tuple(map(_ref, stat_frames)),
    )
