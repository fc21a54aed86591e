"""A few stored bytes cannot make a reader take much memory: pages and roots by a stranger."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import TYPE_CHECKING

import msgspec
import pytest
import zstandard
from tests.form.test_manifest import columns
from tests.form.test_root import PAGES, ROOT, nothing, row_of, written
from tests.form.trees import directory, file, page_with

from holdfast.domain.digest import Digest
from holdfast.domain.limits import MIB
from holdfast.errors import CorruptError, TooLargeError
from holdfast.form.columns import MAX_PAGE_SEGMENTS
from holdfast.form.frame_table import FrameRef
from holdfast.form.frames import (
    FREE_RAW_BYTES,
    compress_piece,
    decompress_frame,
    max_raw_bytes,
    new_page_compressor,
    plain_frame,
)
from holdfast.form.layout import MAX_CHUNK_BYTES
from holdfast.form.manifest import decode_page, encode_page
from holdfast.form.packing import PACK_BYTES
from holdfast.form.root import (
    CLIENTS_ROOT,
    PIECES_MAGIC,
    ROOT_MAGIC,
    join_root,
    root_of,
    split_root,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MOST: int = 40 * MIB
"""The most that any of them may take; without bounds each took hundreds, or thousands."""


def peak(refused: Callable[[], object]) -> int:
    """The most memory at once that it took to refuse."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError):
            refused()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.fault("T07")
@pytest.mark.parametrize(
    "changes",
    [
        {"pack_numbers": [[]] * 2**20},
        {"pack_numbers": [[0]] * 2**19},
        {"pack_numbers": [[300] * 2**22]},
        {"entries": [300] * 2**20},
        {"page_pieces": [300] * 2**20},
    ],
    ids=["empty rows", "short rows", "a long row", "entries", "pieces"],
)
def test_a_small_root_takes_little_memory(changes: dict[str, object]) -> None:
    head = written(ROOT, **changes)

    assert len(head) < 16 * 1024
    assert peak(lambda: join_root(head, nothing)) < MOST


@pytest.mark.fault("T07")
@pytest.mark.parametrize(
    "changes",
    [
        {"xattrs": {number: [(b"", b"")] * 80 for number in range(3000)}},
        {"xattrs": {number: [(b"", b"")] * 15 for number in range(3000)}},
        {"segments": {number: [(0, 0)] * 65_000 for number in range(8)}},
        {"segments": {0: [(0, 0)] * 65_536, 1: [(0, 0)] * 65_537}},
    ],
    ids=["many attributes", "few attributes", "many segments", "segments of two"],
)
def test_a_small_page_takes_little_memory(changes: dict[str, object]) -> None:
    raw = columns(**changes)

    assert peak(lambda: decode_page(raw)) < MOST


@pytest.mark.fault("T07")
@pytest.mark.parametrize("numbers", [(1, 0), (0, 0), (1, 1)])
def test_a_pages_packs_that_do_not_ascend_are_corrupt(numbers: tuple[int, int]) -> None:
    join_root(written(ROOT, pack_numbers=[[0, 1], [0], [0]]), nothing)

    with pytest.raises(CorruptError):
        join_root(written(ROOT, pack_numbers=[numbers, [0], [0]]), nothing)


@pytest.mark.fault("T07")
@pytest.mark.parametrize("value", [b"text", 5, {1: 2}, None])
@pytest.mark.parametrize("column", ["xattrs", "segments"])
def test_a_column_of_something_else_is_corrupt(column: str, value: object) -> None:
    with pytest.raises(CorruptError):
        decode_page(columns(**{column: {1: value}}))


