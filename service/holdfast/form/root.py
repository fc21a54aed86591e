"""The root of a snapshot's manifest: one row for each page, and every pack that is needed.

It says enough to list totals, to find the page of a path and to tell unchanged pages, without
reading one. The snapshot is known by the digest of the blob that is its root. Should the root be
too long for one message it is stored in pieces, and that blob lists them.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final

import msgspec
import zstandard
from msgspec.structs import replace

from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, TooLargeError
from holdfast.form.checks import check_root, excessive_total
from holdfast.form.columns import FORMAT, PackNumbers, RootColumns, RootOutline, to_raw_rows
from holdfast.form.entries import Kind, order_key
from holdfast.form.frame_table import (
    DIGEST_BYTES,
    FrameRef,
    FrameTable,
    from_columns,
    split_digests,
    table_of,
    to_columns,
)
from holdfast.form.frames import PAGE_LEVEL, decompress_frame, max_raw_bytes, plain_frame
from holdfast.form.packing import PACK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.form.manifest import Page

ROOT_MAGIC: Final = b"holdfast-root 1\n"
PIECES_MAGIC: Final = b"holdfast-root-pieces 1\n"

MAX_ROOT_BYTES: Final = 256 * MIB
"""Of a root before compression: about a million pages."""

_PAGE_KEY_BYTES: Final = 16

MAX_ROOT_PIECES: Final = 2 * MAX_ROOT_BYTES // PACK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class RootLimits:
    """Limits on a root for its reader: checked before it is read.

    ``pieces`` are those it is stored in. ``decoded_bytes`` is what it takes in memory, as
    ``RootOutline`` counts; ``free_bytes`` of that are for any root, beyond it may take ``ratio``
    times what it takes in the store.
    """

    pieces: int = MAX_ROOT_PIECES
    decoded_bytes: int = 2**63
    free_bytes: int = 2**63
    ratio: int = 1

    def most_for(self, stored_bytes: int) -> int:
        """Bytes in memory that a root may take that is stored in so many."""
        return min(self.decoded_bytes, self.free_bytes + self.ratio * stored_bytes)


ANY_ROOT: Final = RootLimits()
CLIENTS_ROOT: Final = RootLimits(pieces=64, decoded_bytes=256 * MIB, free_bytes=32 * MIB, ratio=12)
"""For a commit of a client: about 250 million entries, or a terabyte of packs. In roots of
archives digests take most, which are four times as long in memory.
"""


class PageRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A root's entry for one page.

    ``size_bytes`` is the apparent size of its files, ``raw_bytes`` their tar's, ``stored_bytes``
    that of its ``frames`` frames when compressed, repeated ones counted as often as they come.
    ``page_frames`` hold the encoded page, ``stat_frames`` its stat page (none: there is none).
    ``packs`` are those of the page's data, each once.
    """

    first_path: bytes
    entries: int
    files: int
    size_bytes: int
    raw_bytes: int
    stored_bytes: int
    frames: int
    page_frames: tuple[FrameRef, ...]
    stat_frames: tuple[FrameRef, ...]
    fingerprint: bytes
    packs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A snapshot's pages in order. ``columns`` are the written form, the rest is read from it.

    ``packs`` are all that the snapshot needs, those of its pages included, ascending.
    """

    columns: RootColumns
    first_paths: Sequence[bytes]
    fingerprints: Sequence[bytes]
    packs: Sequence[bytes]
    pack_numbers: Sequence[Sequence[int]]
    pieces: FrameTable
    piece_starts: Sequence[int]
    keys: Sequence[bytes]

    @property
    def page_count(self) -> int:
        """The count of pages; at least 1."""
        return len(self.first_paths)

    @property
    def entries(self) -> int:
        """Members of the snapshot."""
        return sum(self.columns.entries)

    @property
    def files(self) -> int:
        """Regular files, without further hard links to one."""
        return sum(self.columns.files)

    @property
    def size_bytes(self) -> int:
        """The apparent size of the files."""
        return sum(self.columns.size_bytes)

    @property
    def raw_bytes(self) -> int:
        """The size of the tar without its end."""
        return sum(self.columns.raw_bytes)

    @property
    def stored_bytes(self) -> int:
        """The size of all frames when compressed, repeated ones counted as often as they come."""
        return sum(self.columns.stored_bytes)

    @property
    def frames(self) -> int:
        """The count of frames of the tar, without its end."""
        return sum(self.columns.frames)

    def page_frames(self, number: int) -> tuple[FrameRef, ...]:
        """The frames that hold the encoded page ``number``, one after the other."""
        start = self.piece_starts[number]
        return tuple(
            map(self.pieces.__getitem__, range(start, start + self.columns.page_pieces[number]))
        )

    def stat_frames(self, number: int) -> tuple[FrameRef, ...]:
        """The same of its stat page; empty where there is none."""
        start = self.piece_starts[number] + self.columns.page_pieces[number]
        return tuple(map(self.pieces.__getitem__, range(start, self.piece_starts[number + 1])))

    def page_key(self, number: int) -> bytes:
        """The key of page ``number``: equal for equal pages, stored alike, of all roots."""
        hasher = hashlib.blake2b(digest_size=_PAGE_KEY_BYTES)
        for ref in (*self.page_frames(number), *self.stat_frames(number)):
            hasher.update(ref.digest + ref.pack + ref.offset.to_bytes(4))
        return hasher.digest()

    def row(self, number: int) -> PageRow:
        """All that is said of page ``number``: enough to list the same page in another root."""
        return PageRow(
            first_path=self.first_paths[number],
            entries=self.columns.entries[number],
            files=self.columns.files[number],
            size_bytes=self.columns.size_bytes[number],
            raw_bytes=self.columns.raw_bytes[number],
            stored_bytes=self.columns.stored_bytes[number],
            frames=self.columns.frames[number],
            page_frames=self.page_frames(number),
            stat_frames=self.stat_frames(number),
            fingerprint=self.fingerprints[number],
            packs=tuple(map(self.packs.__getitem__, self.pack_numbers[number])),
        )

    def page_of_path(self, path: bytes) -> int:
        """The number of the only page that can list ``path``."""
        return max(bisect_right(self.keys, order_key(path)) - 1, 0)

    def check_page(self, number: int, page: Page) -> None:
        """Raises CorruptError unless ``page`` is what the root says of page ``number``.

        Checked are its rows, its packs, and that its entries come before the next page's.
        """
        said = self.row(number)
        found = page_row(
            page,
            page_frames=said.page_frames,
            stat_frames=said.stat_frames,
            fingerprint=said.fingerprint,
        )
        is_same = replace(found, packs=said.packs) == said
        if not is_same or not set(said.packs).issuperset(found.packs):
            raise CorruptError("a page of the manifest is not the one that its root tells of")
        last = order_key(page.paths[-1])
        if number + 1 < len(self.keys) and last >= self.keys[number + 1]:
            raise CorruptError("two pages of the manifest overlap")


def page_row(
    page: Page,
    *,
    page_frames: tuple[FrameRef, ...],
    stat_frames: tuple[FrameRef, ...],
    fingerprint: bytes,
) -> PageRow:
    """The root's entry for ``page``."""
    return PageRow(
        first_path=page.paths[0],
        entries=page.entry_count,
        files=page.kinds.count(Kind.FILE),
        size_bytes=sum(page.sizes),
        raw_bytes=page.raw_size,
        stored_bytes=sum(page.frames.stored_sizes),
        frames=page.frame_count,
        page_frames=page_frames,
        stat_frames=stat_frames,
        fingerprint=fingerprint,
        packs=tuple(split_digests(page.frames.packs)),
    )


