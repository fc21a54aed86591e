"""Reading a snapshot: finding, listing, file contents at any range, and damage."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.archive.tars import (
    CountingStore,
    archive_tar,
    directory,
    file,
    hardlink,
    large_tree,
    members_of,
    snapshot_of,
    symlink,
    tar_of,
)
from tests.examples import examples

from holdfast.archive.read.snapshot import HOLE_PIECE_BYTES, ReaderLimits, SnapshotReader
from holdfast.domain.digest import Digest, digest_of
from holdfast.domain.kept import PartialBytes, reduced
from holdfast.errors import CorruptError, InvalidError, NotFoundError
from holdfast.form.columns import MAX_PAGE_BYTES
from holdfast.form.entries import Entry, Kind, order_key
from holdfast.form.fingerprint import NEVER_EQUAL
from holdfast.form.frame_table import FrameRef
from holdfast.form.frames import compress_frame, new_compressor
from holdfast.form.layout import MAX_FRAME_BYTES
from holdfast.form.manifest import encode_page, new_page
from holdfast.form.root import page_row, root_of, split_root
from holdfast.form.tar_header import member_header

if TYPE_CHECKING:
    from holdfast.archive.ports import Pack

FILES = large_tree()
SPARSE_SIZE = 3 * 2**20 + 5


@cache
def large() -> SnapshotReader:
    return snapshot_of([*members_of(FILES), hardlink("z/link", "d00/s0/f0000")])


@cache
def sparse() -> SnapshotReader:
    return archive_tar(sparse_tar([(1000, b"abcd" * 128), (2**20, b"x" * 70_000)], SPARSE_SIZE))


def read(reader: SnapshotReader, path: str, start: int = 0, stop: int | None = None) -> bytes:
    located = reader.entry(path.encode())
    return b"".join(reader.read_file(located.page_no, located.index, start, stop))


def sparse_tar(segments: list[tuple[int, bytes]], size: int) -> bytes:
    """A tar with the sparse file ``sparse``, in format 1.0 as GNU tar writes it."""
    entry = Entry(
        path=b"sparse",
        kind=Kind.FILE,
        mode=0o644,
        uid=0,
        gid=0,
        size=size,
        segments=tuple((offset, len(data)) for offset, data in segments),
    )
    rows = [f"{offset}\n{len(data)}\n" for offset, data in segments] + [f"{size}\n0\n"]
    body = f"{len(rows)}\n{''.join(rows)}".encode()
    body += bytes(-len(body) % 512) + b"".join(data for _, data in segments)
    return member_header(entry) + body + bytes(-len(body) % 512) + bytes(1024)


def test_every_file_reads_as_it_was_archived() -> None:
    found = {
        located.entry.path.decode(): b"".join(large().read_file(located.page_no, located.index))
        for located in large().entries()
        if located.entry.kind is Kind.FILE
    }

    assert large().page_count > 1
    assert found == FILES


@examples(60)
@given(
    path=st.sampled_from(["m/chunked", "m/text", "d07/own7", "d00/s0/f0000", "d02/s2/f0002"]),
    start=st.integers(0, 3_100_000),
    length=st.integers(0, 1_000_000),
)
def test_any_range_of_a_file_is_that_slice_of_it(path: str, start: int, length: int) -> None:
    assert read(large(), path, start, start + length) == FILES[path][start : start + length]


@examples(60)
@given(start=st.integers(0, SPARSE_SIZE), length=st.integers(0, SPARSE_SIZE))
def test_holes_of_a_sparse_file_read_as_zeros(start: int, length: int) -> None:
    whole = bytearray(SPARSE_SIZE)
    whole[1000:1512] = b"abcd" * 128
    whole[2**20 : 2**20 + 70_000] = b"x" * 70_000

    assert read(sparse(), "sparse", start, start + length) == whole[start : start + length]


def test_a_hole_of_a_terabyte_comes_in_small_pieces() -> None:
    reader = archive_tar(sparse_tar([], 2**40))
    pieces = reader.read_file(*reader.content(0, 1))

    assert next(pieces) == bytes(HOLE_PIECE_BYTES)
    assert reader.entry(b"sparse").entry.size == 2**40


def test_a_hard_link_reads_its_first_member_in_another_page() -> None:
    link = large().entry(b"z/link")
    first = large().entry(b"d00/s0/f0000")

    assert link.entry.kind is Kind.HARDLINK
    assert link.page_no != first.page_no
    assert large().content(link.page_no, link.index) == (first.page_no, first.index)
    assert read(large(), "z/link") == FILES["d00/s0/f0000"]


@pytest.mark.parametrize("path", ["", "dir", "soft"])
def test_what_has_no_content_cannot_be_read(path: str) -> None:
    reader = snapshot_of([directory("dir"), symlink("soft", "elsewhere")])

    with pytest.raises(InvalidError, match="not a file"):
        read(reader, path)


def test_every_path_is_found_and_its_neighbours_are_not() -> None:
    for path in FILES:
        found = large().find(path.encode())
        assert found is not None
        assert large().page(found[0]).paths[found[1]] == path.encode()
    for missing in (b"a", b"d00/s0/f0000x", b"d00/s0/f000", b"m/", b"zz", b"\xff", b"z/link/x"):
        assert large().find(missing) is None
    with pytest.raises(NotFoundError, match="nowhere"):
        large().entry(b"nowhere")


def test_entries_under_a_directory_are_it_and_what_is_below() -> None:
    reader = snapshot_of([file("a/b/c"), file("a-b"), file("a/z"), file("ab")])

    def under(path: bytes) -> list[bytes]:
        return [located.entry.path for located in reader.entries(path)]

    assert under(b"") == [b"", b"a", b"a/b", b"a/b/c", b"a/z", b"a-b", b"ab"]
    assert under(b"a") == [b"a", b"a/b", b"a/b/c", b"a/z"]
    assert under(b"a-b") == [b"a-b"]
    assert under(b"missing") == []


@examples(30)
@given(
    under=st.sampled_from([b"", b"d05", b"d36/s1", b"m", b"d00/s0/f0000", b"nothing"]),
    data=st.data(),
)
def test_a_listing_continues_after_any_path(under: bytes, data: st.DataObject) -> None:
    whole = [located.entry.path for located in large().entries(under)]
    after = data.draw(
        st.sampled_from(whole or [b""]) | st.binary(max_size=12).filter(lambda b: b"\0" not in b)
    )

    rest = [located.entry.path for located in large().entries(under, after)]

    assert rest == [path for path in whole if order_key(path) > order_key(after)]


def test_located_entries_say_where_they_stand() -> None:
    for located in large().entries(b"m"):
        assert large().page(located.page_no).entry(located.index) == located.entry


def test_caches_of_no_size_change_nothing() -> None:
    limits = ReaderLimits(pack_cache_bytes=0, frame_cache_bytes=0, page_cache_bytes=0)
    reader = SnapshotReader(large()._store, large().digest, limits=limits)

    assert (
        read(reader, "m/chunked", 1_000_000, 2_000_000) == FILES["m/chunked"][1_000_000:2_000_000]
    )


def test_one_file_is_read_without_the_others() -> None:
    store = CountingStore()
    digest = snapshot_of(members_of(FILES), store).digest
    store.fetched.clear()

    read(SnapshotReader(store, digest), "d11/s3/f0048")

    assert len(store.fetched) <= 3  # the root, its page, its pack


def test_a_file_of_many_packs_announces_them_before_it_reads_them() -> None:
    announced: list[Digest] = []

    class Announced(CountingStore):
        def prefetch(self, digests: object) -> None:
            announced.extend(digests)  # type: ignore[arg-type]

    store = Announced()
    reader = snapshot_of(members_of(FILES), store)
    store.fetched.clear()

    read(reader, "m/chunked")

    data_packs = [digest for digest in store.fetched if digest in announced]
    assert len(data_packs) >= 3
    assert announced[: len(data_packs)] == data_packs


def test_a_stat_page_is_there_for_every_page() -> None:
    for number, page in large().pages():
        stat = large().stat_page(number)
        assert stat is not None
        assert len(stat.inodes) == page.entry_count


def test_a_missing_root_is_corrupt_and_named() -> None:
    digest = digest_of(b"no such root")

    with pytest.raises(CorruptError, match=digest):
        SnapshotReader(CountingStore(), digest)


def test_a_missing_pack_is_named_with_the_snapshot() -> None:
    store = CountingStore()
    reader = snapshot_of([file("a", b"x" * 20_000)], store)
    pack = reader.page(0).frame(1).address
    store.lose(pack)

    with pytest.raises(CorruptError, match=f"{pack}.*is missing.*'a' needs"):
        read(reader, "a")


@pytest.mark.fault("T07")
def test_a_frame_that_does_not_match_its_digest_names_pack_and_path() -> None:
    store = CountingStore()
    noise, other_noise = (random.Random(seed).randbytes(20_480) for seed in (1, 2))  # noqa: S311
    reader = snapshot_of([file("some/name", noise)], store)
    ref = reader.page(0).frame(1)
    other = compress_frame(new_compressor(), other_noise)
    assert len(other) == ref.stored_size
    store.false[ref.address] = store.packs[ref.address].replace(reader.stored(ref), other)

    with pytest.raises(CorruptError, match=f"{ref.address}.*some/name"):
        read(SnapshotReader(store, reader.digest), "some/name")


@pytest.mark.fault("T07")
def test_a_pack_that_is_shorter_than_the_manifest_says_is_corrupt() -> None:
    store = CountingStore()
    reader = snapshot_of([file("a", b"x" * 20_000)], store)
    ref = reader.page(0).frame(1)
    store.false[ref.address] = store.packs[ref.address][: ref.offset + ref.stored_size - 1]

    with pytest.raises(CorruptError, match=f"{ref.address} is shorter"):
        read(SnapshotReader(store, reader.digest), "a")


@pytest.mark.fault("T07")
def test_a_hard_link_to_what_is_no_file_is_corrupt() -> None:
    reader = poisoned(
        [entry(b"", Kind.DIRECTORY), entry(b"d", Kind.DIRECTORY)],
        [entry(b"link", Kind.HARDLINK, target=b"d")],
    )

    with pytest.raises(CorruptError, match="not a file of this snapshot"):
        read(reader, "link")


@pytest.mark.fault("T07")
def test_a_page_that_its_root_does_not_tell_of_is_corrupt() -> None:
    reader = poisoned(
        [entry(b"", Kind.DIRECTORY)], [entry(b"b", Kind.SYMLINK, target=b"x")], swap=True
    )

    with pytest.raises(CorruptError):
        reader.page(1)


def entry(path: bytes, kind: Kind, target: bytes = b"") -> Entry:
    return Entry(path=path, kind=kind, mode=0o755, uid=0, gid=0, target=target)


def poisoned(*pages: list[Entry], swap: bool = False) -> SnapshotReader:
    """A snapshot of these pages, made by hand; with ``swap`` all are the first page."""
    store = CountingStore()

    def stored(raw: bytes) -> FrameRef:
        data = compress_frame(new_compressor(), raw)
        digest = digest_of(data)
        store.put(digest, data)
        return FrameRef(
            digest=bytes.fromhex(digest_of(raw)),
            raw_size=len(raw),
            pack=bytes.fromhex(digest),
            offset=0,
            stored_size=len(data),
        )

    rows = []
    first: FrameRef | None = None
    for entries in pages:
        headers = [member_header(item) for item in entries]
        page = new_page(entries, [len(header) for header in headers], [stored(b"".join(headers))])
        encoded = stored(encode_page(page))
        first = first or encoded
        rows.append(
            page_row(
                page,
                page_frames=(first if swap else encoded,),
                stat_frames=(),
                fingerprint=NEVER_EQUAL,
            )
        )
    blobs = split_root(root_of(rows))
    for digest, blob in blobs:
        store.put(digest, blob)
    return SnapshotReader(store, blobs[-1][0])


@pytest.mark.fault("T07")
def test_a_page_that_claims_to_be_huge_is_not_read() -> None:
    honest = poisoned([entry(b"", Kind.DIRECTORY)])
    (ref,) = honest.root.page_frames(0)
    claims = [
        msgspec.structs.replace(
            ref, digest=bytes([number]) * 32, raw_size=MAX_FRAME_BYTES, stored_size=100_000
        )
        for number in range(MAX_PAGE_BYTES // MAX_FRAME_BYTES + 1)
    ]
    row = msgspec.structs.replace(honest.root.row(0), page_frames=tuple(claims))
    store = CountingStore()
    for digest, blob in split_root(root_of([row])):
        store.put(digest, blob)
    reader = SnapshotReader(store, digest_of(blob))
    store.fetched.clear()

    with pytest.raises(CorruptError, match="larger than a page"):
        reader.page(0)

    assert store.fetched == []


def test_a_snapshot_without_stat_pages_says_so() -> None:
    reader = poisoned([entry(b"", Kind.DIRECTORY)])

    assert reader.stat_page(0) is None
    reader.prefetch_page(1)  # there is none: nothing happens


def test_tars_made_here_are_what_they_should_be() -> None:
    assert tar_of([file("a")])[:1] == b"a"


def test_bytes_that_somebody_has_put_again_are_read_though_a_part_alone_was_met() -> None:
    """As on a replica that is behind: it has the partial pack yet."""

    class Behind(CountingStore):
        def get_latest(self, digest: Digest) -> Pack:
            self.partial.pop(digest, None)
            return self.get(digest)

    store = Behind()
    digest = snapshot_of([file(f"f{n}", b"%d" % n * 20_000) for n in range(9)], store).digest
    for pack in {digest, *store.packs}:
        store.partial[pack] = PartialBytes(*reduced(store.packs[pack], None, ((0, 1),)))

    reader = SnapshotReader(store, digest)

    assert [b"".join(reader.read_file(*reader.find(b"f%d" % n) or (0, 0))) for n in range(9)] == [
        b"%d" % n * 20_000 for n in range(9)
    ]
