"""``blob.*``: the messages and the table of operations."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, override

from msgspec import Meta, field
from msgspec.structs import replace

from holdfast.domain.limits import (
    MAX_BLOBS_PER_PUT,
    MAX_DIGESTS_PER_HAS,
    MAX_UPLOAD_NOTE_CHARS,
    MIB,
)
from holdfast.protocol import headers
from holdfast.protocol.message import (
    QuotedName,
    Reply,
    Request,
    ToldCount,
    ToldSize,
    WireCount,
    WireCursor,
    WireDigest,
    WireLimit,
    WireName,
    WireSize,
    WireTime,
    WireType,
    WireUpload,
    WireVersion,
    base64_of,
)
from holdfast.protocol.operation import AnyOperation, Body, Operation
from holdfast.protocol.problem import Problem

SpaceName = Literal["blobs", "packs"]
DEFAULT_TYPE: Final = "application/octet-stream"


class PutBlob(Request, frozen=True, kw_only=True):
    """Headers beside the bytes. ``digest`` is what the caller expects; a mismatch is invalid."""

    digest: WireDigest | None = field(default=None, name=headers.BLOB_DIGEST)
    type: WireType = field(default=DEFAULT_TYPE, name=headers.BLOB_TYPE)
    space: SpaceName = field(default="blobs", name=headers.BLOB_SPACE)


class BlobStored(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The blob is stored. ``created`` is False when it was there already."""

    digest: WireDigest
    size: ToldSize
    created: bool


class BlobToPut(Request, frozen=True, kw_only=True):
    """One of several blobs: its bytes, and what ``blob.put`` would be told of them."""

    data: Annotated[bytes, base64_of("the blob", 64 * MIB)]
    digest: WireDigest
    type: WireType = DEFAULT_TYPE


class PutBlobs(Request, frozen=True, kw_only=True):
    """Up to 256 blobs, which together hold no more bytes than one ``blob.put`` may.

    Each is stored as ``blob.put`` would store it, or not, whatever becomes of the others. The one
    at position n, counted from 0, has the ``Op-Id`` of the request with ``.n`` after it: to put
    it alone under that one repeats it.
    """

    blobs: Annotated[list[BlobToPut], Meta(min_length=1, max_length=MAX_BLOBS_PER_PUT)]

    @override
    def without_bytes(self) -> Self:
        """See Request."""
        return replace(self, blobs=[replace(blob, data=b"") for blob in self.blobs])


class PutResult(Reply, frozen=True, kw_only=True):
    """One blob as ``BlobStored`` tells of it; or the ``problem``, and nothing else."""

    digest: WireDigest | None = None
    size: ToldSize | None = None
    created: bool | None = None
    problem: Problem | None = None