def root_of(rows: Sequence[PageRow]) -> Root:
    """The root of pages (at least one) that are described by ``rows``, in order."""
    pieces = [ref for row in rows for ref in (*row.page_frames, *row.stat_frames)]
    packs = sorted({*chain.from_iterable([row.packs for row in rows]), *(p.pack for p in pieces)})
    numbers = {pack: number for number, pack in enumerate(packs)}
    return _root(
        RootColumns(
            format=FORMAT,
            first_paths=b"\0".join([row.first_path for row in rows]),
            entries=[row.entries for row in rows],
            files=[row.files for row in rows],
            size_bytes=[row.size_bytes for row in rows],
            raw_bytes=[row.raw_bytes for row in rows],
            stored_bytes=[row.stored_bytes for row in rows],
            frames=[row.frames for row in rows],
            fingerprints=b"".join([row.fingerprint for row in rows]),
            pack_numbers=to_raw_rows(
                [tuple(sorted({numbers[pack] for pack in row.packs})) for row in rows]
            ),
            page_pieces=[len(row.page_frames) for row in rows],
            stat_pieces=[len(row.stat_frames) for row in rows],
            pieces=to_columns(table_of(pieces, packs)),
        )
    )


def split_root(root: Root) -> tuple[tuple[Digest, bytes], ...]:
    """The blobs to store, with their digests; the last one is the head, whose digest is the root.

    Each is at most PACK_BYTES; usually the head is the only one. Raises TooLargeError.
    """
    columns = root.columns
    excess = excessive_total(columns.size_bytes, columns.raw_bytes, columns.stored_bytes)
    if excess is not None:
        raise TooLargeError(excess)
    raw = _ENCODER.encode(columns)
    if len(raw) > MAX_ROOT_BYTES:
        msg = f"the manifest's root would have {len(raw)} bytes, more than {MAX_ROOT_BYTES}"
        raise TooLargeError(msg)
    stored = zstandard.ZstdCompressor(level=PAGE_LEVEL).compress(raw)
    whole = ROOT_MAGIC + (stored if len(raw) <= max_raw_bytes(len(stored)) else plain_frame(raw))
    if len(whole) <= PACK_BYTES:
        return ((digest_of(whole), whole),)
    blobs = [whole[at : at + PACK_BYTES] for at in range(0, len(whole), PACK_BYTES)]
    head = PIECES_MAGIC + b"".join([hashlib.sha256(blob).digest() for blob in blobs])
    return tuple((digest_of(blob), blob) for blob in (*blobs, head))


