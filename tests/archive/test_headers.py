"""What the tar of a snapshot says is compared with its manifest, however it is written."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest
from tests.archive.test_restore_hostile import Forger
from tests.domain.trees import directory, file

from holdfast.archive.headers import check_headers
from holdfast.domain.entries import Entry, Kind
from holdfast.domain.manifest import page_of
from holdfast.domain.sparse import padding
from holdfast.domain.tar_header import member_header
from holdfast.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = directory(b"")
ENTRIES = {
    "file": msgspec.structs.replace(
        file(b"name", 7), mode=0o640, uid=5, gid=6, mtime_ns=9_000_000_001
    ),
    "directory": directory(b"name"),
    "symlink": Entry(path=b"name", kind=Kind.SYMLINK, mode=0o777, uid=0, gid=0, target=b"to"),
    "sparse": msgspec.structs.replace(file(b"name", 8192), segments=((0, 512),)),
    "long": file(b"d" * 150 + b"/" + b"n" * 80, 7),
}


def check(entry: Entry, header: bytes) -> None:
    """Look at a snapshot with ``entry``, whose header in the tar is ``header``."""
    above = [directory(entry.path.rpartition(b"/")[0])] if b"/" in entry.path else []
    data = b"x" * 7
    if entry.segments is not None:
        data = b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)
    if entry.kind is not Kind.FILE:
        data = b""
    forger = Forger()
    before = b"".join(map(member_header, [ROOT, *above]))
    raw = before + header + data + bytes(padding(len(data)))
    members = [ROOT, *above, entry]
    sizes = [*(len(member_header(one)) for one in [ROOT, *above]), len(header)]

    forger.pages.append(page_of(members, sizes, [forger.frame(raw)]))
    reader = forger.snapshot(unchecked=True)
    check_headers(reader, reader.page(0), 0, reader.fresh_frame(reader.page(0).frame(0)))


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_our_own_header_is_right(entry: Entry) -> None:
    check(entry, member_header(entry))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["file", "directory", "symlink", "long"])
def test_the_same_said_in_another_way_is_right(name: str, form: Literal[0, 1, 2]) -> None:
    check(ENTRIES[name], in_form(ENTRIES[name], form))


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
}


@pytest.mark.fault("T07")
@pytest.mark.parametrize("change", HIDDEN.values(), ids=HIDDEN)
def test_nothing_is_hidden_in_a_header(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CorruptError):
        check(ENTRIES["file"], change(member_header(ENTRIES["file"])))


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
