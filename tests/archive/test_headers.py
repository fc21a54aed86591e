"""The tar of a snapshot is compared with its manifest, byte by byte."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest
from tests.archive.test_restore_hostile import Forger
from tests.form.trees import directory, file

from holdfast.archive.read.headers import check_headers
from holdfast.errors import CorruptError
from holdfast.form.entries import Entry, Kind
from holdfast.form.manifest import new_page
from holdfast.form.sparse import padding
from holdfast.form.tar_header import former_header, member_header

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = directory(b"")
ACL = bytes.fromhex(
    "02000000 01000700ffffffff 02000600d2040000 04000500ffffffff 10000700ffffffff 20000500ffffffff"
)
ENTRIES = {
    "file": msgspec.structs.replace(
        file(b"name", 7), mode=0o640, uid=5, gid=6, mtime_ns=9_000_000_001
    ),
    "directory": directory(b"name"),
    "symlink": Entry(path=b"name", kind=Kind.SYMLINK, mode=0o777, uid=0, gid=0, target=b"to"),
    "sparse": msgspec.structs.replace(file(b"name", 8192), segments=((0, 512),)),
    "long": file(b"d" * 150 + b"/" + b"n" * 80, 7),
    "attributes": msgspec.structs.replace(
        file(b"name", 7), xattrs=((b"user.z", b"1"), (b"system.posix_acl_access", ACL))
    ),
}


def check(entry: Entry, header: bytes, *, sparse: bytes = b"2\n0\n512\n8192\n0\n") -> None:
    """Look at a snapshot with ``entry``, whose header in the tar is ``header``."""
    above = [directory(entry.path.rpartition(b"/")[0])] if b"/" in entry.path else []
    data = b"x" * 7
    if entry.segments is not None:
        data = sparse.ljust(512, b"\0") + bytes(512)
    if entry.kind is not Kind.FILE:
        data = b""
    forger = Forger()
    before = b"".join(map(member_header, [ROOT, *above]))
    raw = before + header + data + bytes(padding(len(data)))
    members = [ROOT, *above, entry]
    sizes = [*(len(member_header(one)) for one in [ROOT, *above]), len(header)]

    forger.pages.append(new_page(members, sizes, [forger.frame(raw)]))
    reader = forger.snapshot(unchecked=True)
    check_headers(reader, reader.page(0), 0, reader.fresh_frame(reader.page(0).frame(0)))


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_our_own_header_is_right(entry: Entry) -> None:
    check(entry, member_header(entry))


def test_a_header_of_release_0_1_is_right() -> None:
    entry = ENTRIES["attributes"]

    assert former_header(entry) != member_header(entry)
    check(entry, former_header(entry))


CHANGES: dict[str, dict[str, Any]] = {
    "path": {"path": b"nome"},
    "parent": {"path": b"../x"},
    "mode": {"mode": 0o4755},
    "owner": {"uid": 0},
    "group": {"gid": 0},
    "time": {"mtime_ns": 10_000_000_000},
    "kind": {"kind": Kind.DIRECTORY, "size": 0},
    "size": {"size": 8},
    "attributes": {"xattrs": ((b"security.capability", b"x"),)},
    "link": {"kind": Kind.SYMLINK, "size": 0, "target": b"/etc"},
}


@pytest.mark.fault("T07")
@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_anything_else_is_found(changes: dict[str, Any]) -> None:
    said = msgspec.structs.replace(ENTRIES["file"], **changes)

    with pytest.raises(CorruptError):
        check(ENTRIES["file"], member_header(said))


HIDDEN: dict[str, Callable[[bytes], bytes]] = {
    "a member before it": lambda header: member_header(file(b"hidden")) + header,
    "a global header before it": lambda header: global_header() + header,
    "a zeroed header": lambda header: bytes(len(header)),
    "noise": lambda header: b"\xff" * len(header),
    "a name of GNU's, which some readers prefer": lambda header: (
        in_form(file(b"../" * 60, 0), tarfile.GNU_FORMAT)[:-512] + pax({"path": "name"}) + header
    ),
    "a name of GNU's for sparse files": lambda header: (
        pax({"GNU.sparse.name": "name", "path": "../x"}) + header
    ),
    "flags of another system": lambda header: pax({"SCHILY.fflags": "uappnd"}) + header,
    "attributes that only bsdtar reads": lambda header: (
        pax({"LIBARCHIVE.xattr.security.capability": "AAAA"}) + header
    ),
    "the same once more": lambda header: pax({"path": "name"}) + header,
}


@pytest.mark.fault("T07")
@pytest.mark.parametrize("change", HIDDEN.values(), ids=HIDDEN)
def test_nothing_is_hidden_in_a_header(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CorruptError):
        check(ENTRIES["file"], change(member_header(ENTRIES["file"])))


@pytest.mark.fault("T07")
def test_the_map_of_a_sparse_file_is_the_manifests() -> None:
    entry = ENTRIES["sparse"]

    with pytest.raises(CorruptError):
        check(entry, member_header(entry), sparse=b"1\n512\n512\n")


def pax(records: dict[str, str]) -> bytes:
    """An extended header that says this of the member that follows."""
    info = tarfile.TarInfo("name")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT)[:-512]


def in_form(entry: Entry, form: Literal[0, 1, 2]) -> bytes:
    """The header of ``entry`` as Python's tarfile writes it."""
    info = tarfile.TarInfo(entry.path.decode())
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.mtime = entry.mtime_ns // 1_000_000_000
    info.size = entry.size
    info.type = {Kind.DIRECTORY: tarfile.DIRTYPE, Kind.SYMLINK: tarfile.SYMTYPE}.get(
        entry.kind, tarfile.REGTYPE
    )
    info.linkname = entry.target.decode()
    return info.tobuf(form)


def global_header() -> bytes:
    """A header that gives all that follow another name."""
    return tarfile.TarInfo.create_pax_global_header({"path": "../x"})