def test_a_page_has_as_many_segments_as_fit() -> None:
    half = tuple((1024 * number, 512) for number in range(MAX_PAGE_SEGMENTS // 2))
    sparse = [msgspec.structs.replace(file(name, 10**9), segments=half) for name in (b"a", b"b")]
    page = page_with([directory(b""), *sparse])
    more = page_with(
        [directory(b""), *sparse, msgspec.structs.replace(file(b"c", 512), segments=half[:1])]
    )

    assert decode_page(encode_page(page)) == page
    with pytest.raises(CorruptError):
        decode_page(encode_page(more))


def pieces_of(count: int, *, names: int, stored_size: int) -> tuple[FrameRef, ...]:
    """``count`` full pieces of a page, of which ``names`` differ."""
    return tuple(
        FrameRef(
            digest=hashlib.sha256(b"%d" % (number % names)).digest(),
            raw_size=MAX_CHUNK_BYTES,
            pack=hashlib.sha256(b"pack").digest(),
            offset=0,
            stored_size=stored_size,
        )
        for number in range(count)
    )


@pytest.mark.fault("T07")
@pytest.mark.parametrize("of_stat", [False, True])
@pytest.mark.parametrize(
    "frames",
    [
        pieces_of(100, names=1, stored_size=MAX_CHUNK_BYTES // 2),
        pieces_of(100, names=100, stored_size=1000),
        pieces_of(2, names=1, stored_size=1000),
    ],
    ids=["the same again and again", "hardly anything stored", "two"],
)
def test_a_page_that_unpacks_to_more_than_it_may_is_corrupt(
    frames: tuple[FrameRef, ...], *, of_stat: bool
) -> None:
    changes = {"stat_frames" if of_stat else "page_frames": frames}
    ((_, head),) = split_root(root_of([msgspec.structs.replace(row_of(PAGES[0]), **changes)]))

    with pytest.raises(CorruptError, match="unpacks to more"):
        join_root(head, nothing)


def test_a_page_of_many_equal_pieces_is_read_when_enough_is_stored() -> None:
    frames = pieces_of(60, names=10, stored_size=MAX_CHUNK_BYTES // 2)
    root = root_of([msgspec.structs.replace(row_of(PAGES[0]), page_frames=frames)])
    ((_, head),) = split_root(root)

    assert join_root(head, nothing).page_frames(0) == frames


def test_a_full_piece_is_stored_as_it_is_rather_than_small() -> None:
    raw = bytes(MAX_CHUNK_BYTES)

    stored = compress_piece(new_page_compressor(), raw)

    assert len(raw) < len(stored) < len(raw) + 100
    assert decompress_frame(stored, len(raw)) == raw
    assert len(compress_piece(new_page_compressor(), raw[1:])) < 1000


@pytest.mark.parametrize("size", [1, 131_071, 131_072, 131_073, 400_000])
def test_a_plain_frame_reads_back(size: int) -> None:
    raw = hashlib.shake_128(b"seed").digest(size)

    assert decompress_frame(plain_frame(raw), size) == raw
    assert zstandard.decompress(plain_frame(raw)) == raw


def test_a_root_that_would_unpack_too_far_is_stored_as_it_is() -> None:
    row = row_of(PAGES[0])
    long = b"/".join([b"n" * 200] * 20)
    rows = [
        msgspec.structs.replace(row, first_path=long + b"/%06d" % number if number else b"")
        for number in range(600)
    ]
    root = root_of(rows)

    blobs = split_root(root)

    whole = b"".join([data for _, data in blobs[:-1]])
    assert whole.startswith(ROOT_MAGIC)
    assert len(zstandard.decompress(whole[len(ROOT_MAGIC) :])) > FREE_RAW_BYTES
    assert len(whole) > FREE_RAW_BYTES
    assert join_root(blobs[-1][1], dict(blobs).__getitem__) == root


@pytest.mark.fault("T07")
def test_a_root_that_names_a_piece_twice_is_corrupt() -> None:
    with pytest.raises(CorruptError):
        join_root(PIECES_MAGIC + bytes(64), nothing)


def test_what_is_stored_bounds_what_it_unpacks_to() -> None:
    assert max_raw_bytes(0) == FREE_RAW_BYTES > MAX_CHUNK_BYTES
    assert max_raw_bytes(MIB) == 17 * MIB


@pytest.mark.fault("T07")
def test_a_clients_root_is_refused_by_its_size_before_it_takes_memory() -> None:
    pages = 200_000
    row = msgspec.msgpack.encode(list(range(120)))
    raw = msgspec.msgpack.encode(
        [
            1,
            b"\0".join([b"", *(b"%08x" % number for number in range(1, pages))]),
            *([[1] * pages, [0] * pages, [0] * pages, [0] * pages, [0] * pages, [1] * pages]),
            bytes(32 * pages),
            [msgspec.Raw(row)] * pages,
            [1] * pages,
            [0] * pages,
            [bytes(32 * pages), [1] * pages, [1] * pages, bytes(32), [0] * pages, [0] * pages],
        ]
    )
    head = ROOT_MAGIC + plain_frame(raw)
    pieces = [head[at : at + PACK_BYTES] for at in range(0, len(head), PACK_BYTES)]
    named = {Digest(hashlib.sha256(piece).hexdigest()): piece for piece in pieces}
    head = PIECES_MAGIC + b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    assert len(named) <= CLIENTS_ROOT.pieces

    tracemalloc.start()
    with pytest.raises(TooLargeError):
        join_root(head, named.__getitem__, CLIENTS_ROOT)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < 4 * len(raw) + MOST  # the pieces, joined and unpacked
