"""Tars that somebody made to do harm: each is refused with one of two errors, or is harmless."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.archive.tars import Member, directory, file, hardlink, symlink, tar_of
from tests.examples import examples

from holdfast.archive.tar.members import MAX_EXTENDED_BYTES, MAX_EXTENDED_HEADERS
from holdfast.archive.tar.source import TarLimits, TarSource
from holdfast.domain.limits import MIB
from holdfast.errors import InvalidError, TooLargeError
from holdfast.form.entries import Kind

if TYPE_CHECKING:
    from pathlib import Path

END = bytes(1024)


def take(tar: bytes, limits: TarLimits | None = None) -> list[bytes]:
    """The paths of ``tar``, all of it read."""
    source = TarSource(io.BytesIO(tar), "/tmp", limits=limits or TarLimits())  # noqa: S108
    try:
        found = []
        for scanned in source.scan(lambda _: None):
            found.append(scanned.path)
            source.describe(scanned, 16_384, lambda _: None)
            if scanned.size and (reader := source.open(scanned, scanned.size, lambda _: None)):
                reader.read_into(memoryview(bytearray(100)), max(scanned.size - 100, 0))
        return found
    finally:
        source.close()


def header(name: bytes, type_: bytes, size: bytes | int = 0, **fields: bytes) -> bytes:
    """A header block with exactly these fields and the right checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = fields.get("mode", b"0000644\0")
    block[108:116] = fields.get("uid", b"0000000\0")
    block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size if isinstance(size, int) else size
    block[136:148] = fields.get("mtime", b"00000000000\0")
    block[156:157] = type_
    link = fields.get("link", b"")
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    tail = fields.get("tail", b"")
    block[512 - len(tail) :] = tail
    return with_checksum(block)


