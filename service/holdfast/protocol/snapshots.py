"""``snapshot.*``: the messages about snapshots as a whole, and the table of all its operations."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, field

from holdfast.domain.limits import MAX_LABELS
from holdfast.form.terms import RestoreMode, SnapshotState
from holdfast.protocol.files import (
    DIFF_SNAPSHOTS,
    EXPORT_SNAPSHOT,
    LIST_FILES,
    READ_FILE,
    VERIFY_SNAPSHOT,
    SnapshotChange,
)
from holdfast.protocol.message import (
    NAME_PATTERN,
    UUID_PATTERN,
    Reply,
    Request,
    ToldCount,
    ToldSize,
    WireCount,
    WireCursor,
    WireDigest,
    WireKey,
    WireLimit,
    WireLong,
    WireTime,
    base64_of,
)
from holdfast.protocol.operation import AnyOperation, Operation

WireApp = Annotated[
    str,
    Meta(
        pattern=f"^{NAME_PATTERN}$(?!\n)",
        min_length=1,
        max_length=128,
        description="Name of an app: of A-Z a-z 0-9 . _ -, no dot in front.",
    ),
]
WireNode = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$(?!\n)", min_length=1, max_length=128)
]
WireRestore = Annotated[
    str, Meta(pattern=f"^{UUID_PATTERN}$(?!\n)", max_length=36, description="Id of a restore.")
]
WireLabelKey = Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$(?!\n)", min_length=1, max_length=128)]
WireLabelValue = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\ud800-\udfff]+$(?!\n)",
        description="Text without control characters, at most 256 characters.",
    ),
]
WireLabels = Annotated[dict[WireLabelKey, WireLabelValue], Meta(max_length=MAX_LABELS)]
WirePattern = Annotated[str, Meta(min_length=1, max_length=4096)]
WirePatternBytes = Annotated[bytes, base64_of("a pattern", 16384)]
WireWait = Annotated[float, Meta(ge=0, le=600, description="Seconds.")]


MAX_APPS_PER_LIST: Final = 256
MAX_PATTERNS: Final = 1024


class CreateSnapshot(Request, frozen=True, kw_only=True):
    """Archive the directory of ``app`` on the node that has it, or on ``node``.

    ``exclude`` holds patterns in gitignore syntax, and ``exclude_bytes`` more of them, which need
    not be UTF-8. A run longer than ``wait_seconds`` is answered ``pending`` and goes on. With
    ``read_all`` nothing is taken for granted: every file is read, and what is stored already is
    read back, and stored anew where it is not what it was.
    """

    app: WireApp
    labels: WireLabels = field(default_factory=dict)
    node: WireNode | None = None
    exclude: Annotated[list[WirePattern], Meta(max_length=MAX_PATTERNS)] = field(
        default_factory=list
    )
    exclude_bytes: Annotated[list[WirePatternBytes], Meta(max_length=MAX_PATTERNS)] = field(
        default_factory=list
    )
    exclude_caches: bool = False
    one_file_system: bool = False
    skip_unreadable: bool = False
    read_all: bool = False
    wait_seconds: WireWait = 10.0


class SnapshotWarning(Reply, frozen=True, kw_only=True):
    """Something that is not in the snapshot, or not as it was: ``kind`` says why."""

    kind: str
    path: str
    path_bytes: bytes | None = None
    detail: str = ""


class SnapshotRecord(Reply, frozen=True, kw_only=True):
    """A snapshot. Readable only when ``ok``.

    ``size`` is bytes of file content, ``archive_size`` that of the ``.tar.zst``, ``added`` the
    bytes that this one put into the store. ``digest`` is its root's. ``warnings`` are the first
    of ``warning_count``. A ``failure`` has a ``reason``. While its client makes it,
    ``lease_seconds`` is how long it may be silent, and ``missing`` what it has to put yet.
    ``held``: no policy removes it, for ``hold_reason``.
    """

    key: WireKey
    app: WireApp
    state: SnapshotState
    created_at: WireTime
    node: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    finished_at: WireTime | None = None
    entries: ToldCount = 0
    files: ToldCount = 0
    size: ToldSize = 0
    archive_size: ToldSize = 0
    added: ToldSize = 0
    digest: WireDigest | None = None
    parent: WireKey | None = None
    parent_digest: WireDigest | None = None
    warnings: list[SnapshotWarning] = field(default_factory=list)
    warning_count: ToldCount = 0
    code: str | None = None
    reason: str | None = None
    missing: list[WireDigest] = field(default_factory=list)
    lease_seconds: float | None = None
    held: bool = False
    hold_reason: str = ""


class RestoreRecord(Reply, frozen=True, kw_only=True):
    """The restore ``restore`` of the snapshot ``key``, whose root is ``digest``, into ``app``.

    ``entries``, ``files`` and ``size``, bytes of file content, are what was restored; ``removed``
    counts what was removed. ``warnings`` are the first of ``warning_count``. A ``failure`` has a
    ``reason``. ``plan`` is what a dry run would do: the first of ``plan_count`` lines, those that
    remove something in front.
    """

    restore: WireRestore
    key: WireKey
    app: WireApp
    mode: RestoreMode
    state: SnapshotState
    created_at: WireTime
    node: str = ""
    finished_at: WireTime | None = None
    entries: ToldCount = 0
    files: ToldCount = 0
    size: ToldSize = 0
    removed: ToldCount = 0
    digest: WireDigest | None = None
    dry_run: bool = False
    plan: list[SnapshotChange] = field(default_factory=list)
    plan_count: ToldCount = 0
    warnings: list[SnapshotWarning] = field(default_factory=list)
    warning_count: ToldCount = 0
    code: str | None = None
    reason: str | None = None


class RestoreSnapshot(Request, frozen=True, kw_only=True):
    """Put a snapshot's files back, into its own app or into ``app``.

    ``new`` refuses a directory that exists, ``replace`` exchanges it as a whole, ``merge`` writes
    file by file into it; with ``delete`` it also removes what the snapshot lacks. ``paths`` are
    paths or globs, not with ``replace``. ``dry_run`` only says what would be done.

    Files that a client made lose set-ID bits, capabilities and ``trusted.*`` unless they are to be
    ``privileged``. More than ``max_expansion`` times what is stored (1000) is not written, beyond
    64 GiB.
    """

    key: WireKey
    app: WireApp | None = None
    node: WireNode | None = None
    paths: Annotated[list[WirePattern], Meta(max_length=MAX_PATTERNS)] = field(default_factory=list)
    mode: RestoreMode = "new"
    delete: bool = False
    dry_run: bool = False
    owner: Annotated[str, Meta(pattern=r"^(keep|current|[0-9]{1,10}:[0-9]{1,10})$(?!\n)")] = "keep"
    privileged: bool = False
    max_expansion: WireCount | None = None
    wait_seconds: WireWait = 10.0


class ListSnapshots(Request, frozen=True, kw_only=True):
    """A page of snapshots, newest first. All conditions must hold, and all labels match.

    ``since`` is the earliest time of creation that is listed, ``until`` the earliest that is not;
    both to the millisecond.
    """

    app: WireApp | None = None
    apps: Annotated[list[WireApp], Meta(max_length=MAX_APPS_PER_LIST)] | None = None
    labels: WireLabels = field(default_factory=dict)
    state: SnapshotState | None = None
    since: WireTime | None = None
    until: WireTime | None = None
    cursor: WireCursor | None = None
    limit: WireLimit = 100


class SnapshotPage(Reply, frozen=True, kw_only=True):
    """``cursor`` is there while more may follow.

    ``damaged`` are keys of this page whose records are there and cannot be shown.
    """

    snapshots: list[SnapshotRecord]
    cursor: WireCursor | None = None
    damaged: list[WireKey] = field(default_factory=list)


class GetSnapshot(Request, frozen=True, kw_only=True):
    """The record of a snapshot."""

    key: WireKey


class GetRestore(Request, frozen=True, kw_only=True):
    """The record of a restore: for seven days after its end."""

    restore: WireRestore


class DeleteSnapshot(Request, frozen=True, kw_only=True):
    """Forget a snapshot. Content that others share stays."""

    key: WireKey


class SnapshotDeleted(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """``deleted`` is False when there was nothing to delete."""

    deleted: bool


class PurgeSnapshots(Request, frozen=True, kw_only=True):
    """Forget all snapshots of an app."""

    app: WireApp


class SnapshotsPurged(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The snapshots forgotten."""

    deleted: ToldCount


