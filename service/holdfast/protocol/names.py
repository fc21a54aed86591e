"""``blob.*`` with names: the messages and the table of operations.

Messages that older workers refuse have their own subjects. In headers a name is percent-encoded;
in JSON and msgpack it is plain.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, field

from holdfast.domain.blob_names import NameState
from holdfast.domain.limits import MAX_LABELS, MAX_NAME_CURSOR_CHARS
from holdfast.protocol import headers
from holdfast.protocol.blobs import DEFAULT_TYPE, UploadNote, UploadState
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
    WireVersion,
)
from holdfast.protocol.operation import AnyOperation, Body, Operation

NAMES_FEATURE: Final = "names"
"""The one of ``features`` in discovery of a worker that knows names."""

QuotedLabels = Annotated[
    str, Meta(max_length=32768, description="key=value joined by &, values percent-encoded.")
]
ZonedText = Annotated[
    str,
    Meta(
        max_length=64,
        description="RFC 3339, with its zone.",
        extra_json_schema={"format": "date-time"},
    ),
]
WireNameLabels = Annotated[dict[str, str], Meta(max_length=MAX_LABELS)]
WireNameCursor = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_NAME_CURSOR_CHARS,
        pattern=r"^[A-Za-z0-9_.~-]+$(?!\n)",
        description="Opaque: send back what an answer gave.",
    ),
]


class CreateName(Request, frozen=True, kw_only=True):
    """Headers beside the bytes of a blob whose name must be free.

    ``digest`` is what the caller expects; a mismatch is invalid. ``expires`` is a time (RFC 3339)
    from which on the name is not there any more.
    """

    quoted_name: QuotedName = field(name=headers.BLOB_NAME)
    digest: WireDigest | None = field(default=None, name=headers.BLOB_DIGEST)
    type: WireType = field(default=DEFAULT_TYPE, name=headers.BLOB_TYPE)
    quoted_labels: QuotedLabels | None = field(default=None, name=headers.BLOB_LABELS)
    expires: ZonedText | None = field(default=None, name=headers.BLOB_EXPIRES)
    if_absent: bool | None = field(default=None, name=headers.BLOB_IF_ABSENT)
    if_version: WireVersion | None = field(default=None, name=headers.BLOB_IF_VERSION)
    if_digest: WireDigest | None = field(default=None, name=headers.BLOB_IF_DIGEST)


class ReplaceName(CreateName, frozen=True, kw_only=True):
    """Headers beside the new bytes of a blob that has that name. A failed one leaves the old."""


class NameStored(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The name has this blob now."""

    name: str
    digest: WireDigest
    size: ToldSize
    version: ToldCount
    state: NameState = "ok"


class OpenName(Request, frozen=True, kw_only=True):
    """Begin a streamed write of a named blob: parts and the end go as those of ``blob.open``.

    ``mode``: as ``blob.create`` or as ``blob.replace``. The end is answered once the name has the
    blob. ``note`` as in ``OpenUpload``.
    """

    name: WireName
    mode: Literal["create", "replace"]
    size: WireSize | None = None
    digest: WireDigest | None = None
    type: WireType = DEFAULT_TYPE
    labels: WireNameLabels = field(default_factory=dict)
    expires: ZonedText | None = None
    if_absent: bool = False
    if_version: WireVersion | None = None
    if_digest: WireDigest | None = None
    note: UploadNote = ""


class CopyName(Request, frozen=True, kw_only=True):
    """Give ``name`` the blob of another name, of a version of a name, or of a digest.

    No bytes move. A copy of a name takes its type and labels along; ``version`` of the name itself
    restores that. ``source`` is written ``from``.
    """

    name: WireName
    source: WireName | None = field(default=None, name="from")
    digest: WireDigest | None = None
    version: WireVersion | None = None
    if_absent: bool = False
    if_version: WireVersion | None = None
    if_digest: WireDigest | None = None


class RenameName(Request, frozen=True, kw_only=True):
    """Give ``name`` the blob of ``from``, and take it from there, in one step."""

    name: WireName
    source: WireName = field(name="from")
    if_absent: bool = False
    if_version: WireVersion | None = None
    if_digest: WireDigest | None = None


class ListNames(Request, frozen=True, kw_only=True):
    """A page of names that start with ``prefix``, in the order of their UTF-8 bytes.

    With a ``delimiter`` names that have it behind the prefix are told once, as a common prefix up
    to and with it. ``labels`` are those that a name must have. ``start_after`` is a name, which
    need not exist.
    """

    prefix: Annotated[str, Meta(max_length=512)] = ""
    delimiter: Annotated[str, Meta(max_length=16)] = ""
    labels: WireNameLabels = field(default_factory=dict)
    start_after: Annotated[str, Meta(max_length=512)] = ""
    cursor: WireNameCursor | None = None
    limit: WireLimit = 100