def with_checksum(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(*records: tuple[bytes, bytes]) -> bytes:
    body = b""
    for key, value in records:
        record = b" " + key + b"=" + value + b"\n"
        size = len(record) + len(str(len(record)))
        size = len(record) + len(str(size))
        body += b"%d" % size + record
    return header(b"pax", b"x", len(body)) + padded(body)


@pytest.mark.fault("T01")
@pytest.mark.parametrize(
    "members",
    [
        [file("../escape")],
        [file("a/../../escape")],
        [file("a/..")],
        [file("/etc/passwd")],
        [file("//etc/passwd")],
        [hardlink("a", "/etc/passwd")],
        [hardlink("a", "../outside")],
        [hardlink("a", "missing")],
        [hardlink("a", "a")],
        [directory("d"), hardlink("a", "d")],
        [symlink("out", "/etc"), file("out/passwd")],
        [file("out/passwd"), symlink("out", "/etc")],
        [symlink("a", ".."), symlink("b", "a/.."), file("b/x")],
        [file("a"), file("a/b")],
        [symlink(".", "/etc")],
        [symlink("a", "")],
    ],
    ids=lambda members: " ".join(f"{m.name}>{m.linkname}" for m, _ in members),
)
def test_what_would_act_outside_of_the_tree_is_refused(members: list[Member]) -> None:
    with pytest.raises(InvalidError):
        take(tar_of(members))


@pytest.mark.fault("T01")
@pytest.mark.parametrize("path", [b"../x", b"/x", b"a\0b", b"a/../../b", b".."])
def test_names_in_extended_headers_are_no_exception(path: bytes) -> None:
    member = header(b"harmless", b"0")

    for tar in (
        pax((b"path", path)) + member,
        pax((b"GNU.sparse.name", path)) + member,
    ):
        with pytest.raises(InvalidError):
            take(tar + END)


def test_a_symlink_may_point_anywhere_for_it_is_only_text() -> None:
    assert take(tar_of([symlink("a", "/etc/passwd"), symlink("b", "../../x")])) == [b"", b"a", b"b"]


@pytest.mark.fault("T03")
@pytest.mark.parametrize(
    "tar",
    [
        header(b"a", b"0", b"\xff" * 12),
        header(b"a", b"0", b"\x80" + b"\xff" * 11),
        header(b"a", b"0", 10**9),
        header(b"a", b"0", b"-0000000001\0"),
        header(b"a", b"0", b"12_34      \0"),
        pax((b"size", b"-1")) + header(b"a", b"0"),
        pax((b"size", b"1e3")) + header(b"a", b"0"),
        pax((b"size", b"9" * 25)) + header(b"a", b"0"),
        pax((b"size", b"99999999")) + header(b"a", b"0"),
        pax((b"uid", b"-1")) + header(b"a", b"0"),
        pax((b"uid", b"4294967295")) + header(b"a", b"0"),
        pax((b"mtime", b"soon")) + header(b"a", b"0"),
        header(b"a", b"0", uid=b"\xff" * 8),
        header(b"a", b"0", mtime=b"yesterday!!\0"),
        header(b"a", b"M", 0),
        header(b"a", b"Z", 0),
    ],
)
def test_impossible_numbers_and_types_are_refused(tar: bytes) -> None:
    with pytest.raises(InvalidError):
        take(tar + END)


@pytest.mark.fault("T03")
@pytest.mark.parametrize(
    "records",
    [
        [(b"GNU.sparse.map", b"0,10"), (b"GNU.sparse.size", b"5")],
        [(b"GNU.sparse.map", b"0,512,1,2"), (b"GNU.sparse.size", b"5000")],
        [(b"GNU.sparse.map", b"5,512,0,2"), (b"GNU.sparse.size", b"5000")],
        [(b"GNU.sparse.map", b"0,100,200,2"), (b"GNU.sparse.size", b"5000")],
        [(b"GNU.sparse.map", b"0,2,7"), (b"GNU.sparse.size", b"50")],
        [(b"GNU.sparse.map", b"0,x"), (b"GNU.sparse.size", b"50")],
        [(b"GNU.sparse.map", b"-5,2"), (b"GNU.sparse.size", b"50")],
        [(b"GNU.sparse.map", b"0,700"), (b"GNU.sparse.size", b"1000")],
        [(b"GNU.sparse.map", b"0,2")],
        [(b"GNU.sparse.offset", b"0"), (b"GNU.sparse.size", b"9")],
        [(b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")],
        [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"9"),
        ],
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")],
        [(b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.size", b"9" * 19)],
    ],
)
def test_maps_of_sparse_files_that_lie_are_refused(records: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidError):
        take(pax(*records) + header(b"a", b"0", 512) + b"x" * 512 + END)


@pytest.mark.fault("T03")
@pytest.mark.parametrize("count", [b"99999999999", b"70000"])
def test_a_map_of_more_segments_than_a_file_may_have_is_too_large(count: bytes) -> None:
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"9"),
    ]
    data = padded(count + b"\n")

    with pytest.raises(TooLargeError):
        take(pax(*records) + header(b"a", b"0", len(data)) + data + END)


@pytest.mark.fault("T03")
def test_a_number_in_a_map_that_never_ends_is_refused() -> None:
    records = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.realsize", b"9"),
    ]

    with pytest.raises(InvalidError):
        take(pax(*records) + header(b"a", b"0", 8192) + b"1" * 8192 + END)


@pytest.mark.fault("T03")
def test_an_old_map_that_never_ends_is_too_large() -> None:
    pairs = b"".join(b"%011o\0%011o\0" % (number * 10, 1) for number in range(4))
    first = bytearray(header(b"a", b"S", 0))
    first[386 : 386 + 96] = pairs
    first[482] = 1
    more = bytearray(512)
    more[:504] = b"%011o\0%011o\0" % (10, 1) * 21
    more[504] = 1

    with pytest.raises(TooLargeError):
        take(with_checksum(first) + bytes(more) * 4000 + END)


@pytest.mark.fault("T03")
@pytest.mark.parametrize("number", [b"0000000x000\0", b"\xff" * 12])
def test_an_old_map_without_numbers_is_refused(number: bytes) -> None:
    block = bytearray(header(b"a", b"S", 0))
    block[386:398] = number
    block[398:410] = b"00000000001\0"

    with pytest.raises(InvalidError):
        take(with_checksum(block) + END)


@pytest.mark.fault("T04")
@pytest.mark.parametrize(
    "name",
    ["n" * 256, "d/" * 2100 + "f", "x" * 10_000],
    ids=["a long name", "a long path", "very long"],
)
def test_names_and_paths_are_limited(name: str) -> None:
    with pytest.raises(TooLargeError):
        take(tar_of([file(name)]))


@pytest.mark.fault("T04")
def test_the_longest_names_are_taken() -> None:
    assert take(tar_of([file("n" * 255)])) == [b"", b"n" * 255]
    assert len(take(tar_of([file("d/" * 2047 + "ff")]))) == 2049


@pytest.mark.fault("T04")
def test_many_tiny_entries_end_at_the_limit() -> None:
    tar = b"".join(header(b"%d" % number, b"0") for number in range(2000)) + END

    assert len(take(tar, TarLimits(entries=2001))) == 2001
    with pytest.raises(TooLargeError, match="more than 1999 entries"):
        take(tar, TarLimits(entries=1999))


@pytest.mark.fault("T04")
@pytest.mark.parametrize("type_", [b"x", b"g", b"L", b"K"])
def test_extended_headers_are_limited_in_size_and_number(type_: bytes) -> None:
    member = header(b"a", b"0") + END
    large = header(b"x", type_, MAX_EXTENDED_BYTES + 1) + bytes(MAX_EXTENDED_BYTES + 512)
    body = b"0" if type_ in {b"L", b"K"} else b"8 ab=cd\n"
    one = header(b"x", type_, len(body)) + padded(body)

    with pytest.raises(TooLargeError):
        take(large + member)
    with pytest.raises(TooLargeError):
        take(one * (MAX_EXTENDED_HEADERS + 1) + member)
    assert len(take(one * MAX_EXTENDED_HEADERS + member)) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"5 a=",
        b"999 a=b\n",
        b"0 a=b\n",
        b"6 abcd\n",
        b"5 =b\n",
        b"6 a=b\nx",
        b"-6 a=b\n",
    ],
)
def test_damaged_extended_headers_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidError):
        take(header(b"x", b"x", len(body)) + padded(body) + header(b"a", b"0") + END)


