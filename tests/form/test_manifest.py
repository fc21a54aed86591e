"""A page reads back as it was written, tells where data lies, and is refused when it is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples
from tests.form.trees import directory, file, frames_of, hard_link, page_with, symlink, trees

from holdfast.errors import CorruptError, TooLargeError
from holdfast.form import manifest
from holdfast.form.entries import Entry, Kind, order_key, stored_bytes
from holdfast.form.manifest import (
    PIECE_BYTES,
    StatPage,
    decode_frames,
    decode_page,
    decode_stat_page,
    encode_page,
    encode_stat_page,
    page_pieces,
)
from holdfast.form.tar_header import member_header

if TYPE_CHECKING:
    from collections.abc import Sequence

RICH = [
    directory(b""),
    directory(b"a"),
    file(b"a/large", 2_000_000),
    file(b"a/small", 100),
    Entry(
        path=b"a/sparse",
        kind=Kind.FILE,
        mode=0o600,
        uid=0,
        gid=0,
        size=10**12,
        xattrs=((b"user.k", b"v"),),
        segments=((4096, 4096), (10**11, 70_000)),
    ),
    hard_link(b"b", b"a/small"),
    symlink(b"c", b"../../etc/passwd"),
]


def plain(entries: Sequence[Entry]) -> list[Entry]:
    """``entries`` without what only a page knows of them."""
    return [msgspec.structs.replace(entry, frame=0, offset=0) for entry in entries]


@examples(60)
@given(trees())
def test_a_page_reads_back_as_it_was_written(entries: list[Entry]) -> None:
    page = page_with(entries)

    read = decode_page(encode_page(page))

    assert read == page
    assert plain(list(read.entries())) == entries
    assert [read.frame(number) for number in range(read.frame_count)] == frames_of(entries)


@examples(30)
@given(trees())
def test_the_frames_of_a_page_can_be_read_alone(entries: list[Entry]) -> None:
    page = page_with(entries)

    assert decode_frames(encode_page(page)) == page.frames


@pytest.mark.fault("T07")
@pytest.mark.parametrize("raw", [b"", b"\x90", b"\x91" * 100_000, b"\x9c" + b"\0" * 12])
def test_what_is_no_page_has_no_frames(raw: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_frames(raw)


@examples(60)
@given(trees())
def test_a_page_tells_where_the_data_begins(entries: list[Entry]) -> None:
    page = page_with(entries)

    position = 0
    for index, entry in enumerate(page.entries()):
        header_frame = page.header_frame(index)
        start = page.frame_starts[header_frame]
        assert start <= position < start + page.frame(header_frame).raw_size
        data = position + len(member_header(entries[index]))
        if stored_bytes(entry):
            assert page.frame_starts[entry.frame] + entry.offset == data
            assert entry.offset < page.frame(entry.frame).raw_size
        else:
            assert (entry.frame, entry.offset) == (header_frame, 0)
        position = page.starts[index + 1]
    assert position == page.raw_size == sum(f.raw_size for f in frames_of(entries))


@examples(60)
@given(trees(), st.data())
def test_stat_data_reads_back(entries: list[Entry], data: st.DataObject) -> None:
    page = page_with(entries)
    count = page.entry_count
    inodes = st.integers(min_value=0, max_value=2**64 - 1)
    ctimes = st.integers(min_value=0, max_value=2**63 - 1)
    stat = StatPage(
        inodes=data.draw(st.lists(inodes, min_size=count, max_size=count)),
        ctimes_ns=data.draw(st.lists(ctimes, min_size=count, max_size=count)),
    )

    assert decode_stat_page(encode_stat_page(stat, page), page) == stat


def test_stat_data_of_another_page_is_corrupt() -> None:
    page, other = page_with(RICH), page_with(RICH[:3])
    stat = encode_stat_page(StatPage(inodes=[1] * 3, ctimes_ns=[2] * 3), other)

    for raw in (stat, stat[:-1], b"", b"\x92\xa1\xff\x90"):
        with pytest.raises(CorruptError):
            decode_stat_page(raw, page)


@given(st.binary(max_size=100))
def test_pieces_make_up_the_page(raw: bytes) -> None:
    assert b"".join(page_pieces(raw)) == raw


def test_a_long_page_has_several_pieces() -> None:
    raw = bytes(2 * PIECE_BYTES + 1)

    assert [len(piece) for piece in page_pieces(raw)] == [PIECE_BYTES, PIECE_BYTES, 1]


def test_a_page_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    page = page_with(RICH)
    monkeypatch.setattr(manifest, "MAX_PAGE_BYTES", len(encode_page(page)) - 1)

    with pytest.raises(TooLargeError):
        encode_page(page)


@pytest.mark.fault("T07")
def test_a_page_that_was_cut_off_is_corrupt() -> None:
    raw = encode_page(page_with(RICH))

    for length in range(len(raw)):
        with pytest.raises(CorruptError):
            decode_page(raw[:length])


@pytest.mark.fault("T07")
@examples(300)
@given(st.data())
def test_a_changed_byte_gives_a_sound_page_or_an_error(data: st.DataObject) -> None:
    raw = bytearray(encode_page(page_with(RICH)))
    for _ in range(data.draw(st.integers(min_value=1, max_value=3))):
        raw[data.draw(st.integers(min_value=0, max_value=len(raw) - 1))] = data.draw(
            st.integers(min_value=0, max_value=255)
        )

    try:
        page = decode_page(bytes(raw))
    except CorruptError:
        return

    entries = list(page.entries())
    assert [entry.path for entry in entries] == sorted(page.paths, key=order_key)
    for entry in entries:
        assert not {b"", b".", b".."} & set(entry.path.split(b"/")) or entry.path == b""
        assert entry.frame < page.frame_count
    assert page.frame_starts[-1] == page.starts[-1]


def test_entries_may_begin_in_the_middle_of_a_tree() -> None:
    page = page_with([file(b"a/b/c"), directory(b"a/d"), file(b"a/d/e"), file(b"f")])

    assert decode_page(encode_page(page)) == page


@pytest.mark.fault("T01")
@pytest.mark.parametrize(
    "entries",
    [
        [directory(b""), file(b"/etc")],
        [file(b"/etc/passwd")],
        [file(b"..")],
        [directory(b"."), file(b"./x")],
        [file(b"../x")],
        [directory(b"a"), file(b"a/..")],
        [directory(b"a"), directory(b"a/.."), file(b"a/../b")],
        [directory(b"a"), file(b"a/")],
        [directory(b"a"), file(b"a//b")],
        [file(b"a/../b/c")],
        [file(b"")],
        [directory(b""), file(b"b"), file(b"a")],
        [directory(b""), file(b"a"), file(b"a")],
        [file(b"a!b"), file(b"a/b")],
        [file(b"n" * 256)],
        [directory(b"a"), file(b"a/" + b"n" * 256)],
        [file(b"/".join([b"n" * 200] * 21))],
        [directory(b"a"), *[file(b"a/" + b"/".join([b"n" * 200] * 21))]],
        [file(b"a"), file(b"a/b")],
        [directory(b""), symlink(b"a", b"/etc"), file(b"a/passwd")],
        [directory(b""), directory(b"a"), file(b"a/b/c")],
        [file(b"a/b"), file(b"c/d")],
    ],
)
def test_a_path_that_no_walk_finds_is_corrupt(entries: list[Entry]) -> None:
    with pytest.raises(CorruptError):
        decode_page(encode_page(page_with(entries)))


@pytest.mark.fault("T01")
@pytest.mark.parametrize(
    "entries",
    [
        [file(b"a"), hard_link(b"b", b"b")],
        [file(b"a"), hard_link(b"b", b"c"), file(b"c")],
        [file(b"a"), hard_link(b"b", b"a"), hard_link(b"c", b"b")],
        [directory(b"a"), hard_link(b"b", b"a")],
        [symlink(b"a", b"/etc/passwd"), hard_link(b"b", b"a")],
        [file(b"a"), hard_link(b"b", b"a!")],
        [file(b"a"), hard_link(b"b", b"../x")],
        [file(b"x"), hard_link(b"y", b"../../etc/passwd")],
        [file(b"x"), hard_link(b"y", b"/etc/passwd")],
        [file(b"x"), hard_link(b"y", b"n" * 300)],
        [file(b"x"), hard_link(b"y", b"a\0b")],
        [file(b"a"), hard_link(b"b", b"")],
        [symlink(b"a", b"")],
        [symlink(b"a", b"b\0c")],
        [symlink(b"a", b"t" * 4097)],
        [msgspec.structs.replace(file(b"a"), target=b"b")],
    ],
)
def test_a_link_that_no_walk_finds_is_corrupt(entries: list[Entry]) -> None:
    with pytest.raises(CorruptError):
        decode_page(encode_page(page_with(entries)))


def test_a_hard_link_may_name_a_file_of_an_earlier_page() -> None:
    page = page_with([file(b"x"), hard_link(b"y", b"a/b")])

    assert decode_page(encode_page(page)) == page


def sparse(*segments: tuple[int, int]) -> Entry:
    """A sparse file of 10,000 bytes."""
    return msgspec.structs.replace(file(b"s", 10_000), segments=segments)


@pytest.mark.fault("T03")
@pytest.mark.parametrize(
    "entry",
    [
        sparse((0, 10_001)),
        sparse((512, 512), (0, 512)),
        sparse((0, 100), (512, 512)),
        sparse((0, 0)),
        msgspec.structs.replace(directory(b"s"), segments=()),
        msgspec.structs.replace(directory(b"s"), size=5),
        msgspec.structs.replace(file(b"s"), xattrs=((b"", b"v"),)),
        msgspec.structs.replace(file(b"s"), xattrs=((b"a\0b", b"v"),)),
        msgspec.structs.replace(file(b"s"), xattrs=((b"user." + b"n" * 251, b"v"),)),
        msgspec.structs.replace(file(b"s"), xattrs=((b"user.a", b"v"), (b"user.a", b"w"))),
        msgspec.structs.replace(
            file(b"s"), xattrs=tuple((b"user.%d" % number, b"") for number in range(257))
        ),
        msgspec.structs.replace(file(b"s"), xattrs=((b"user.a", bytes(262_144)),)),
    ],
)
def test_an_entry_that_no_walk_finds_is_corrupt(entry: Entry) -> None:
    page = page_with([entry])

    with pytest.raises(CorruptError):
        decode_page(encode_page(page))


COLUMNS = (
    *("paths", "kinds", "modes", "uids", "gids", "sizes", "mtimes_ns", "header_sizes"),
    *("targets", "xattrs", "segments", "frames"),
)
FRAME_COLUMNS = ("digests", "raw_sizes", "stored_sizes", "packs", "pack_numbers", "gaps")


def columns(**changes: object) -> bytes:
    """The written form of a sound page of three entries, with some columns changed."""
    page = page_with([directory(b""), file(b"a", 700), file(b"b", 40_000)])
    form = dict(zip(COLUMNS, msgspec.msgpack.decode(encode_page(page)), strict=True))
    frames = dict(zip(FRAME_COLUMNS, form["frames"], strict=True))
    for name, value in changes.items():
        (frames if name in frames else form)[name] = value
    form["frames"] = [*frames.values()]
    return msgspec.msgpack.encode([*form.values()])


@pytest.mark.fault("T07")
@pytest.mark.parametrize(
    "changes",
    [
        {"kinds": b"\x01\x00"},
        {"kinds": b"\x01\x00\x04"},
        {"modes": [0o755, 0o644]},
        {"modes": [0o755, 0o644, 0o10000]},
        {"uids": [0, 0, 2**32 - 1]},
        {"gids": [0, 0, -1]},
        {"sizes": [0, 700, -1]},
        {"sizes": [0, 700, 2**62 + 1]},
        {"sizes": [0, 700, 40_961]},
        {"sizes": [1, 700, 40_000]},
        {"mtimes_ns": [0, 0, 2**63]},
        {"mtimes_ns": [0, 0, 0.5]},
        {"header_sizes": [512, 512, 0]},
        {"header_sizes": [512, 512, 513]},
        {"header_sizes": [512, 512, 1024]},
        {"header_sizes": [512, 512, 2**30]},
        {"paths": b""},
        {"paths": b"\0a\0b\0c"},
        {"paths": bytes(10_000)},
        {"targets": {3: b"x"}},
        {"xattrs": {3: [(b"user.a", b"")]}},
        {"xattrs": {0: []}},
        {"segments": {3: [(0, 5)]}},
        {"segments": {-1: [(0, 5)]}},
        {"digests": bytes(31)},
        {"digests": bytes(96)},
        {"raw_sizes": [2224, 40_447]},
        {"raw_sizes": [2224, 0]},
        {"raw_sizes": [2**40]},
        {"stored_sizes": [1]},
        {"stored_sizes": [100, 2**20]},
        {"pack_numbers": [0, 1]},
        {"pack_numbers": [0]},
        {"packs": b""},
        {"packs": bytes(33)},
        {"gaps": [0]},
        {"gaps": [-1, 0]},
        {"gaps": [0, 917_000]},
        {"modes": [0] * 5000},
        {"targets": dict.fromkeys(range(5000), b"x")},
    ],
)
def test_columns_that_do_not_fit_together_are_corrupt(changes: dict[str, object]) -> None:
    decode_page(columns())

    with pytest.raises(CorruptError):
        decode_page(columns(**changes))


@pytest.mark.fault("T04")
def test_a_page_with_too_many_entries_is_corrupt() -> None:
    files = [file(b"%06d" % number) for number in range(4097)]
    decode_page(encode_page(page_with(files[:4096])))

    with pytest.raises(CorruptError):
        decode_page(encode_page(page_with(files)))


@pytest.mark.fault("T05")
def test_a_deeply_nested_page_is_corrupt() -> None:
    with pytest.raises(CorruptError):
        decode_page(b"\x91" * 100_000)