def root_pieces(head: bytes) -> tuple[Digest, ...]:
    """The other blobs that the root consists of, in order; none if ``head`` is all.

    The snapshot needs them as it needs the root's packs. Raises CorruptError.
    """
    if head.startswith(ROOT_MAGIC):
        return ()
    digests = head.removeprefix(PIECES_MAGIC)
    count, rest = divmod(len(digests), DIGEST_BYTES)
    if (
        digests is head
        or rest
        or not 0 < count <= MAX_ROOT_PIECES
        or len(set(split_digests(digests))) < count
    ):
        raise CorruptError("this version cannot read the root of the snapshot")
    return tuple(Digest(digest.hex()) for digest in split_digests(digests))


def join_root(head: bytes, get: Callable[[Digest], bytes], limits: RootLimits = ANY_ROOT) -> Root:
    """The root whose head is ``head``; ``get`` gives a piece, checked against its digest.

    Raises CorruptError when it could not be a snapshot's, TooLargeError beyond ``limits``, and
    what ``get`` raises.
    """
    names = root_pieces(head)
    if len(names) > limits.pieces:
        raise TooLargeError(_LARGE)
    whole = head
    if names:
        parts = [get(name) for name in names]
        if max(len(part) for part in parts) > PACK_BYTES or not parts[0].startswith(ROOT_MAGIC):
            raise CorruptError("the pieces of the manifest's root make no root")
        whole = b"".join(parts)
    stored = memoryview(whole)[len(ROOT_MAGIC) :]
    try:
        size = zstandard.frame_content_size(stored)
    except zstandard.ZstdError as error:
        raise CorruptError("the manifest's root is unreadable") from error
    max_size = min(MAX_ROOT_BYTES, max_raw_bytes(len(stored)))
    raw = decompress_frame(stored, size, max_size=max_size)
    try:
        outline = _OUTLINE_DECODER.decode(raw)
        if not outline.is_even:
            raise CorruptError("the columns of the manifest's root differ in length")
        if outline.decoded_bytes > limits.most_for(len(stored)):
            raise TooLargeError(_LARGE)
        columns = _DECODER.decode(raw)
        check_root(columns)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError("the manifest's root is unreadable") from error
    return _root(columns)


_LARGE: Final = "the manifest's root is too large to be read here"


def _root(columns: RootColumns) -> Root:
    paths = columns.first_paths.split(b"\0")
    table = from_columns(columns.pieces)
    counts = [
        page + stat for page, stat in zip(columns.page_pieces, columns.stat_pieces, strict=True)
    ]
    return Root(
        columns=columns,
        first_paths=paths,
        fingerprints=split_digests(columns.fingerprints),
        packs=split_digests(table.packs),
        pack_numbers=PackNumbers(columns.pack_numbers),
        pieces=table,
        piece_starts=list(accumulate(counts, initial=0)),
        keys=list(map(order_key, paths)),
    )


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(RootColumns)
_OUTLINE_DECODER: Final = msgspec.msgpack.Decoder(RootOutline)
