"""A root tells of its pages, fits into messages however long, and is refused when damaged."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples
from tests.form.trees import directory, file, page_with, trees

from holdfast.domain.digest import Digest, digest_of
from holdfast.errors import CorruptError, NotFoundError, TooLargeError
from holdfast.form import root as root_module
from holdfast.form.entries import Entry, Kind
from holdfast.form.frame_table import FrameRef
from holdfast.form.manifest import encode_page
from holdfast.form.packing import PACK_BYTES
from holdfast.form.root import (
    PIECES_MAGIC,
    ROOT_MAGIC,
    PageRow,
    Root,
    join_root,
    page_row,
    root_of,
    root_pieces,
    split_root,
)

if TYPE_CHECKING:
    from holdfast.form.manifest import Page


def sha256(text: str) -> bytes:
    """The digest of a text: something that looks like one."""
    return hashlib.sha256(text.encode()).digest()


def frame_at(name: str, number: int) -> FrameRef:
    """A frame of a page's bytes, in a pack of pages."""
    return FrameRef(
        digest=sha256(name),
        raw_size=900,
        pack=sha256("pages"),
        offset=number * 300,
        stored_size=200,
    )


def row_of(page: Page, number: int = 0) -> PageRow:
    """The row of ``page``, stored in one frame, with stat data in another."""
    return page_row(
        page,
        page_frames=(frame_at(f"page {number}", 2 * number),),
        stat_frames=(frame_at(f"stat {number}", 2 * number + 1),),
        fingerprint=sha256(f"seen {number}"),
    )


PAGES = (
    page_with([directory(b""), file(b"a", 100)]),
    page_with([file(b"b", 70_000), directory(b"c")]),
    page_with([file(b"c/d"), file(b"c/e")]),
)
ROOT = root_of([row_of(page, number) for number, page in enumerate(PAGES)])


def nothing(digest: Digest) -> bytes:
    """A store without blobs."""
    raise NotFoundError(digest)


def read_back(root: Root) -> Root:
    """``root``, written and read."""
    *others, (_, head) = split_root(root)
    return join_root(head, dict(others).__getitem__)


def written(root: Root, **changes: object) -> bytes:
    """The head of ``root`` with some columns changed."""
    ((_, head),) = split_root(root)
    raw = zstandard.decompress(head.removeprefix(ROOT_MAGIC))
    form = msgspec.msgpack.decode(raw)
    names = (
        *("format", "first_paths", "entries", "files", "size_bytes", "raw_bytes", "stored_bytes"),
        *("frames", "fingerprints", "pack_numbers", "page_pieces", "stat_pieces", "pieces"),
    )
    for name, value in changes.items():
        form[names.index(name)] = value
    return ROOT_MAGIC + zstandard.compress(msgspec.msgpack.encode(form))


def test_a_root_reads_back_as_it_was_written() -> None:
    root = read_back(ROOT)

    assert root == ROOT
    assert [root.row(number) for number in range(3)] == [
        row_of(page, number) for number, page in enumerate(PAGES)
    ]


def test_a_root_adds_up() -> None:
    assert (ROOT.page_count, ROOT.entries, ROOT.files) == (3, 6, 4)
    assert ROOT.size_bytes == 70_100
    assert ROOT.raw_bytes == sum(page.raw_size for page in PAGES)
    assert ROOT.frames == sum(page.frame_count for page in PAGES)
    assert ROOT.stored_bytes == sum(
        page.frame(number).stored_size for page in PAGES for number in range(page.frame_count)
    )


def test_a_root_names_every_pack_once() -> None:
    assert list(ROOT.packs) == sorted({sha256("pack 0"), sha256("pages")})


def test_a_page_of_another_root_can_be_taken_over() -> None:
    root = root_of([ROOT.row(0), ROOT.row(2)])

    assert read_back(root).row(1) == ROOT.row(2)
    assert root.page_frames(1) == (frame_at("page 2", 4),)
    assert root.stat_frames(1) == (frame_at("stat 2", 5),)


