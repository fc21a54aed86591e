"""The tree of a tar: order, parents, duplicates, links, and the way there and back."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.archive.memory import MemoryPackStore
from tests.archive.tars import (
    LONG_AGO,
    Member,
    archive_tar,
    directory,
    file,
    hardlink,
    large_tree,
    members_of,
    snapshot_of,
    special,
    symlink,
    tar_of,
)
from tests.examples import examples

from holdfast.archive.create.create import create_archive
from holdfast.archive.create.source import DirectorySource
from holdfast.archive.ports import Cancelled, Progress, Scanned
from holdfast.archive.read.export import ExportPlan
from holdfast.archive.read.snapshot import SnapshotReader
from holdfast.archive.tar.source import TarLimits, TarSource
from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError, TooLargeError, UnavailableError
from holdfast.form.entries import Kind, order_key
from holdfast.form.terms import EntryWarning

if TYPE_CHECKING:
    from pathlib import Path


def scan(tmp_path: Path, *members: Member) -> tuple[list[Scanned], list[EntryWarning]]:
    warnings: list[EntryWarning] = []
    source = TarSource(io.BytesIO(tar_of(members)), tmp_path)
    try:
        return list(source.scan(warnings.append)), warnings
    finally:
        source.close()


def paths(reader: SnapshotReader) -> list[bytes]:
    return [located.entry.path for located in reader.entries()]


def content(reader: SnapshotReader, path: bytes) -> bytes:
    located = reader.entry(path)
    return b"".join(reader.read_file(located.page_no, located.index))


def test_members_come_in_path_order_whatever_order_the_tar_has(tmp_path: Path) -> None:
    found, _ = scan(tmp_path, file("z"), file("a-b"), file("a/c"), directory("a"), directory("."))

    assert [entry.path for entry in found] == [b"", b"a", b"a/c", b"a-b", b"z"]


@pytest.mark.parametrize("name", ["./a/b", "a//b", "a/./b", "././a/b"])
def test_names_are_taken_in_their_shortest_form(tmp_path: Path, name: str) -> None:
    found, _ = scan(tmp_path, file(name))

    assert [entry.path for entry in found] == [b"", b"a", b"a/b"]


def test_directories_that_are_left_out_are_the_first_entrys(tmp_path: Path) -> None:
    found, _ = scan(tmp_path, file("a/b/z", uid=9), file("a/b/c", uid=7, gid=8, mode=0o600))

    root, a, b, *_ = found
    assert [(entry.kind, entry.mode, entry.uid, entry.gid) for entry in (root, a, b)] == [
        (Kind.DIRECTORY, 0o755, 7, 8)
    ] * 3
    assert b.mtime_ns == LONG_AGO * 10**9


def test_an_empty_tar_is_an_empty_directory(tmp_path: Path) -> None:
    found, _ = scan(tmp_path)

    assert [(entry.path, entry.kind) for entry in found] == [(b"", Kind.DIRECTORY)]


def test_the_last_of_several_members_with_one_name_counts() -> None:
    reader = snapshot_of([file("a", b"old"), file("b", b"other"), file("./a", b"new")])

    assert paths(reader) == [b"", b"a", b"b"]
    assert content(reader, b"a") == b"new"


def test_a_hard_link_is_to_what_its_target_was_then() -> None:
    reader = snapshot_of([file("a", b"old"), hardlink("z", "a"), file("a", b"new")])

    assert (content(reader, b"a"), content(reader, b"z")) == (b"new", b"old")


def test_the_first_name_in_path_order_is_the_file_and_others_are_links(tmp_path: Path) -> None:
    found, _ = scan(tmp_path, file("z", b"data"), hardlink("m", "z"), hardlink("a", "m"))

    by_path = {entry.path: (entry.kind, entry.link) for entry in found}
    assert by_path[b"a"] == (Kind.FILE, b"")
    assert by_path[b"m"] == by_path[b"z"] == (Kind.HARDLINK, b"a")


def test_a_hard_link_to_a_symlink_is_that_symlink(tmp_path: Path) -> None:
    found, warnings = scan(tmp_path, symlink("a", "anywhere"), hardlink("b", "a"))

    assert [entry.kind for entry in found] == [Kind.DIRECTORY, Kind.SYMLINK, Kind.SYMLINK]
    assert [(w.kind, w.path) for w in warnings] == [("link", b"b")]


@pytest.mark.fault("T02")
@pytest.mark.parametrize("type_", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_skipped_with_a_warning(tmp_path: Path, type_: bytes) -> None:
    found, warnings = scan(tmp_path, special("dev", type_), hardlink("dev2", "dev"), file("a"))

    assert [entry.path for entry in found] == [b"", b"a"]
    assert [(w.kind, w.path) for w in warnings] == [("skipped", b"dev"), ("skipped", b"dev2")]


@pytest.mark.fault("T02")
def test_special_bits_and_large_owners_are_kept(tmp_path: Path) -> None:
    found, _ = scan(tmp_path, file("a", mode=0o106755, uid=2**32 - 2, gid=3_000_000))

    assert (found[1].mode, found[1].uid, found[1].gid) == (0o6755, 2**32 - 2, 3_000_000)


@pytest.mark.parametrize(
    ("mtime", "expected"),
    [
        (1.5, 1_500_000_000),
        (-1.25, -1_250_000_000),
        (0, 0),
        (2**40, 2**63 - 1),
        (-(2**40), -(2**63) + 1),
    ],
)
def test_times_have_fractions_and_are_bounded(tmp_path: Path, mtime: float, expected: int) -> None:
    found, _ = scan(tmp_path, file("a", mtime=mtime))

    assert found[1].mtime_ns == expected


def test_extended_attributes_may_hold_any_bytes() -> None:
    value = bytes(range(256)).decode(errors="surrogateescape")
    headers = {"SCHILY.xattr.user.z": "=\n \0", "SCHILY.xattr.user.a": value}
    reader = snapshot_of([file("a", pax_headers=headers)])

    assert reader.entry(b"a").entry.xattrs == (
        (b"user.a", bytes(range(256))),
        (b"user.z", b"=\n \0"),
    )


@examples(30)
@given(st.lists(st.text("a%=3D25", min_size=1, max_size=6), unique=True, max_size=4))
@example(["%3D", "=", "%", "%25", "%253D"])
def test_attribute_names_survive_an_export(names: list[str]) -> None:
    escaped = [name.replace("%", "%25").replace("=", "%3D") for name in names]
    headers = {f"SCHILY.xattr.user.{name}": "v" for name in escaped}
    reader = snapshot_of([file("a", pax_headers=headers)])

    again = archive_tar(b"".join(ExportPlan(reader).read()))

    expected = sorted([(b"user." + name.encode(), b"v") for name in names])
    assert list(reader.entry(b"a").entry.xattrs) == expected
    assert again.digest == reader.digest


def test_access_control_lists_as_text_are_warned_of(tmp_path: Path) -> None:
    acl = {"SCHILY.acl.access": "user::rwx", "SCHILY.acl.default": "user::rwx"}
    known = {"SCHILY.acl.access": "user::rwx", "SCHILY.xattr.system.posix_acl_access": "\2"}

    _, warnings = scan(
        tmp_path, directory("d", pax_headers=acl), file("e", pax_headers=known), hardlink("f", "e")
    )

    assert [(w.kind, w.path, w.detail) for w in warnings] == [
        ("attribute", b"d", "SCHILY.acl.access is left out"),
        ("attribute", b"d", "SCHILY.acl.default is left out"),
    ]


@examples(25)
@given(offset=st.integers(0, 70_000), length=st.integers(0, 70_000), size=st.integers(0, 60_000))
def test_a_reader_gives_any_range_and_zeros_behind_the_end(
    offset: int, length: int, size: int
) -> None:
    data = os.urandom(size)
    source = TarSource(io.BytesIO(tar_of([file("a", data)])), "/tmp")  # noqa: S108
    _, scanned = source.scan(lambda _: None)
    reader = source.open(scanned, size, lambda _: None)
    assert reader is not None

    buffer = bytearray(b"?" * length)
    reader.read_into(memoryview(buffer), offset)

    assert buffer == (data[offset : offset + length] + bytes(length))[:length]
    assert reader.close()
    source.close()


def test_an_exported_snapshot_comes_back_as_the_same_frames() -> None:
    files = large_tree()
    links = [hardlink("z/link", "d00/s0/f0000"), symlink("z/soft", "../m/text")]
    first = snapshot_of([*members_of(files), *links, directory("d00/é", mode=0o1777)])

    second = archive_tar(b"".join(ExportPlan(first).read()))

    assert second.digest == first.digest


def nasty_tree(root: Path) -> None:
    (root / "plain").write_bytes(b"x" * 100_000)
    (root / os.fsdecode(b"not-utf8-\xff\xfe")).write_bytes(b"odd")
    (root / ("long-" * 45)).mkdir()
    (root / ("long-" * 45) / ("name-" * 45)).write_bytes(b"deep")
    (root / "soft").symlink_to("/absolute/" + "target/" * 30)
    (root / "hard").hardlink_to(root / "plain")
    with (root / "holes").open("wb") as sparse:
        sparse.seek(1 << 22)
        sparse.write(b"middle")
        sparse.truncate(1 << 24)
    with (root / "hollow").open("wb") as sparse:
        sparse.truncate(1 << 30)
    (root / "empty").touch()
    (root / "dir").mkdir(mode=0o1777)
    os.utime(root / "empty", ns=(0, -1_500_000_001))
    os.utime(root / "plain", ns=(0, 1_234_567_890_123_456_789))


def test_a_directory_exported_and_imported_is_the_same_but_for_fractions_of_seconds(
    tmp_path: Path,
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    nasty_tree(tree)
    store = MemoryPackStore()
    source = DirectorySource(tree)
    made = create_archive(source, store, parent=None, started_at_ns=0, threads=1)
    source.close()
    first = SnapshotReader(store, made.root)

    second = archive_tar(b"".join(ExportPlan(first).read()))

    assert [page.frames.digests for _, page in second.pages()] == [
        page.frames.digests for _, page in first.pages()
    ]
    for one, other in zip(first.entries(), second.entries(), strict=True):
        assert other.entry.mtime_ns == one.entry.mtime_ns // 10**9 * 10**9
        assert (other.entry.path, other.entry.kind, other.entry.segments, other.entry.target) == (
            one.entry.path,
            one.entry.kind,
            one.entry.segments,
            one.entry.target,
        )


@pytest.mark.parametrize("format_", ["v7", "ustar", "oldgnu", "gnu", "pax"])
@pytest.mark.parametrize("packing", [None, "gzip", "zstd", "xz", "bzip2"])
def test_what_gnu_tar_makes_is_read(tmp_path: Path, format_: str, packing: str | None) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "f").write_bytes(b"hello" * 1000)
    (tree / "d" / "g").hardlink_to(tree / "d" / "f")
    (tree / "s").symlink_to("d/f")
    packed = [f"--{packing}"] if packing else []
    tar = subprocess.run(
        ["tar", f"--format={format_}", *packed, "-c", "."],
        cwd=tree,
        check=True,
        capture_output=True,
    ).stdout

    reader = archive_tar(tar)

    assert paths(reader) == [b"", b"d", b"d/f", b"d/g", b"s"]
    assert content(reader, b"d/g") == b"hello" * 1000
    assert reader.entry(b"s").entry.target == b"d/f"


@pytest.mark.parametrize("format_", ["oldgnu", "gnu", "pax"])
def test_long_names_and_targets_of_gnu_tar_are_read(tmp_path: Path, format_: str) -> None:
    tree = tmp_path / "tree"
    deep = tree / ("a" * 200) / ("b" * 200)
    deep.mkdir(parents=True)
    (deep / ("c" * 200)).write_bytes(b"deep")
    (tree / "s").symlink_to("t" * 300)
    tar = subprocess.run(
        ["tar", f"--format={format_}", "-c", "."], cwd=tree, check=True, capture_output=True
    ).stdout

    reader = archive_tar(tar)

    assert content(reader, b"/".join(letter * 200 for letter in (b"a", b"b", b"c"))) == b"deep"
    assert reader.entry(b"s").entry.target == b"t" * 300


@pytest.mark.parametrize(
    "options",
    [
        ["--format=oldgnu"],
        ["--format=gnu"],
        ["--format=pax", "--sparse-version=0.0"],
        ["--format=pax", "--sparse-version=0.1"],
        ["--format=pax", "--sparse-version=1.0"],
    ],
)
@pytest.mark.parametrize("pieces", [0, 1, 3, 60])
def test_sparse_files_of_gnu_tar_are_read(tmp_path: Path, options: list[str], pieces: int) -> None:
    size = 1 << 23
    expected = bytearray(size)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(size)
        for number in range(pieces):
            sparse.seek(number * (size // 64) + 4096)
            sparse.write(b"piece %d" % number)
            expected[sparse.tell() - len(b"piece %d" % number) : sparse.tell()] = (
                b"piece %d" % number
            )
    tar = subprocess.run(
        ["tar", *options, "--sparse", "-c", "sparse"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    ).stdout

    reader = archive_tar(tar)

    assert len(tar) < size // 4
    assert content(reader, b"sparse") == expected
    segments = reader.entry(b"sparse").entry.segments
    assert segments is not None
    assert sum(length for _, length in segments) < size // 4


@pytest.mark.parametrize("format_", ["gnu", "pax"])
def test_a_sparse_file_beyond_what_octal_can_say_is_read(tmp_path: Path, format_: str) -> None:
    size = 20 << 30
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(size)
        sparse.seek(size - 5000)
        sparse.write(b"near the end")
    tar = subprocess.run(
        ["tar", f"--format={format_}", "--sparse", "-c", "sparse"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    ).stdout

    reader = archive_tar(tar)

    found = reader.entry(b"sparse")
    assert found.entry.size == size
    piece = reader.read_file(found.page_no, found.index, size - 5000, size - 4988)
    assert b"".join(piece) == b"near the end"


def test_a_global_header_counts_for_all_that_follow(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x", "uid": "77"}
    ) as tar:
        for name in ("a", "b"):
            tar.addfile(file(name)[0])
    source = TarSource(io.BytesIO(out.getvalue()), tmp_path)

    _, *found = source.scan(lambda _: None)

    assert [entry.uid for entry in found] == [77, 77]
    source.close()


def test_a_pipe_that_cannot_be_rewound_is_enough(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    tar = tar_of([file("a", b"x" * 500_000)])

    def write() -> None:
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(tar)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(readable, "rb", buffering=0) as pipe:
        source = TarSource(pipe, tmp_path)
    writer.join()

    assert [entry.size for entry in source.scan(lambda _: None)] == [0, 500_000]
    source.close()


def test_nothing_is_left_in_the_directory_for_temporary_files(tmp_path: Path) -> None:
    source = TarSource(io.BytesIO(tar_of([file("a", b"1")])), tmp_path)

    assert list(tmp_path.iterdir()) == []
    source.close()
    source.close()
    with pytest.raises(InvalidError):
        TarSource(io.BytesIO(b"nonsense" * 100), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_unavailable() -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    from holdfast.archive.tar.source import _write

    with pytest.raises(UnavailableError, match="no room"):
        _write(Full(), b"data")


def test_it_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    told: list[Progress] = []
    tar = tar_of([file("a", bytes(5_000_000))])

    with pytest.raises(Cancelled):
        TarSource(io.BytesIO(tar), tmp_path, progress=told.append, stop=lambda: len(told) == 2)

    assert len(told) == 2
    assert told[1].bytes < len(tar)
    whole = len(tar) // MIB + 1
    with pytest.raises(Cancelled):
        TarSource(
            io.BytesIO(tar), tmp_path, progress=told.append, stop=lambda: len(told) - 2 > whole
        )
    assert told[-1].bytes == len(tar)


@pytest.mark.parametrize(("limit", "fits"), [(4, True), (3, False)])
def test_entries_are_limited_with_the_directories_that_were_left_out(
    tmp_path: Path, limit: int, *, fits: bool
) -> None:
    tar = io.BytesIO(tar_of([file("a/b/c")]))

    if fits:
        TarSource(tar, tmp_path, limits=TarLimits(entries=limit)).close()
    else:
        with pytest.raises(TooLargeError, match="more than 3 entries"):
            TarSource(tar, tmp_path, limits=TarLimits(entries=limit))


def test_order_is_the_archives(tmp_path: Path) -> None:
    found, _ = scan(tmp_path, *members_of({f"{c}x/{c}": b"" for c in "a-.b ~é"}))

    assert [entry.path for entry in found] == sorted((entry.path for entry in found), key=order_key)