class BeginSnapshot(Request, frozen=True, kw_only=True):
    """Announce a snapshot whose data the caller uploads itself (``Blob-Space: packs``).

    The answer is a ``pending`` record; ``parent_digest`` is the root of what to build on. Send it
    again with ``key`` before ``lease_seconds`` have passed, for as long as the upload takes.
    """

    app: WireApp | None = None
    labels: WireLabels = field(default_factory=dict)
    key: WireKey | None = None


class CommitSnapshot(Request, frozen=True, kw_only=True):
    """Make the root ``digest`` the content of the pending snapshot ``key``.

    Where blobs that it needs are not stored, the answer is still ``pending`` and names the first
    of them in ``missing``: put them and commit again.
    """

    key: WireKey
    digest: WireDigest
    added: WireLong = 0
    warnings: Annotated[list[SnapshotWarning], Meta(max_length=100)] = field(default_factory=list)
    warning_count: WireCount = 0


class SnapshotProgress(Reply, frozen=True, kw_only=True):
    """Published on ``snapshot.progress.<id>`` while a snapshot or restore is made.

    ``bytes`` are bytes of files dealt with, ``added`` those put into the store.
    """

    key: WireKey
    state: SnapshotState
    phase: str
    entries: ToldCount = 0
    bytes: ToldSize = 0
    added: ToldSize = 0
    restore: WireRestore | None = None