@pytest.mark.parametrize(
    ("path", "number"),
    [(b"", 0), (b"a", 0), (b"a/z", 0), (b"b", 1), (b"c", 1), (b"c/a", 1), (b"c/d", 2), (b"z", 2)],
)
def test_the_page_of_a_path_is_found(path: bytes, number: int) -> None:
    assert ROOT.page_of_path(path) == number


@examples(30)
@given(trees(), st.integers(min_value=1, max_value=5))
def test_each_path_is_on_the_page_that_is_found(entries: list[Entry], length: int) -> None:
    pages = [page_with(entries[at : at + length]) for at in range(0, len(entries), length)]
    root = root_of([row_of(page, number) for number, page in enumerate(pages)])

    for number, page in enumerate(pages):
        root.check_page(number, page)
        assert {root.page_of_path(path) for path in page.paths} == {number}
    assert read_back(root) == root


def test_a_long_root_is_stored_in_pieces() -> None:
    first = page_with([directory(b"")])
    rows = [row_of(first)]
    for number in range(20_000):
        row = row_of(first, number)
        rows.append(
            msgspec.structs.replace(
                row,
                first_path=b"%06d" % number,
                page_frames=(msgspec.structs.replace(row.page_frames[0], offset=0),),
                stat_frames=(),
            )
        )
    root = root_of(rows)

    blobs = split_root(root)

    assert len(blobs) > 2
    assert all(len(data) <= PACK_BYTES and digest_of(data) == digest for digest, data in blobs)
    (_, head) = blobs[-1]
    assert root_pieces(head) == tuple(digest for digest, _ in blobs[:-1])
    assert join_root(head, dict(blobs).__getitem__) == root
    with pytest.raises(NotFoundError):
        join_root(head, nothing)
    with pytest.raises(CorruptError):
        join_root(head, lambda _: blobs[1][1])
    with pytest.raises(CorruptError):
        join_root(head, lambda _: bytes(PACK_BYTES + 1))


def test_a_short_root_has_no_pieces() -> None:
    ((digest, head),) = split_root(ROOT)

    assert digest == digest_of(head)
    assert root_pieces(head) == ()
    assert join_root(head, nothing) == ROOT


def test_a_root_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, head),) = split_root(ROOT)
    monkeypatch.setattr(root_module, "MAX_ROOT_BYTES", 100)

    with pytest.raises(TooLargeError):
        split_root(ROOT)
    with pytest.raises(CorruptError):
        join_root(head, nothing)


@pytest.mark.fault("T07")
@pytest.mark.parametrize(
    "other",
    [
        page_with([directory(b""), file(b"a", 101)]),
        page_with([directory(b""), file(b"a", 100), file(b"aa")]),
        page_with([directory(b"x"), file(b"x/a", 100)]),
        page_with([directory(b""), file(b"b", 100)]),
        page_with([directory(b""), directory(b"a")]),
    ],
)
def test_a_page_that_is_not_the_roots_is_corrupt(other: Page) -> None:
    ROOT.check_page(0, PAGES[0])

    with pytest.raises(CorruptError):
        ROOT.check_page(0, other)


@pytest.mark.fault("T07")
def test_a_page_with_packs_that_the_root_does_not_keep_is_corrupt() -> None:
    row = msgspec.structs.replace(row_of(PAGES[0]), packs=())

    with pytest.raises(CorruptError):
        root_of([row]).check_page(0, PAGES[0])


@pytest.mark.fault("T07")
@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": "1"},
        {"first_paths": b"\0b"},
        {"first_paths": b"\0c/d\0b"},
        {"first_paths": b"a\0b\0c"},
        {"first_paths": b"\0b\0b"},
        {"first_paths": b"\0../b\0c"},
        {"first_paths": b"\0/b\0c"},
        {"first_paths": b"\0b\0" + b"n" * 256},
        {"entries": [2, 2]},
        {"entries": [2, 2, 5000]},
        {"files": [2, 2, -1]},
        {"raw_bytes": [1, 2, 2**63]},
        {"frames": [1, 1, 0]},
        {"fingerprints": bytes(95)},
        {"pack_numbers": [[0], [1], [2]]},
        {"pack_numbers": [[0], [1]]},
        {"page_pieces": [1, 1, 2]},
        {"page_pieces": [1, 1, 0]},
        {"stat_pieces": [1, 1]},
        {"pieces": [b"", [], [], sha256("b") + sha256("a"), [], []]},
        {
            "pieces": [
                sha256("x") * 6,
                [900] * 6,
                [200] * 6,
                b"\1" * 32 + b"\0" * 32,
                [0] * 6,
                [0] * 6,
            ]
        },
        {"pieces": [sha256("x") * 6, [900] * 6, [200] * 6, b"", [0] * 6, [0] * 6]},
    ],
)
def test_a_root_whose_columns_do_not_fit_is_corrupt(changes: dict[str, object]) -> None:
    join_root(written(ROOT), nothing)

    with pytest.raises(CorruptError):
        join_root(written(ROOT, **changes), nothing)


