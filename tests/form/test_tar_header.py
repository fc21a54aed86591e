"""Headers say of a member what it is, to Python's tarfile and to GNU tar."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.examples import examples
from tests.form.trees import directory, entries_at, file, hard_link, symlink, trees

from holdfast.form.entries import Entry, Kind, stored_bytes
from holdfast.form.frames import END_OF_ARCHIVE
from holdfast.form.sparse import padding, sparse_map
from holdfast.form.tar_header import former_header, member_header

if TYPE_CHECKING:
    from pathlib import Path

components = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name
)
paths = st.lists(components, min_size=1, max_size=8).map(b"/".join)
KINDS = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
}


def data_of(entry: Entry) -> bytes:
    """The tar after the header of ``entry``, which is full of x."""
    stored = stored_bytes(entry)
    leading = b"" if entry.segments is None else sparse_map(entry.segments, entry.size)
    return leading + b"x" * (stored - len(leading)) + bytes(padding(stored))


def tar_of(entries: list[Entry]) -> bytes:
    """The tar of ``entries``."""
    members = [member_header(entry) + data_of(entry) for entry in entries]
    return b"".join(members) + END_OF_ARCHIVE


def listed(tar: bytes) -> list[tarfile.TarInfo]:
    """The members that Python's tarfile finds in ``tar``."""
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as found:
        return found.getmembers()