class NameEntry(Reply, frozen=True, kw_only=True):
    """One name. A ``pending`` one, or a ``failure``, has no blob."""

    name: str
    state: NameState
    version: ToldCount = 0
    digest: WireDigest | None = None
    size: ToldSize = 0
    type: str = DEFAULT_TYPE
    modified_at: WireTime = ""
    labels: dict[str, str] = field(default_factory=dict)
    expires_at: WireTime | None = None


class NamePage(Reply, frozen=True, kw_only=True):
    """Names and common prefixes, together as many as asked for. ``cursor``: more may follow."""

    names: list[NameEntry]
    prefixes: list[str] = field(default_factory=list)
    cursor: WireNameCursor | None = None


class GetHistory(Request, frozen=True, kw_only=True):
    """A name's transitions, and a page of its versions."""

    name: WireName
    cursor: WireCursor | None = None
    limit: WireLimit = 100


class NameTransition(Reply, frozen=True, kw_only=True):
    """One step of a name. ``worker`` took it, for ``reason``."""

    at: WireTime
    state: NameState
    version: ToldCount = 0
    digest: WireDigest | None = None
    size: ToldSize = 0
    reason: str = ""
    worker: str = ""


class NameVersion(Reply, frozen=True, kw_only=True):
    """A blob that the name has, or had and still keeps."""

    version: ToldCount
    digest: WireDigest
    size: ToldSize
    type: str = DEFAULT_TYPE
    modified_at: WireTime = ""
    labels: dict[str, str] = field(default_factory=dict)


class NameHistory(Reply, frozen=True, kw_only=True):
    """The last transitions and the kept versions, both newest first.

    ``cursor`` is there while more versions follow; each page has all transitions.
    """

    name: str
    state: NameState
    version: ToldCount
    transitions: list[NameTransition]
    versions: list[NameVersion]
    cursor: WireCursor | None = None


class NameRule(Request, frozen=True, kw_only=True):
    """A rule for the names that start with ``prefix``, or for one ``name``.

    ``keep_versions`` counts the present one (1: no other is kept); those replaced more than
    ``keep_seconds`` ago are not kept either. Names expire ``expire_seconds`` after their last
    change. If several rules state a field, that of the name holds, else that of the longest
    prefix.
    """

    prefix: Annotated[str, Meta(max_length=512)] | None = None
    name: WireName | None = None
    keep_versions: Annotated[int, Meta(ge=1, le=1000)] | None = None
    keep_seconds: Annotated[int, Meta(ge=1, le=2**40)] | None = None
    expire_seconds: Annotated[int, Meta(ge=1, le=2**40)] | None = None


class KeptRule(Reply, frozen=True, kw_only=True):
    """A rule as it is kept: see ``NameRule``."""

    prefix: str | None = None
    name: str | None = None
    keep_versions: ToldCount | None = None
    keep_seconds: ToldCount | None = None
    expire_seconds: ToldCount | None = None


class GetRules(Request, frozen=True, kw_only=True):
    """The rules of names as they are."""


class SetRules(Request, frozen=True, kw_only=True):
    """Replace all rules of names; only while they are at ``if_revision``, where that is said."""

    rules: Annotated[list[NameRule], Meta(max_length=256)]
    if_revision: WireCount | None = None


class RuleList(Reply, frozen=True, kw_only=True, omit_defaults=False):
    """The rules as they are now. ``revision`` is 0 where none were ever made."""

    rules: list[KeptRule]
    revision: ToldCount


CREATE_NAME: Final = Operation(
    "blob.create",
    CreateName,
    NameStored,
    "Store bytes under a new name.",
    request_body=Body.BYTES,
    mutates=True,
)
REPLACE_NAME: Final = Operation(
    "blob.replace",
    ReplaceName,
    NameStored,
    "Store bytes under a name that there is.",
    request_body=Body.BYTES,
    mutates=True,
)
OPEN_NAME: Final = Operation(
    "blob.open_name", OpenName, UploadState, "Begin a streamed write of a name.", mutates=True
)
COPY_NAME: Final = Operation(
    "blob.copy", CopyName, NameStored, "Give a name the blob of another.", mutates=True
)
RENAME_NAME: Final = Operation(
    "blob.rename", RenameName, NameStored, "Give a blob another name.", mutates=True
)
LIST_NAMES: Final = Operation("blob.names", ListNames, NamePage, "A page of names.")
GET_HISTORY: Final = Operation("blob.history", GetHistory, NameHistory, "The history of a name.")
GET_RULES: Final = Operation("blob.rules", GetRules, RuleList, "The rules by which names are kept.")
SET_RULES: Final = Operation(
    "blob.set_rules", SetRules, RuleList, "Change what is kept of names.", mutates=True
)

NAME_OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    CREATE_NAME,
    REPLACE_NAME,
    OPEN_NAME,
    COPY_NAME,
    RENAME_NAME,
    LIST_NAMES,
    GET_HISTORY,
    GET_RULES,
    SET_RULES,
)