def test_too_many_or_too_large_attributes_are_refused() -> None:
    many = [(b"SCHILY.xattr.user.%d" % number, b"") for number in range(257)]
    large = [(b"SCHILY.xattr.user.a", b"x" * 300_000)]

    for records in (many, large, [(b"SCHILY.xattr.user." + b"n" * 255, b"")]):
        with pytest.raises(TooLargeError):
            take(pax(*records) + header(b"a", b"0") + END)


TAR = tar_of(
    [directory("d"), file("d/a", b"data" * 300), symlink("s", "d/a"), hardlink("h", "d/a")]
)


@pytest.mark.fault("T05")
def test_a_tar_that_is_cut_off_anywhere_is_refused() -> None:
    end = TAR.rstrip(b"\0")
    last_block = -(-len(end) // 512) * 512
    for length in range(0, last_block + 512, 64):
        with pytest.raises(InvalidError):
            take(TAR[:length])
    assert len(take(TAR[: last_block + 512])) == 5


@pytest.mark.parametrize("junk", [b"", b"x", b"{}\n" * 170, b"hello world " * 300, b"PK\3\4" * 200])
def test_what_is_no_tar_is_said_to_be_none(junk: bytes) -> None:
    with pytest.raises(InvalidError, match="not a tar"):
        take(junk)
    with pytest.raises(InvalidError, match="not a tar"):
        take(gzip.compress(junk))


@pytest.mark.parametrize("name", [b"all ascii", b"h\xf6her", b"\xff" * 9])
def test_header_sums_of_signed_bytes_are_right_too(name: bytes) -> None:
    tar = bytearray(tar_of([file("x" * len(name), b"1")]))
    tar[: len(name)] = name
    signed = sum(byte - 256 * (byte > 127) for byte in tar[:148] + tar[156:512]) + 8 * 32
    tar[148:156] = b"%06o\0 " % signed

    assert take(bytes(tar)) == [b"", name]

    tar[148:156] = b"%06o\0 " % (signed + 1)
    with pytest.raises(InvalidError, match="not a tar"):
        take(bytes(tar))


@pytest.mark.parametrize(
    "tail",
    [b"garbage", bytes(512) + tar_of([file("more")]), bytes(3 * MIB) + b"!"],
    ids=["garbage", "another tar", "far behind"],
)
def test_what_follows_the_end_is_not_silently_lost(tail: bytes) -> None:
    with pytest.raises(InvalidError, match="end-of-archive"):
        take(TAR + tail)


def test_a_header_in_the_middle_that_is_damaged_does_not_end_the_archive() -> None:
    tar = bytearray(TAR)
    tar[512 + 5] ^= 1

    with pytest.raises(InvalidError, match="no header at byte 512"):
        take(bytes(tar))


def test_an_extended_header_before_the_end_is_refused() -> None:
    with pytest.raises(InvalidError, match="after an extended header"):
        take(pax((b"path", b"lost")) + END)


PACKED = {
    "zstd": zstandard.compress(TAR),
    "zstd with checksum": zstandard.ZstdCompressor(write_checksum=True).compress(TAR),
    "gzip": gzip.compress(TAR, mtime=0),
    "xz": lzma.compress(TAR),
    "bzip2": bz2.compress(TAR),
}


@pytest.mark.fault("T05")
@pytest.mark.parametrize("packing", PACKED)
def test_compressed_input_that_is_cut_off_or_goes_on_is_refused(packing: str) -> None:
    packed = PACKED[packing]

    assert len(take(packed)) == 5
    for length in range(len(packed) // 2):
        with pytest.raises(InvalidError):
            take(packed[:length])
    with pytest.raises(InvalidError):
        take(packed + b"garbage behind it")


@pytest.mark.fault("T05")
@pytest.mark.parametrize("packing", PACKED)
@examples(60)
@given(data=st.data())
def test_compressed_input_with_other_bytes_is_refused_or_harmless(
    packing: str, data: st.DataObject
) -> None:
    packed = bytearray(PACKED[packing])
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))

    with suppress(InvalidError, TooLargeError):
        take(bytes(packed))


