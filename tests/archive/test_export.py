"""The exported ``.tar.zst``: what other tools read in it, and that any range is the same bytes."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
from functools import cache
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.archive.tars import (
    CountingStore,
    file,
    hardlink,
    large_tree,
    members_of,
    snapshot_of,
    symlink,
)
from tests.examples import examples
from tests.programs import needs_zstd

from holdfast.archive.read import export
from holdfast.archive.read.export import ExportPlan
from holdfast.archive.read.snapshot import ReaderLimits, SnapshotReader
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from pathlib import Path

FILES = large_tree()


@cache
def plan() -> ExportPlan:
    return ExportPlan(large())


@cache
def large() -> SnapshotReader:
    return snapshot_of(
        [*members_of(FILES), hardlink("z/link", "d00/s0/f0000"), symlink("z/soft", "/etc/nothing")]
    )


@cache
def whole() -> bytes:
    return b"".join(plan().read())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "app.tar.zst"
    path.write_bytes(whole())
    return path


def test_the_size_is_known_before_anything_is_read() -> None:
    store = CountingStore()
    digest = snapshot_of(members_of(FILES), store).digest
    reader = SnapshotReader(store, digest)
    store.fetched.clear()

    size = ExportPlan(reader).size

    assert store.fetched == []
    assert size == len(b"".join(ExportPlan(reader).read()))


@needs_zstd
def test_zstd_and_tar_take_it_for_a_sound_archive(exported: Path, tmp_path: Path) -> None:
    subprocess.run(["zstd", "-tq", exported], check=True)
    subprocess.run(["tar", "--zstd", "-xf", exported, "-C", tmp_path], check=True)

    found = {
        str(path.relative_to(tmp_path)): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert found == {**FILES, "z/link": FILES["d00/s0/f0000"]}
    assert (tmp_path / "z/soft").readlink().as_posix() == "/etc/nothing"
    assert (tmp_path / "z/link").stat().st_nlink == 2


def test_python_reads_it(exported: Path) -> None:
    with exported.open("rb") as packed:
        reader = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
        with tarfile.open(fileobj=io.BytesIO(reader.read())) as tar:
            names = {info.name for info in tar if info.isreg()}

    assert names == set(FILES)


@examples(60)
@given(data=st.data())
def test_any_range_is_that_slice_of_the_whole(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, plan().size))
    stop = data.draw(st.integers(0, plan().size))

    assert b"".join(plan().read(start, stop)) == whole()[start:stop]


@pytest.mark.parametrize("window", [100_003, 1 << 20])
def test_windows_one_after_the_other_are_the_whole(window: int) -> None:
    pieces = [
        b"".join(ExportPlan(large()).read(start, start + window))
        for start in range(0, plan().size, window)
    ]

    assert b"".join(pieces) == whole()
    assert {len(piece) for piece in pieces[:-1]} == {window}


@examples(60)
@given(data=st.data())
def test_any_range_of_the_end_is_too(data: st.DataObject) -> None:
    first = plan().size - 8 * (large().root.frames + 1) - 60
    start = data.draw(st.integers(first, plan().size))
    stop = data.draw(st.integers(start, plan().size + 10))

    assert b"".join(plan().read(start, stop)) == whole()[start:stop]


@pytest.mark.parametrize("bounds", [(0, None), (1, 300_001)])
def test_pieces_in_parts_are_the_same_pieces(bounds: tuple[int, int | None]) -> None:
    pieces = [bytes(piece) for piece in plan().read(*bounds)]

    assert [b"".join(parts) for parts in plan().parts(*bounds)] == pieces


@pytest.mark.parametrize("bounds", [(-5, 3), (0, 10**15), (10**15, None), (7, 3)])
def test_a_range_is_clipped_to_the_file(bounds: tuple[int, int | None]) -> None:
    start, stop = bounds

    got = b"".join(plan().read(start, stop))

    assert got == whole()[max(start, 0) : stop]


def test_the_seek_table_finds_every_frame() -> None:
    *_, (frames, flags, magic) = [struct.unpack("<IBI", whole()[-9:])]
    table = whole()[-9 - 8 * frames : -9]
    header = struct.unpack("<II", whole()[-17 - 8 * frames : -9 - 8 * frames])

    assert (magic, flags) == (0x8F92EAB1, 0)
    assert header == (0x184D2A5E, 8 * frames + 9)
    assert frames == large().root.frames + 1
    position = 0
    raw = []
    for stored_size, raw_size in struct.iter_unpack("<II", table):
        piece = zstandard.decompress(whole()[position : position + stored_size])
        assert len(piece) == raw_size
        raw.append(piece)
        position += stored_size
    assert position == plan().size - len(table) - 17
    assert b"".join(raw)[-1024:] == bytes(1024)
    assert sum(map(len, raw)) == large().root.raw_bytes + 1024


def test_the_same_files_export_as_the_same_bytes_from_another_store() -> None:
    one, other = (
        ExportPlan(snapshot_of(members_of({"a": b"1", "b": bytes(600_000)}))) for _ in range(2)
    )

    assert b"".join(one.read()) == b"".join(other.read())


def test_frames_that_lie_in_old_packs_come_in_the_order_of_the_archive() -> None:
    # Two files with one content: the second file's frame is the first one's, further back.
    noise = FILES["m/chunked"][:20_000]
    reader = snapshot_of([file("a", noise), file("b", b"between"), file("c", noise)])

    packed = b"".join(ExportPlan(reader).read())

    unpacked = (
        zstandard.ZstdDecompressor()
        .stream_reader(io.BytesIO(packed), read_across_frames=True)
        .read()
    )
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
        found = tar.extractfile("c")
        assert found is not None
        assert found.read() == noise


def test_packs_are_announced_in_the_order_they_are_needed() -> None:
    announced: list[str] = []

    class Announced(CountingStore):
        def prefetch(self, digests: object) -> None:
            announced.extend(digests)  # type: ignore[arg-type]

    store = Announced()
    digest = snapshot_of(members_of(FILES), store).digest
    reader = SnapshotReader(store, digest)
    store.fetched.clear()

    b"".join(ExportPlan(reader).read())

    unexpected = [pack for pack in store.fetched if pack not in announced]
    assert len(unexpected) == 1  # that of the first page, which tells all the others
    assert len(store.fetched) > 4


def test_no_more_packs_are_announced_at_once_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One large file may have millions, and is one page."""
    monkeypatch.setattr(export, "_MOST_AHEAD", 2)
    monkeypatch.setattr(export, "_STEP_PACKS", 1)
    announced: list[list[str]] = []

    class Announced(CountingStore):
        def prefetch(self, digests: object) -> None:
            announced.append([*digests])  # type: ignore[misc]

    store = Announced()
    digest = snapshot_of(members_of(FILES), store).digest
    reader = SnapshotReader(store, digest)
    store.fetched.clear()

    b"".join(ExportPlan(reader).read())

    assert max(map(len, announced)) == 2
    first, *others = store.fetched  # the first page tells all the others
    assert {*others} <= {pack for packs in announced for pack in packs}
    assert first not in others


def test_packs_that_are_at_hand_are_not_announced() -> None:
    announced: list[object] = []

    class Announced(CountingStore):
        def prefetch(self, digests: object) -> None:
            announced.append(digests)

    store = Announced()
    digest = snapshot_of(members_of(FILES), store).digest
    reader = SnapshotReader(store, digest, limits=ReaderLimits(pack_cache_bytes=2**30))
    b"".join(ExportPlan(reader).read())
    announced.clear()

    b"".join(ExportPlan(reader).read())

    assert announced == []


def test_a_damaged_pack_ends_it_with_its_name() -> None:
    store = CountingStore()
    reader = snapshot_of(members_of(FILES), store)
    pack = reader.page(1).frame(5).address
    store.lose(pack)
    fresh = ExportPlan(SnapshotReader(store, reader.digest))

    with pytest.raises(CorruptError, match=pack):
        b"".join(fresh.read())