CREATE_SNAPSHOT: Final = Operation(
    "snapshot.create", CreateSnapshot, SnapshotRecord, "Archive an app's directory.", mutates=True
)
RESTORE_SNAPSHOT: Final = Operation(
    "snapshot.restore", RestoreSnapshot, RestoreRecord, "Put files back.", mutates=True
)
GET_RESTORE: Final = Operation(
    "snapshot.restored", GetRestore, RestoreRecord, "The progress or outcome of a restore."
)
LIST_SNAPSHOTS: Final = Operation(
    "snapshot.list", ListSnapshots, SnapshotPage, "A page of snapshots, newest first."
)
GET_SNAPSHOT: Final = Operation(
    "snapshot.get", GetSnapshot, SnapshotRecord, "The record of a snapshot."
)
DELETE_SNAPSHOT: Final = Operation(
    "snapshot.delete", DeleteSnapshot, SnapshotDeleted, "Forget a snapshot.", mutates=True
)
PURGE_SNAPSHOTS: Final = Operation(
    "snapshot.purge", PurgeSnapshots, SnapshotsPurged, "Forget an app's snapshots.", mutates=True
)
BEGIN_SNAPSHOT: Final = Operation(
    "snapshot.begin",
    BeginSnapshot,
    SnapshotRecord,
    "Announce a snapshot that the caller uploads.",
    mutates=True,
)
COMMIT_SNAPSHOT: Final = Operation(
    "snapshot.commit",
    CommitSnapshot,
    SnapshotRecord,
    "End a snapshot that the caller uploaded.",
    mutates=True,
)

SNAPSHOT_OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    CREATE_SNAPSHOT,
    RESTORE_SNAPSHOT,
    GET_RESTORE,
    LIST_SNAPSHOTS,
    GET_SNAPSHOT,
    LIST_FILES,
    DIFF_SNAPSHOTS,
    READ_FILE,
    EXPORT_SNAPSHOT,
    VERIFY_SNAPSHOT,
    DELETE_SNAPSHOT,
    PURGE_SNAPSHOTS,
    BEGIN_SNAPSHOT,
    COMMIT_SNAPSHOT,
)