def content(tar: bytes, member: tarfile.TarInfo) -> bytes:
    """The content of the file ``member``."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as found:
        read = found.extractfile(member)
        assert read is not None
        return read.read()


def check(member: tarfile.TarInfo, entry: Entry) -> None:
    """``member`` is what ``entry`` says."""
    assert os.fsencode(member.name) == (entry.path or b".")
    assert member.type == KINDS[entry.kind]
    assert (member.mode, member.uid, member.gid) == (entry.mode, entry.uid, entry.gid)
    assert member.size == entry.size
    assert member.mtime == pytest.approx(entry.mtime_ns // 10**9, abs=1e-3, rel=1e-15)
    assert (member.uname, member.gname) == ("", "")
    assert os.fsencode(member.linkname) == (
        entry.target.rstrip(b"/") if entry.kind is Kind.HARDLINK else entry.target
    )


@examples(60)
@given(trees())
def test_a_tree_reads_back_from_its_tar(entries: list[Entry]) -> None:
    members = listed(tar_of(entries))

    assert len(members) == len(entries)
    for member, entry in zip(members, entries, strict=True):
        check(member, entry)


@examples(60)
@given(
    paths.flatmap(
        lambda path: st.sampled_from(list(Kind)).flatmap(
            lambda kind: entries_at(path, kind, [b"target", b"t" * 101, b"\xff"])
        )
    )
)
@example(file(b"d" * 155 + b"/" + b"n" * 100))
@example(file(b"d" * 156 + b"/" + b"n" * 99))
@example(file(b"n" * 100))
@example(file(b"n" * 101))
@example(file(b"d/" + b"n" * 101))
@example(directory(b"d" * 99))
@example(directory(b"d" * 100))
@example(directory(b"p/" + b"d" * 99))
@example(symlink(b"l", b"t" * 100))
@example(symlink(b"l", b"t" * 101))
@example(hard_link(b"l", b"t" * 101))
def test_a_member_of_any_name_reads_back(entry: Entry) -> None:
    (member,) = listed(tar_of([entry]))

    check(member, entry)


def test_a_plain_member_takes_one_block() -> None:
    assert len(member_header(file(b"d" * 155 + b"/" + b"n" * 100))) == 512
    assert len(member_header(directory(b""))) == 512
    assert len(member_header(symlink(b"a", b"b" * 100))) == 512


def test_the_size_of_a_large_file_is_kept() -> None:
    for size in (0o77777777777, 0o77777777777 + 1, 2**45):
        header = member_header(file(b"large", size))

        assert tarfile.TarInfo.frombuf(header[-512:], "utf-8", "strict").name == "large"
        members = listed_headers(header)
        assert members.size == size


def test_a_sparse_file_with_much_data_keeps_its_stored_size() -> None:
    entry = Entry(
        path=b"large",
        kind=Kind.FILE,
        mode=0o600,
        uid=0,
        gid=0,
        size=2**50,
        segments=((2**40, 2**34),),
    )

    block = member_header(entry)[-512:]

    assert tarfile.TarInfo.frombuf(block, "utf-8", "strict").size == stored_bytes(entry)


def listed_headers(header: bytes) -> tarfile.TarInfo:
    """The member that ``header`` describes, whose data is not there."""
    with tarfile.open(fileobj=io.BytesIO(header), mode="r:") as found:
        member = found.next()
        assert member is not None
        return member


@examples(40)
@given(entries_at(b"dir/sparse", Kind.FILE, []))
@example(Entry(path=b"s", kind=Kind.FILE, mode=0, uid=0, gid=0, size=9000, segments=()))
def test_the_content_of_a_file_reads_back(entry: Entry) -> None:
    tar = tar_of([entry])

    (member,) = listed(tar)

    expected = bytearray(entry.size)
    for offset, length in ((0, entry.size),) if entry.segments is None else entry.segments:
        expected[offset : offset + length] = b"x" * length
    assert content(tar, member) == expected


def test_extended_attributes_are_in_the_header() -> None:
    xattrs = ((b"user.plain", b"\0\n\xff="), (b"user.a=b%c", b""))
    entry = Entry(path=b"f", kind=Kind.FILE, mode=0o600, uid=0, gid=0, xattrs=xattrs)

    (member,) = listed(tar_of([entry]))

    found = {
        key: value.encode("utf-8", "surrogateescape") for key, value in member.pax_headers.items()
    }
    assert found == {"SCHILY.xattr.user.plain": b"\0\n\xff=", "SCHILY.xattr.user.a%3Db%25c": b""}


def test_the_former_header_lacks_only_the_text_of_access_lists() -> None:
    plain = file(b"name", 7)
    value = b"".join([b"\x02\0\0\0", *(bytes([tag, 0, 6, 0]) + b"\xff" * 4 for tag in (1, 4, 32))])
    listed = msgspec.structs.replace(plain, xattrs=((b"system.posix_acl_access", value),))

    assert former_header(plain) == member_header(plain)
    assert b"SCHILY.acl.access" in member_header(listed)
    assert b"SCHILY.acl.access" not in former_header(listed)
    assert b"SCHILY.xattr.system.posix_acl_access" in former_header(listed)


def test_a_record_counts_its_own_length() -> None:
    # The number's own digits take it past 99 and 999.
    for length in range(80, 1010):
        entry = Entry(
            path=b"f", kind=Kind.FILE, mode=0, uid=0, gid=0, xattrs=((b"user.x", b"v" * length),)
        )

        (member,) = listed(tar_of([entry]))

        assert member.pax_headers == {"SCHILY.xattr.user.x": "v" * length}


TAR = shutil.which("tar")


@pytest.mark.skipif(TAR is None, reason="needs GNU tar")
def test_gnu_tar_unpacks_what_a_snapshot_can_hold(tmp_path: Path) -> None:
    odd = b"\xff\xfe name\n"
    entries = [
        directory(b""),
        file(b"0-plain", 1000),
        file("1-ümläut".encode(), 3),
        file(b"2-" + odd, 5),
        directory(b"d" * 120),
        file(b"d" * 120 + b"/" + b"n" * 200, 7),
        symlink(b"e", b"t" * 200 + odd),
        hard_link(b"f", b"d" * 120 + b"/" + b"n" * 200),
        Entry(
            path=b"g-" + odd,
            kind=Kind.FILE,
            mode=0o640,
            uid=1,
            gid=1,
            size=100_000,
            mtime_ns=-5 * 10**9 - 1,
            segments=((4096, 512), (50_000, 6)),
        ),
        Entry(path=b"h", kind=Kind.FILE, mode=0o600, uid=1, gid=1, size=70_000, segments=()),
    ]

    done = subprocess.run(
        [
            str(TAR),
            "-x",
            "--no-same-owner",
            "--warning=no-timestamp",
            "-f",
            "-",
            "-C",
            str(tmp_path),
        ],
        input=tar_of(entries),
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )

    unknown = b"Ignoring unknown extended header keyword 'hdrcharset'"
    complaints = [line for line in done.stderr.splitlines() if unknown not in line]
    assert (done.returncode, complaints) == (0, [])
    root = os.fsencode(tmp_path)
    found = {entry.path: os.lstat(os.path.join(root, entry.path)) for entry in entries}
    assert [found[entry.path].st_size for entry in entries if entry.kind is Kind.FILE] == [
        1000,
        3,
        5,
        7,
        100_000,
        70_000,
    ]
    assert os.readlink(os.path.join(root, b"e")) == b"t" * 200 + odd
    assert found[b"f"].st_ino == found[b"d" * 120 + b"/" + b"n" * 200].st_ino
    assert found[b"g-" + odd].st_mtime_ns == -6 * 10**9
    with open(os.path.join(root, b"g-" + odd), "rb") as read:
        data = read.read()
    assert data.strip(b"\0").replace(b"\0", b"") == b"x" * 518
    assert (data[4096:4608], data[50_000:50_006]) == (b"x" * 512, b"x" * 6)