@pytest.mark.fault("T05")
def test_several_frames_and_skippable_ones_are_one_archive() -> None:
    half = len(TAR) // 2
    skippable = b"\x5e\x2a\x4d\x18\x05\0\0\0hello"
    frames = [skippable, zstandard.compress(TAR[:half]), skippable, zstandard.compress(TAR[half:])]

    assert len(take(b"".join([*frames, skippable]))) == 5
    assert len(take(gzip.compress(TAR[:half]) + gzip.compress(TAR[half:]))) == 5
    assert len(take(lzma.compress(TAR[:half]) + bytes(4) + lzma.compress(TAR[half:]))) == 5
    assert len(take(bz2.compress(TAR[:half]) + bz2.compress(TAR[half:]))) == 5


@pytest.mark.fault("T05")
def test_a_window_that_is_too_large_is_refused_and_one_of_long_mode_is_not() -> None:
    body = zstandard.compress(TAR)
    block = body[body.index(b"\x28\xb5\x2f\xfd") + 6 :]
    frames = {
        windowlog: b"\x28\xb5\x2f\xfd" + bytes([0x00, (windowlog - 10) << 3]) + block
        for windowlog in (27, 31)
    }
    assert zstandard.get_frame_parameters(frames[31]).window_size == 1 << 31

    with pytest.raises(TooLargeError, match="window"):
        take(frames[31])
    assert zstandard.get_frame_parameters(frames[27]).window_size == 1 << 27
    with pytest.raises(TooLargeError, match="window"):
        take(frames[27], TarLimits(window_bytes=8 * MIB))


@pytest.mark.fault("T05")
def test_xz_that_wants_more_memory_than_is_allowed_is_refused() -> None:
    packed = lzma.compress(TAR, preset=9)

    assert len(take(packed)) == 5
    with pytest.raises(TooLargeError, match="window"):
        take(packed, TarLimits(window_bytes=8 * MIB))


@pytest.mark.fault("T05")
def test_an_archive_that_needs_a_dictionary_is_refused() -> None:
    dictionary = zstandard.train_dictionary(4096, [b"sample %d" % n * 20 for n in range(500)])
    packed = zstandard.ZstdCompressor(dict_data=dictionary).compress(TAR)

    with pytest.raises(InvalidError, match="dictionary"):
        take(packed)


@pytest.mark.fault("T05")
def test_bombs_end_at_a_limit() -> None:
    bomb = zstandard.compress(tar_of([file("zeros", bytes(64 * MIB))]))

    with pytest.raises(TooLargeError, match="larger than"):
        take(bomb, TarLimits(unpacked_bytes=8 * MIB))
    with pytest.raises(TooLargeError, match="times its size"):
        take(bomb, TarLimits(expansion=100, expansion_from_bytes=MIB))
    assert len(take(bomb, TarLimits(expansion=1, expansion_from_bytes=70 * MIB))) == 2


