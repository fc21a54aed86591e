"""The messages of the verbs that read a snapshot.

A path on the wire is text. Names in a file system are bytes: where a path is not UTF-8, its text
has U+FFFD in place of what is not, and ``path_bytes`` beside it holds the exact bytes (base64 in
JSON). A request may give either.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, field

from holdfast.form.terms import ChangeKind
from holdfast.protocol.blobs import ContentHead
from holdfast.protocol.message import (
    Reply,
    Request,
    ToldCount,
    ToldSize,
    WireCursor,
    WireDigest,
    WireKey,
    WireLimit,
    WireLong,
    WireTime,
    base64_of,
)
from holdfast.protocol.operation import Body, Operation

EntryKind = Literal["file", "directory", "symlink", "hardlink"]
WirePath = Annotated[
    str, Meta(max_length=4096, description="Relative to the app's directory; '' is that itself.")
]
WirePathBytes = Annotated[bytes, base64_of("a path", 4096)]


class ListFiles(Request, frozen=True, kw_only=True):
    """A snapshot's entries at and below ``path``, in path order."""

    key: WireKey
    path: WirePath = ""
    path_bytes: WirePathBytes | None = None
    cursor: WireCursor | None = None
    limit: WireLimit = 1000


class FileEntry(Reply, frozen=True, kw_only=True):
    """One entry. ``mode`` holds the permission bits, ``mtime`` has nanoseconds.

    ``target`` is a symlink's text, or a hard link's first path.
    """

    path: str
    kind: EntryKind
    mode: ToldCount
    uid: ToldCount
    gid: ToldCount
    mtime: WireTime
    size: ToldSize = 0
    path_bytes: bytes | None = None
    target: str | None = None
    target_bytes: bytes | None = None
    xattrs: dict[str, bytes] = field(default_factory=dict)


class FilePage(Reply, frozen=True, kw_only=True):
    """``cursor`` is there while more may follow."""

    entries: list[FileEntry]
    cursor: WireCursor | None = None


class DiffSnapshots(Request, frozen=True, kw_only=True):
    """The changes from snapshot ``a`` to snapshot ``b``."""

    a: WireKey
    b: WireKey
    cursor: WireCursor | None = None
    limit: WireLimit = 1000


class SnapshotChange(Reply, frozen=True, kw_only=True):
    """``modified``: other content or kind; ``metadata``: mode, owner, time, attributes only."""

    path: str
    change: ChangeKind
    path_bytes: bytes | None = None
    kind: EntryKind | None = None
    size_before: ToldSize | None = None
    size_after: ToldSize | None = None


class DiffPage(Reply, frozen=True, kw_only=True):
    """Changes in path order. ``cursor`` is there while more may follow."""

    changes: list[SnapshotChange]
    cursor: WireCursor | None = None


class ReadFile(Request, frozen=True, kw_only=True):
    """Bytes of one file: ``offset`` to ``offset + length``, clipped; all of it by default.

    ``cursor`` continues after a window.
    """

    key: WireKey
    path: WirePath = ""
    path_bytes: WirePathBytes | None = None
    offset: WireLong = 0
    length: WireLong | None = None
    cursor: WireCursor | None = None


class ExportSnapshot(Request, frozen=True, kw_only=True):
    """The snapshot as a ``.tar.zst``, or a range of its bytes, which never change."""

    key: WireKey
    offset: WireLong = 0
    length: WireLong | None = None
    cursor: WireCursor | None = None


class VerifySnapshot(Request, frozen=True, kw_only=True):
    """Read a snapshot's data back and compare it with its digests."""

    key: WireKey
    cursor: WireCursor | None = None


class DamagedPack(Reply, frozen=True, kw_only=True):
    """A pack that is missing or altered, and the first paths that need it."""

    digest: WireDigest
    code: str
    detail: str
    paths: list[str] = field(default_factory=list)


class SnapshotVerified(Reply, frozen=True, kw_only=True):
    """The part read. ``cursor`` is there while some remains to be checked.

    ``damaged`` are the first of ``damaged_count``.
    """

    packs: ToldCount
    frames: ToldCount
    bytes: ToldSize
    damaged: list[DamagedPack] = field(default_factory=list)
    damaged_count: ToldCount = 0
    cursor: WireCursor | None = None


LIST_FILES: Final = Operation("snapshot.files", ListFiles, FilePage, "A snapshot's entries.")
DIFF_SNAPSHOTS: Final = Operation(
    "snapshot.diff", DiffSnapshots, DiffPage, "The changes between two snapshots."
)
READ_FILE: Final = Operation(
    "snapshot.read", ReadFile, ContentHead, "Read one file.", reply_body=Body.BYTES
)
EXPORT_SNAPSHOT: Final = Operation(
    "snapshot.export",
    ExportSnapshot,
    ContentHead,
    "The snapshot as a .tar.zst.",
    reply_body=Body.BYTES,
)
VERIFY_SNAPSHOT: Final = Operation(
    "snapshot.verify", VerifySnapshot, SnapshotVerified, "Read back and compare."
)