class BlobsStored(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """Each blob's outcome, in the order of the request."""

    results: list[PutResult]


class GetBlob(Request, frozen=True, kw_only=True):
    """Bytes ``offset`` to ``offset + length``, clipped to the blob; all of it by default.

    It is the blob with a ``digest``, or the one that a ``name`` has, or had as ``version``. A body
    that is just 64 hexadecimal characters asks for that whole blob. ``cursor`` continues after a
    window. ``proxy`` has the worker read and relay the bytes; ``direct`` has the store send even
    what would fit into an answer, where it can. With ``bare`` the store may send a whole small blob
    alone, in one message without a head: compare its digest, and ask without ``bare`` if anything
    else comes, or nothing. It never does so for a ``name``. ``partial``: if a collector has kept
    only some bytes of the blob, these are wanted; else it is not there. ``kept``: a blob that was
    deleted is wanted, too, for a name or a state that has it.
    """

    digest: WireDigest | None = None
    offset: WireSize = 0
    length: WireSize | None = None
    cursor: WireCursor | None = None
    proxy: bool = False
    direct: bool = False
    bare: bool = False
    space: SpaceName = "blobs"
    name: WireName | None = None
    version: WireVersion | None = None
    partial: bool = False
    kept: bool = False


class ContentHead(Reply, frozen=True, kw_only=True):
    """Headers of an answer with bytes: in one message, or the head of a window.

    A head has an empty body and ``parts``: that many messages follow on the same reply subject.
    ``cursor`` asks for what comes after; the last window has none.
    """

    size: ToldSize = field(name=headers.BLOB_SIZE)
    offset: ToldSize = field(name=headers.BLOB_OFFSET)
    length: ToldSize = field(name=headers.BLOB_LENGTH)
    type: str = field(name=headers.BLOB_TYPE)
    parts: ToldCount | None = field(default=None, name=headers.BLOB_PARTS)
    skip: ToldSize | None = field(default=None, name=headers.BLOB_SKIP)
    cursor: WireCursor | None = field(default=None, name=headers.BLOB_CURSOR)


class BlobHead(ContentHead, frozen=True, kw_only=True):
    """Headers of a ``blob.get`` answer: the bytes in one message, or the head of a window.

    A head has an empty body and ``parts``: that many messages follow on the same reply subject,
    numbered by ``Blob-Part`` from ``first`` on. With other numbers they are other bytes: ask again
    with ``proxy``. Drop ``skip`` bytes from the first, keep ``length`` in all. ``cursor`` asks for
    what comes after; the last window has none. Asked by name, it tells that and the version.
    ``kept`` is there of a partial blob: the digest of the bytes that are kept, a semicolon, and how
    many bytes of the blob are skipped, kept, skipped, kept and so on, in decimal, with commas.
    """

    digest: WireDigest = field(name=headers.BLOB_DIGEST)
    first: ToldCount | None = field(default=None, name=headers.BLOB_FIRST)
    quoted_name: QuotedName | None = field(default=None, name=headers.BLOB_NAME)
    version: ToldCount | None = field(default=None, name=headers.BLOB_VERSION)
    kept: str | None = field(default=None, name=headers.BLOB_KEPT)


class HasBlobs(Request, frozen=True, kw_only=True):
    """The missing ones of up to 1,024 digests."""

    digests: Annotated[list[WireDigest], Meta(max_length=MAX_DIGESTS_PER_HAS)]
    space: SpaceName = "blobs"


class MissingBlobs(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """Those that are not stored, in the order asked, each once."""

    missing: list[WireDigest]


class StatBlob(Request, frozen=True, kw_only=True):
    """The record of the blob with a ``digest``, or that a ``name`` has or had."""

    digest: WireDigest | None = None
    space: SpaceName = "blobs"
    name: WireName | None = None
    version: WireVersion | None = None


class BlobStat(Reply, frozen=True, kw_only=True):
    """``pinned``: kept until deleted. ``chunks``: messages or files that hold the bytes.

    ``names`` are up to 100 that have this blob, as far as the worker knows them already, and
    ``kept_by`` is some of what keeps it beside a pin, as in ``BlobDeleted``. Asked by name, the
    ``type`` is what was said of that, and the fields from ``name`` to ``modified_at`` are there.
    """

    digest: WireDigest
    size: ToldSize
    chunks: ToldCount
    type: str
    created_at: WireTime
    pinned: bool
    state: Literal["ok"]
    names: list[str]
    name: str | None = None
    version: ToldCount | None = None
    labels: dict[str, str] = field(default_factory=dict)
    expires_at: WireTime | None = None
    modified_at: WireTime | None = None
    kept_by: list[str] = field(default_factory=list)


class ListBlobs(Request, frozen=True, kw_only=True):
    """A page of blobs whose digest starts with ``prefix``."""

    prefix: Annotated[str, Meta(pattern=r"^[0-9a-f]*$(?!\n)", max_length=64)] = ""
    cursor: WireCursor | None = None
    limit: WireLimit = 100


class BlobEntry(Reply, frozen=True, kw_only=True):
    """One blob, or something that lies beside the blobs.

    A ``foreign`` one has a ``name`` and no digest: an object that another program stored in the
    bucket. It is listed, never served and never collected.
    """

    size: ToldSize
    type: str = DEFAULT_TYPE
    created_at: WireTime = ""
    pinned: bool = False
    digest: WireDigest | None = None
    foreign: bool = False
    name: str | None = None


class BlobPage(Reply, frozen=True, kw_only=True):
    """Blobs in the store's own, stable order.

    ``cursor`` is there while more may follow, even after an empty page. A blob that changes while
    it is listed may come twice, never not at all.
    """

    blobs: list[BlobEntry]
    cursor: WireCursor | None = None


class DeleteBlob(Request, frozen=True, kw_only=True):
    """Forget the blob with a ``digest``; or take from a ``name`` the blob that it has.

    ``if_version`` and ``if_digest`` are what the name must have.
    """

    digest: WireDigest | None = None
    name: WireName | None = None
    if_version: WireVersion | None = None
    if_digest: WireDigest | None = None


class BlobDeleted(Reply, frozen=True, kw_only=True):
    """``deleted`` is False when there was nothing to delete.

    ``kept_by`` is some of what the bytes of a deleted blob are kept for: names as they are, others
    in words (`version 3 of NAME`, `a write of NAME`, `state NAME`). By its digest it is not
    there then.
    """

    deleted: bool
    kept_by: list[str] = field(default_factory=list)


UploadNote = Annotated[
    str, Meta(max_length=MAX_UPLOAD_NOTE_CHARS, description="Text that the client gets back.")
]


class OpenUpload(Request, frozen=True, kw_only=True):
    """Begin a streamed put. With a ``digest`` that is stored already there is nothing to upload.

    ``note`` is kept with the upload: see ``LookUpload``.
    """

    size: WireSize | None = None
    digest: WireDigest | None = None
    type: WireType = DEFAULT_TYPE
    note: UploadNote = ""


class UploadState(Reply, frozen=True, kw_only=True):
    """Where to send parts; or, when the blob is stored, what a put would have answered.

    ``name`` and ``version`` are those that a streamed write of a name has brought about.

    Parts go to ``part_subject``, in order from ``next_part`` on, each ``part_size`` bytes but the
    last, with at most ``window`` bytes unacknowledged. An upload of which nothing is heard for
    ``lease_seconds`` is given up: see ``PutPart``. ``offset`` is how many bytes it holds, some of
    them perhaps of the next part; ``length`` how many there are to be, and ``note`` what was said
    when it was opened: see ``LookUpload``.
    """

    upload: WireUpload | None = None
    part_subject: str | None = None
    part_size: ToldSize | None = None
    window: ToldSize | None = None
    next_part: ToldCount | None = None
    lease_seconds: float | None = None
    digest: WireDigest | None = None
    size: ToldSize | None = None
    created: bool | None = None
    name: str | None = None
    version: ToldCount | None = None
    offset: ToldSize | None = None
    length: ToldSize | None = None
    note: str | None = None


class PutPart(Request, frozen=True, kw_only=True):
    """Headers of a message to a part subject: a part, or the end of the upload.

    ``final`` is the count of parts. It commits, and may be repeated. ``digest`` is then what the
    caller expects. ``keep``, alone and without bytes, renews the lease: for a caller that has
    nothing to send yet. With ``tail`` the bytes are those of the part from that one on: it need not
    become whole by them, and if it does not, the next ones go on there, the whole part comes in its
    place, or it is the last.
    """

    part: WireCount | None = field(default=None, name=headers.BLOB_PART)
    final: WireCount | None = field(default=None, name=headers.BLOB_FINAL)
    digest: WireDigest | None = field(default=None, name=headers.BLOB_DIGEST)
    keep: bool | None = field(default=None, name=headers.BLOB_KEEP)
    tail: WireCount | None = field(default=None, name=headers.BLOB_TAIL)


class PartStored(Reply, frozen=True, kw_only=True):
    """``part`` is durable; or, for the last message, the stored blob; or the lease is renewed.

    ``offset`` is how many bytes the upload holds: told of a tail, and where the lease is renewed.
    """

    part: ToldCount | None = None
    digest: WireDigest | None = None
    size: ToldSize | None = None
    created: bool | None = None
    name: str | None = None
    version: ToldCount | None = None
    offset: ToldSize | None = None


class ResumeUpload(Request, frozen=True, kw_only=True):
    """Let any worker take over an upload whose owner does not answer."""

    upload: WireUpload


class LookUpload(Request, frozen=True, kw_only=True):
    """Where an upload goes on, without taking it over: what it holds its owner says, asked to keep.

    Any worker answers; or tells what the upload has come to.
    """

    upload: WireUpload


class AbortUpload(Request, frozen=True, kw_only=True):
    """Give an upload up and remove its parts."""

    upload: WireUpload


class UploadAborted(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """``aborted`` is False when the upload had ended already."""

    aborted: bool


class VerifyBlobs(Request, frozen=True, kw_only=True):
    """Read back one blob, or a page of all blobs, and compare every byte with its digest."""

    digest: WireDigest | None = None
    cursor: WireCursor | None = None
    limit: WireLimit = 100


class CollectBlobs(Request, frozen=True, kw_only=True):
    """Remove what nothing needs, or with ``dry_run`` only say what would be removed."""

    dry_run: bool = False


class CollectedSpace(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The removals in one space, and what stays, for which reason. ``_bytes`` are of blobs.

    ``repacked`` packs are kept in part: ``repacked_bytes`` of them were given back. ``orphans``
    went, too: what killed writers left, in ``orphan_chunks``, ``orphan_bytes`` at the most.
    ``damaged``: only a part is needed, and it cannot be read back to keep that alone. ``refused``:
    put, touched or pinned since they were listed, so they stay. ``others``: not holdfast's objects,
    or unreadable. ``more``: one run's limit was reached. ``failure``: why no more was removed.
    """

    space: SpaceName
    removed: ToldCount = 0
    removed_bytes: ToldSize = 0
    repacked: ToldCount = 0
    repacked_bytes: ToldSize = 0
    needed: ToldCount = 0
    needed_bytes: ToldSize = 0
    young: ToldCount = 0
    young_bytes: ToldSize = 0
    pinned: ToldCount = 0
    pinned_bytes: ToldSize = 0
    damaged: ToldCount = 0
    damaged_bytes: ToldSize = 0
    refused: ToldCount = 0
    others: ToldCount = 0
    more: bool = False
    failure: str | None = None
    orphans: ToldCount = 0
    orphan_chunks: ToldCount = 0
    orphan_bytes: ToldSize = 0


class CollectionReply(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The worker's run so far; ``done``: it has ended. Else it goes on: ask again.

    ``off`` says why nothing is collected in this deployment.
    """

    dry_run: bool
    done: bool
    off: str | None = None
    spaces: list[CollectedSpace] = field(default_factory=list)


class DamagedBlob(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """A blob that cannot be read back as it was stored."""

    digest: WireDigest
    code: str
    detail: str


class VerifyReport(Reply, frozen=True, kw_only=True):
    """The blobs read; ``cursor`` while blobs remain to be checked."""

    checked: ToldCount
    bytes: ToldSize
    damaged: list[DamagedBlob] = field(default_factory=list)
    cursor: WireCursor | None = None


PUT_BLOB: Final = Operation(
    "blob.put", PutBlob, BlobStored, "Store bytes.", request_body=Body.BYTES, mutates=True
)
PUT_BLOBS: Final = Operation(
    "blob.put_many", PutBlobs, BlobsStored, "Store several small blobs.", mutates=True
)
GET_BLOB: Final = Operation(
    "blob.get", GetBlob, BlobHead, "Read a blob or a range of it.", reply_body=Body.BYTES, bare=True
)
HAS_BLOBS: Final = Operation("blob.has", HasBlobs, MissingBlobs, "The missing digests.")
STAT_BLOB: Final = Operation("blob.stat", StatBlob, BlobStat, "The record of a blob.")
LIST_BLOBS: Final = Operation("blob.list", ListBlobs, BlobPage, "A page of blobs.")
DELETE_BLOB: Final = Operation(
    "blob.delete", DeleteBlob, BlobDeleted, "Forget a blob, or the blob of a name.", mutates=True
)
OPEN_UPLOAD: Final = Operation(
    "blob.open", OpenUpload, UploadState, "Begin a streamed put.", mutates=True
)
PUT_PART: Final = Operation(
    "blob.part",
    PutPart,
    PartStored,
    "Send a part of an upload, or end it.",
    request_body=Body.BYTES,
    mutates=True,
    queue=False,
)
RESUME_UPLOAD: Final = Operation(
    "blob.resume", ResumeUpload, UploadState, "Take an upload over.", mutates=True
)
LOOK_UPLOAD: Final = Operation(
    "blob.look", LookUpload, UploadState, "Where an upload goes on, or what it has come to."
)
ABORT_UPLOAD: Final = Operation(
    "blob.abort", AbortUpload, UploadAborted, "Give an upload up.", mutates=True
)
VERIFY_BLOBS: Final = Operation("blob.verify", VerifyBlobs, VerifyReport, "Read back and compare.")
COLLECT_BLOBS: Final = Operation(
    "blob.collect", CollectBlobs, CollectionReply, "Remove what nothing needs."
)
COLLECT_FEATURE: Final = "collect"
"""The feature of workers beside whose writes blobs may be collected."""

BLOB_OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    PUT_BLOB,
    PUT_BLOBS,
    GET_BLOB,
    HAS_BLOBS,
    STAT_BLOB,
    LIST_BLOBS,
    DELETE_BLOB,
    OPEN_UPLOAD,
    PUT_PART,
    RESUME_UPLOAD,
    LOOK_UPLOAD,
    ABORT_UPLOAD,
    VERIFY_BLOBS,
    COLLECT_BLOBS,
)