_PEAK = """
import io, resource, sys
from holdfast.archive.tar.source import TarLimits, TarSource
from holdfast.errors import TooLargeError
bomb = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    TarSource(io.BytesIO(bomb), sys.argv[1], limits=TarLimits(unpacked_bytes=256 << 20))
except TooLargeError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.fault("T05")
def test_a_bomb_takes_little_memory(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    zeros = bytes(16 * MIB)
    bomb = b"".join([*[compressor.compress(zeros) for _ in range(64)], compressor.flush()])
    assert len(bomb) < MIB

    done = subprocess.run(
        [sys.executable, "-c", _PEAK, tmp_path], input=bomb, capture_output=True, check=True
    )

    assert int(done.stdout) < 32 * 1024  # KiB


@pytest.mark.fault("T06")
@pytest.mark.parametrize("packing", ["gzip", "xz", "bzip2"])
def test_other_compression_behind_zstds_first_bytes_is_refused(packing: str) -> None:
    with pytest.raises((InvalidError, TooLargeError)):
        take(b"\x28\xb5\x2f\xfd" + PACKED[packing])
    with pytest.raises((InvalidError, TooLargeError)):
        take(b"\x28\xb5\x2f\xfd" + PACKED[packing][4:])


@pytest.mark.parametrize(
    "junk", [b"", b"x", b"hello world" * 200, b"\x89PNG\r\n\x1a\n" + bytes(2000), b"\xff" * 2048]
)
def test_what_is_no_tar_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidError):
        take(junk)


@examples(150)
@given(data=st.data())
def test_headers_with_other_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    tar = bytearray(
        pax((b"mtime", b"1.5"), (b"GNU.sparse.map", b"0,2"), (b"GNU.sparse.size", b"9"))
        + header(b"a", b"0", 2)
        + padded(b"hi")
        + header(b"b", b"1", link=b"a")
        + END
    )
    for _ in range(data.draw(st.integers(1, 6))):
        block = data.draw(st.sampled_from([0, 512, 1024, 2048]))
        tar[block + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
        if block != 512:
            tar[block : block + 512] = with_checksum(tar[block : block + 512])

    try:
        paths = take(bytes(tar))
    except (InvalidError, TooLargeError):
        return

    assert not any(path.startswith(b"/") or b".." in path.split(b"/") for path in paths)


def test_a_file_whose_name_ends_in_a_slash_is_a_directory_as_in_v7() -> None:
    source = TarSource(io.BytesIO(header(b"d/", b"\0") + END), "/tmp")  # noqa: S108

    assert [scanned.kind for scanned in source.scan(lambda _: None)] == [Kind.DIRECTORY] * 2
    source.close()


def test_a_long_name_may_stand_in_the_prefix_of_the_header() -> None:
    block = bytearray(header(b"name", b"0"))
    block[345:348] = b"d/e"

    assert take(with_checksum(block) + END) == [b"", b"d", b"d/e", b"d/e/name"]


def test_a_volume_label_is_passed_over() -> None:
    assert take(header(b"label", b"V") + header(b"a", b"0") + END) == [b"", b"a"]


def test_pythons_own_tars_with_odd_fields_are_taken() -> None:
    info = tarfile.TarInfo("odd")
    info.uname, info.gname, info.pax_headers = "user", "group", {"comment": "hello"}

    assert take(tar_of([(info, b"")], format_=tarfile.GNU_FORMAT)) == [b"", b"odd"]


@pytest.mark.parametrize(
    "records",
    [
        [(b"SCHILY.xattr.", b"v")],
        [(b"SCHILY.xattr.user.a\0b", b"v")],
        [
            (b"SCHILY.xattr.user.a", b"v"),
            (b"SCHILY.xattr.user.%25", b"v"),
            (b"SCHILY.xattr.user.%", b"v"),
        ],
    ],
)
def test_an_attribute_without_a_proper_name_is_refused(records: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(InvalidError, match="proper name"):
        take(pax(*records) + header(b"a", b"0") + END)