@pytest.mark.fault("T07")
@pytest.mark.parametrize(
    "head",
    [
        b"",
        ROOT_MAGIC,
        ROOT_MAGIC[:-2] + b"2\n",
        ROOT_MAGIC + b"no zstd at all",
        ROOT_MAGIC + zstandard.compress(b""),
        ROOT_MAGIC + zstandard.compress(b"\xff"),
        ROOT_MAGIC + zstandard.compress(encode_page(PAGES[0])),
        ROOT_MAGIC + zstandard.compress(b"\x91" * 10_000),
        PIECES_MAGIC,
        PIECES_MAGIC + bytes(31),
        PIECES_MAGIC + bytes(32) * 10_000,
    ],
)
def test_what_is_no_root_is_corrupt(head: bytes) -> None:
    with pytest.raises(CorruptError):
        join_root(head, nothing)


@pytest.mark.fault("T07")
def test_a_root_made_of_itself_is_corrupt() -> None:
    head = PIECES_MAGIC + bytes(32)

    with pytest.raises(CorruptError):
        join_root(head, lambda _: head)


@pytest.mark.fault("T07")
def test_a_root_that_was_cut_off_is_corrupt() -> None:
    ((_, head),) = split_root(ROOT)

    for length in range(len(head)):
        with pytest.raises(CorruptError):
            join_root(head[:length], nothing)


@pytest.mark.fault("T07")
@examples(200)
@given(st.data())
def test_a_changed_byte_gives_a_sound_root_or_an_error(data: st.DataObject) -> None:
    raw = bytearray(zstandard.decompress(split_root(ROOT)[0][1].removeprefix(ROOT_MAGIC)))
    raw[data.draw(st.integers(min_value=0, max_value=len(raw) - 1))] = data.draw(
        st.integers(min_value=0, max_value=255)
    )

    try:
        root = join_root(ROOT_MAGIC + zstandard.compress(bytes(raw)), nothing)
    except CorruptError:
        return

    rows = [root.row(number) for number in range(root.page_count)]
    assert all(row.page_frames for row in rows)
    assert sorted(root.keys) == list(root.keys)


def test_files_are_counted_without_links() -> None:
    page = page_with(
        [file(b"a"), Entry(path=b"b", kind=Kind.HARDLINK, mode=0, uid=0, gid=0, target=b"a")]
    )

    assert row_of(page).files == 1


@pytest.mark.fault("T07")
@pytest.mark.parametrize("column", ["size_bytes", "raw_bytes", "stored_bytes"])
def test_a_total_beyond_what_any_answer_can_tell_is_refused_when_made_and_when_read(
    column: str,
) -> None:
    rows = [row_of(page, number) for number, page in enumerate(PAGES)]
    most = [0] * len(rows)
    most[0] = 2**53
    more = [*most[:-1], 1]

    def totals(values: list[int]) -> list[PageRow]:
        return [
            msgspec.structs.replace(row, **{column: value})
            for row, value in zip(rows, values, strict=True)
        ]

    largest = split_root(root_of(totals(most)))
    assert getattr(join_root(largest[-1][1], nothing), column) == 2**53
    with pytest.raises(TooLargeError):
        split_root(root_of(totals(more)))
    with pytest.raises(CorruptError):
        join_root(written(ROOT, **{column: more}), nothing)
